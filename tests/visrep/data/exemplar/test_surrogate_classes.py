"""Samples of surrogate classes: what is drawn, where it is read, and the order of the batches."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracles import exemplar as oracle
from visrep import dist
from visrep.data.dataset import MemoryImages
from visrep.data.exemplar.surrogate_classes import ExemplarLoader, Exemplars
from visrep.errors import ConfigError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
STILL = {"shift": 0.0, "zoom": (1.0, 1.0), "rotation": 0.0}
COLOURLESS = {
    "pca": (1.0, 1.0), "power": (1.0, 1.0), "factor": (1.0, 1.0), "offset": (0.0, 0.0), "hue": 0.0,
}  # fmt: skip


def noisy(count: int = 8, side: int = 40) -> MemoryImages:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=draw)
    images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") * 255
    return MemoryImages(name="made/train", images=images.to(torch.uint8))


def loader_of(views: Exemplars, *, batch_size: int = 6, seed: int = 0, **data: int):
    return ExemplarLoader(noisy(**data), views=views, batch_size=batch_size, seed=seed)


def small(**settings: object) -> Exemplars:
    return Exemplars(**{"classes": 5, "samples": 4, "size": 12, **PLAIN, **settings})


def take(loader: ExemplarLoader, start: int, count: int) -> list[dict]:
    return [batch for _, batch in zip(range(count), loader.iterate(start), strict=False)]


def every(views: Exemplars, copies: int = 200, seed: int = 0):
    classes = torch.arange(views.classes).repeat(copies)
    return views.draw(
        seed=seed, classes=classes, copies=torch.arange(copies).repeat_interleave(views.classes)
    )


def test_ranges_are_the_papers_and_all_parameters_are_unrelated() -> None:
    params = every(Exemplars(classes=20, **PLAIN))
    turn = math.radians(20)
    for values, low, high in (
        (params.zoom, 0.7, 1.4),
        (params.angle, -turn, turn),
        (params.shift, -0.2, 0.2),
        (params.pca, 0.5, 2.0),
        (params.power, 0.25, 4.0),
        (params.factor, 0.7, 1.4),
        (params.offset, -0.1, 0.1),
        (params.hue, -0.1, 0.1),
    ):
        span = high - low
        assert low <= values.min() < low + 0.01 * span
        assert high - 0.01 * span < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.02 * span)
        assert values.std().item() == pytest.approx(span / 12**0.5, rel=0.03)
    columns = [value.reshape(len(value), -1) for value in vars(params).values()]
    related = np.corrcoef(torch.cat(columns, dim=1).T) - np.eye(14)
    # One factor shared by the components, or by S and V, would be a correlation of 1.
    assert abs(related).max() < 0.08


def test_parameters_are_a_function_of_seed_class_and_copy() -> None:
    views = small(classes=50)
    params = every(views, copies=9)
    chosen = torch.tensor([7 * 50 + 3, 2, 8 * 50 + 49])
    part = views.draw(seed=0, classes=chosen % 50, copies=chosen // 50)
    larger = small(classes=60, samples=300).draw(seed=0, classes=chosen % 50, copies=chosen // 50)
    for name, whole in vars(params).items():
        assert torch.equal(getattr(part, name), whole[chosen])
        assert torch.equal(getattr(larger, name), whole[chosen])  # neither N nor K matters
    assert not torch.equal(every(views, copies=9, seed=1).zoom, params.zoom)
    assert len(params.zoom.unique()) == len(params.zoom)


def test_a_sample_equals_plain_loops() -> None:
    """The whole chain: place, turn, size, components, HSV, normalisation."""
    views = Exemplars(classes=4, size=10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    loader = loader_of(views)
    classes, copies = torch.arange(4), torch.tensor([0, 5, 1, 99])
    (got,) = loader.samples(classes, copies)
    params = views.draw(seed=0, classes=classes, copies=copies)
    mean, axes = loader.palette.mean.double().numpy(), loader.palette.axes.double().numpy()
    for i in range(4):
        one = {name: value[i].double().numpy() for name, value in vars(params).items()}
        want = oracle.sample(loader.windows[i] / 255.0, 10, one, mean, axes)
        for channel in range(3):
            normal = (want[channel] - views.mean[channel]) / views.std[channel]
            torch.testing.assert_close(got[i, channel].double(), normal, atol=3e-4, rtol=0)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_context_is_the_images_own() -> None:
    """The black-border trap: red is the column, green the row, wherever a sample reads."""
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    image = torch.stack([80 + columns, 80 + rows, 100 * ((rows + columns) // 3 % 2)])
    data = MemoryImages(name="made/train", images=image[None].to(torch.uint8))
    views = Exemplars(classes=30, size=16, side=(1 / 6, 1 / 6), **PLAIN, **COLOURLESS)
    loader = ExemplarLoader(data, views=views, batch_size=2, seed=0)
    classes, copies = torch.arange(30).repeat(20), torch.arange(20).repeat_interleave(30)
    (samples,) = loader.samples(classes, copies)
    params = views.draw(seed=0, classes=classes, copies=copies)
    left, top, side = loader.seeds.places[classes].unbind(1)
    assert (side == 16).all()
    axis = torch.arange(16) + 0.5 - 8
    u, v = axis.expand(16, 16), axis[:, None].expand(16, 16)
    cos, sin = (params.zoom * f(params.angle) for f in (torch.cos, torch.sin))
    cos, sin = cos[:, None, None], sin[:, None, None]
    x = (left + 8 + 16 * params.shift[:, 0])[:, None, None] + cos * u - sin * v
    y = (top + 8 + 16 * params.shift[:, 1])[:, None, None] + sin * u + cos * v
    inside = (x > 1) & (x < 95) & (y > 1) & (y < 95)
    assert inside.float().mean() > 0.8
    outside_patch = ((x < left[:, None, None]) | (x > left[:, None, None] + 16)) & inside
    assert outside_patch.float().mean() > 0.1  # it does read around the seed
    for channel, where in ((0, x), (1, y)):
        want = (80 + where - 0.5) / 255
        assert ((samples[:, channel] - want).abs()[inside] < 0.003).all()
        assert samples[:, channel].min() > 79 / 255  # a mirror beyond the image, nothing black


def test_the_window_holds_the_farthest_reach() -> None:
    for settings in ({}, {"rotation": 45.0}, {"shift": 0.0}, {"zoom": (0.5, 3.0)}, STILL):
        views = Exemplars(**PLAIN, **settings)
        turn = math.radians(views.rotation)
        corner = 0.5 * (views.size - 1) * views.zoom[1]  # the centre of a corner's pixel
        reach = views.shift * views.size + corner * (math.cos(turn) + math.sin(turn))
        assert reach + 0.5 <= views.window / 2  # both neighbours that it reads between
        assert views.window % 2 == views.size % 2


def test_a_fixed_set_of_k_samples_each_once_an_epoch() -> None:
    loader = loader_of(small(), batch_size=6)
    assert loader.order.size == 20 and loader.steps_per_epoch == 3
    steps = [loader.samples_of(step) for step in range(10)]  # three epochs
    stream = torch.cat([4 * classes + copies for classes, copies in steps])
    epochs = stream.view(3, 20)
    assert all(sorted(epoch.tolist()) == list(range(20)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    views = torch.cat(
        [batch["views"][0] for _, batch in zip(range(10), loader.iterate(0), strict=False)]
    )
    for name in range(20):
        same = views[stream == name]
        assert len(same) == 3 and torch.equal(same[0], same[1])
    assert len(views[:20].flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("samples", [1, 3])
def test_samples_per_class_does_something(samples: int) -> None:
    loader = loader_of(small(samples=samples), batch_size=4)
    seen = {}
    for batch in take(loader, 0, 12):
        for index, x in zip(batch["index"].tolist(), batch["views"][0], strict=True):
            seen.setdefault(index, set()).add(tuple(x.flatten().tolist()))
    assert set(seen) == set(range(5))
    assert {len(images) for images in seen.values()} == {samples}


def test_a_batch_larger_than_an_epoch_runs_on() -> None:
    classes, copies = loader_of(small(samples=1), batch_size=12).samples_of(0)
    assert torch.equal(copies, torch.zeros(12, dtype=torch.int64))
    assert sorted(torch.bincount(classes, minlength=5).tolist()) == [2, 2, 2, 3, 3]


def assert_equal(one: dict, other: dict) -> None:
    assert one["seed"] == other["seed"] and torch.equal(one["index"], other["index"])
    assert torch.equal(one["views"][0], other["views"][0])


def test_any_step_can_be_the_first() -> None:
    straight = take(loader_of(small()), 0, 8)
    for one, other in zip(straight[5:], take(loader_of(small()), 5, 3), strict=True):
        assert_equal(one, other)
    assert not torch.equal(
        straight[0]["views"][0], take(loader_of(small(), seed=1), 0, 1)[0]["views"][0]
    )
    assert {"views", "index", "size", "seed"} == straight[0].keys()
    assert straight[0]["size"] == 6 and straight[0]["index"].dtype == torch.int64


def test_processes_share_the_batch_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = take(loader_of(small()), 0, 3)
    parts = []
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        parts.append(take(loader_of(small()), 0, 3))
    for one, first, second in zip(whole, *parts, strict=True):
        joined = {
            "seed": first["seed"],
            "index": torch.cat([first["index"], second["index"]]),
            "views": [torch.cat([first["views"][0], second["views"][0]])],
        }
        assert_equal(one, joined)
    with pytest.raises(ConfigError, match="does not divide over 2 processes"):
        loader_of(small(), batch_size=7)


def test_seeds_are_drawn_only_when_they_are_needed() -> None:
    class Untouched(MemoryImages):
        def __getitem__(self, i: int) -> Tensor:
            raise AssertionError("read")

    data = Untouched(name="made/train", images=noisy().images)
    loader = ExemplarLoader(data, views=small(), batch_size=4, seed=0)
    assert loader.steps_per_epoch == 5
    with pytest.raises(AssertionError, match="read"):
        next(loader.iterate(0))


def test_half_precision_around_changes_nothing() -> None:
    loader = loader_of(small())
    (want,) = loader.samples(torch.arange(5), torch.zeros(5, dtype=torch.int64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (got,) = loader.samples(torch.arange(5), torch.zeros(5, dtype=torch.int64))
    assert torch.equal(got, want) and got.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 1}, "classes=1"),
        ({"samples": 0}, "samples=0"),
        ({"samples": 2**20}, "samples="),
        ({"size": 4}, "size=4"),
        ({"side": [0.5, 1.5]}, "side="),
        ({"side": [0.0, 1.0]}, "side="),
        ({"zoom": [1.4, 0.7]}, "zoom="),
        ({"pca": [1.0]}, "pca="),
        ({"power": [-1, 2]}, "power="),
        ({"rotation": 90}, "rotation=90"),
        ({"shift": -0.1}, "shift="),
        ({"hue": 0.6}, "hue="),
        ({"std": [0, 1, 1]}, "std="),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Exemplars(**{**PLAIN, **settings})
