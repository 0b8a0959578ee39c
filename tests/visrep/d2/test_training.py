"""Detectron2's loop with a batch in parts."""

import itertools

import pytest
import torch

from tests.transfer.detection.shapes import shapes, small_recipe
from tests.transfer.detection.test_engine_d2 import PREPROCESS, encoder
from visrep.d2 import training
from visrep.d2.loader import TrainingLoader
from visrep.d2.weights import place
from visrep.data.images import BrokenImages
from visrep.engine.run import Run
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.transfer.detection import engine_d2


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("head", ["fpn", "c4"])
def test_an_update_in_parts_is_that_of_the_batch(tmp_path, head, monkeypatch):
    """Norms rest, the samplers take the first of each kind, and every image has as many regions."""
    from detectron2.modeling import build_model

    data = shapes(tmp_path / "shapes", images=10, seed=0)
    run = Run(out=tmp_path, device=torch.device("cpu"), seed=0, config={}, command="")
    monkeypatch.setattr(torch, "randperm", lambda n, **given: torch.arange(n))
    after = []
    # float16 is a GPU's; here its gradients are scaled, and the numbers stay float32
    for accumulate, dtype in ((1, None), (2, None), (2, torch.float16)):
        recipe = small_recipe(
            head=head, batch_size=4, roi_batch=4, norm="FrozenBN", accumulate=accumulate
        )
        net = encoder()
        for block in net.modules():
            if isinstance(block, BatchNorm):
                torch.nn.init.ones_(block.weight)  # a fresh net's last one is 0 and hides the rest
        cfg = engine_d2.configure(net, PREPROCESS, data, recipe, run=run, workers=0)
        torch.manual_seed(0)
        model = build_model(cfg)
        place(model, net)
        loader = TrainingLoader(
            cfg, seed=0, start=accumulate, broken=BrokenImages(0, 1), accumulate=accumulate
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        before = {name: value.clone() for name, value in model.named_parameters()}
        loop = training.trainer(model, loader, optimizer, dtype=dtype, accumulate=accumulate)
        assert loop.grad_scaler.is_enabled() == (dtype is torch.float16)
        loop.train(0, 1)
        after.append({n: before[n] - value.detach() for n, value in model.named_parameters()})
    whole, parts, scaled = after
    moved = 0
    for name, step in whole.items():
        moved += bool(step.any())
        near = {"atol": 1e-6 * max(1.0, step.abs().max().item())}
        assert torch.allclose(step, parts[name], **near), name
        assert torch.allclose(step, scaled[name], **near), name
    assert moved > 0.9 * len(whole)


@pytest.mark.detectron2
def test_the_images_of_a_batch_do_not_hang_on_its_parts(tmp_path):
    data = shapes(tmp_path / "shapes", images=10, seed=0)
    run = Run(out=tmp_path, device=torch.device("cpu"), seed=0, config={}, command="")
    recipe = small_recipe(batch_size=4)
    cfg = engine_d2.configure(encoder(), PREPROCESS, data, recipe, run=run, workers=0)

    def images(accumulate, start, count):
        loader = TrainingLoader(
            cfg, seed=0, start=start, broken=BrokenImages(0, 1), accumulate=accumulate
        )
        return [image for batch in itertools.islice(loader, count) for image in batch]

    whole, parts = images(1, 1, 2), images(2, 2, 4)
    assert len(whole) == len(parts) == 8
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(whole, parts, strict=True))


def test_precisions_that_detectron2_has():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert training.dtype("fp32", cpu) is None
    assert training.dtype("bf16", cuda) is torch.bfloat16
    assert training.dtype("fp16", cuda) is torch.float16
    for word, device in (("bf16", cpu), ("fp16", cpu), ("auto", cuda)):
        with pytest.raises(ConfigError, match=f"precision={word}"):
            training.dtype(word, device)
