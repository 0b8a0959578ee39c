"""Small nets whose every tensor differs from its initial value, and files made of them."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visrep.data.preprocess import Preprocess
from visrep.nn.heads import MLP, simclr_head
from visrep.nn.resnet import ResNet
from visrep.weights import EncoderFile, read_weights, save_encoder
from visrep.weights.encoder_file import shapes_of

PREPROCESS = Preprocess(size=32, resize=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def stir(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give all parameters and statistics values as after training, functions of `seed`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for part in module.modules():
            for name, tensor in [
                *part.named_parameters(recurse=False),
                *part.named_buffers(recurse=False),
            ]:
                if name == "running_var" or (name == "weight" and tensor.dim() == 1):
                    draw(tensor, 0.5, 1.5)
                elif name in ("running_mean", "bias"):
                    draw(tensor, -0.2, 0.2)
                elif tensor.is_floating_point():
                    draw(tensor, -1.0, 1.0)
                    tensor.mul_((3 / tensor[0].numel()) ** 0.5)
    return module


def net(**spec: Any) -> ResNet:
    """A stirred ResNet in eval mode; by default the smallest there is."""
    spec = {"depth": 18, "width": 0.0625, "stem": "small", **spec}
    return stir(ResNet(**spec)).eval()


def head(encoder: ResNet) -> MLP:
    """A stirred SimCLR head of three layers."""
    layers = simclr_head(hidden=encoder.out_dim, out_dim=8, depth=3)
    return stir(MLP(in_dim=encoder.out_dim, layers=layers), 1).eval()


def in_memory(*, preprocess: Preprocess = PREPROCESS, **spec: Any) -> EncoderFile:
    """What the encoder file of `net(**spec)` holds, without a disk."""
    encoder = net(**spec)
    state = encoder.state_dict()
    return EncoderFile(
        backbone=encoder.spec,
        preprocess=preprocess.to_dict(),
        source={"method": "stirred"},
        tensors={k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
    )


def numbered(**spec: Any) -> EncoderFile:
    """As `in_memory` with whole numbers for weights: quick to make for a net of full size."""
    with torch.device("meta"):
        encoder = ResNet(**spec)
    tensors = {
        name: torch.arange(float(math.prod(shape))).view(shape) % 8191
        for name, shape in shapes_of(encoder).items()
    }
    return EncoderFile(backbone=encoder.spec, preprocess=PREPROCESS.to_dict(), tensors=tensors)


def encoder_file(path: Path, *, preprocess: Preprocess = PREPROCESS, **spec: Any) -> EncoderFile:
    """An encoder file of `net(**spec)` without head at `path`, read back."""
    save_encoder(path, encoder=net(**spec), preprocess=preprocess, source={"method": "stirred"})
    return read_weights(path)
