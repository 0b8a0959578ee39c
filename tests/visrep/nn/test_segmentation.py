"""The heads of semantic segmentation against plain formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from visrep.nn.batchnorm import BatchNorm
from visrep.nn.segmentation import FCNHead, PyramidHead, pixel_loss, to_pixels


def test_fcn_head_sees_as_far_as_its_dilation():
    torch.manual_seed(0)
    head = FCNHead(4, classes=3, width=8, convs=2, dilation=6, norm=BatchNorm).eval()
    x = torch.randn(1, 4, 41, 41, requires_grad=True)
    out = head(x)
    assert out.shape == (1, 3, 41, 41)
    out[0, :, 20, 20].sum().backward()
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()
    assert rows == [8, 14, 20, 26, 32]  # two convolutions, each of -6, 0 and 6
    kinds = [type(layer) for conv in head.convs for layer in conv]
    assert kinds == [nn.Conv2d, BatchNorm, nn.ReLU] * 2
    assert all(conv[0].bias is None for conv in head.convs)


def test_a_pyramid_is_summed_at_its_finest_map():
    torch.manual_seed(0)
    head = PyramidHead(8, classes=3, width=32, steps=range(3))
    maps = [torch.randn(2, 8, 16 // 2**i, 24 // 2**i) for i in range(3)]
    assert [len(branch) for branch in head.branches] == [1, 1, 2]

    def up(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    a, b, c = (list(branch) for branch in head.branches)
    total = a[0](maps[0]) + up(b[0](maps[1])) + up(c[1](up(c[0](maps[2]))))
    want = F.conv2d(total, head.predictor.weight, head.predictor.bias)
    torch.testing.assert_close(head(maps), want)


def test_position_i_of_a_map_is_pixel_i_times_the_stride():
    logits = torch.arange(4.0)[None, None, :, None].expand(1, 1, 4, 3)
    pixels = to_pixels(logits, 8)
    assert pixels.shape == (1, 1, 32, 24)
    column = pixels[0, 0, :, 5]
    torch.testing.assert_close(column[:25], torch.arange(25) / 8)
    assert (column[25:] == 3).all()
    crop = F.interpolate(logits, size=(25, 17), mode="bilinear", align_corners=True)
    torch.testing.assert_close(pixels[..., :25, :17], crop)


def test_the_loss_is_the_mean_over_pixels_with_a_class():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    classes = torch.randint(3, (2, 4, 5))
    classes[0, :2] = 255
    known = classes != 255
    own = logits.log_softmax(dim=1).permute(0, 2, 3, 1)[known]
    want = -own[torch.arange(len(own)), classes[known]].mean()
    assert float(pixel_loss(logits, classes, ignored=255)) == pytest.approx(float(want), rel=1e-6)
    nothing = pixel_loss(logits, torch.full_like(classes, 255), ignored=255)
    nothing.backward()
    assert float(nothing) == 0 and (logits.grad == 0).all()
