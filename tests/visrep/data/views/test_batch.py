"""Whole views against torchvision's operators, and what a batch, a slice and a worker share."""

from dataclasses import replace

import pytest
import torch

from tests.oracles.views import photos, view_of
from visrep.config import instantiate
from visrep.data.views import batch as views_module
from visrep.data.views import image_ops
from visrep.data.views.batch import Views
from visrep.data.views.spec import make_view
from visrep.groups import choices, named

ALL = {
    "jitter": (0.8, 0.8, 0.8, 0.2),
    "jitter_p": 0.8,
    "gray_p": 0.3,
    "blur_p": 0.5,
    "solarize_p": 0.3,
    "invert_p": 0.3,
}
PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
NORMAL = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}


def compare(views, images, params, made, tolerance=5e-6):
    """`made` against torchvision sample by sample, in units of [0, 1]."""
    scale = torch.tensor(views.std)[:, None, None]
    for v, view in enumerate(made):
        for i, image in enumerate(images):
            expected = view_of(image, params, i, v, views)
            torch.testing.assert_close(view[i] * scale, expected * scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", choices("views"))
def test_every_recipe_equals_torchvisions_operators(name):
    """At 40 px instead of 224: the formulas do not depend on it."""
    paper = instantiate(named("views", name))
    small = [replace(view, size=min(view.size, 40)) for view in paper.views]
    views = Views(views=small, mean=paper.mean, std=paper.std)
    images = photos(24, 45, 60)
    params = views.draw(seed=0, step=3, batch=24)
    compare(views, images, params, views(images, params))


@pytest.mark.parametrize("order", [("jitter", "gray"), ("gray", "jitter")])
@pytest.mark.parametrize("additive", [False, True])
def test_all_operations(order, additive):
    view = make_view(
        size=24,
        interpolation="bicubic",
        brightness_additive=additive,
        order=(*order, "invert", "blur", "solarize"),
        **ALL,
    )
    views = Views(views=[view], **NORMAL)
    images = photos(48, 32, 32)
    params = views.draw(seed=1, step=0, batch=48)
    compare(views, images, params, views(images, params))


@pytest.mark.parametrize("strength", [(0.4, 0, 0, 0), (0, 0.4, 0.4, 0), (0, 0, 0, 0.3)])
def test_jitter_of_some_properties_only(strength):
    views = Views(views=[make_view(size=16, jitter=strength, jitter_p=1.0)], **PLAIN)
    images = photos(16, 20, 20)
    params = views.draw(seed=0, step=0, batch=16)
    compare(views, images, params, views(images, params))


def test_views_of_unequal_size_and_kind():
    """Two large views and three small ones, the second solarised: SwAV's and BYOL's shapes."""
    large = make_view(size=32, scale=(0.14, 1.0), blur_p=1.0)
    other = make_view(size=32, scale=(0.14, 1.0), blur_p=0.1, solarize_p=0.9)
    small = make_view(size=12, scale=(0.05, 0.14), interpolation="bicubic")
    views = Views(views=[large, other, small, small, small], **NORMAL)
    images = photos(10, 48, 48)
    params = views.draw(seed=0, step=0, batch=10)
    made = views(images, params)
    assert [tuple(view.shape) for view in made] == 2 * [(10, 3, 32, 32)] + 3 * [(10, 3, 12, 12)]
    assert [[o.name for o in view.operations] for view in views.views[:3]] == [
        ["blur"],
        ["blur", "solarize"],
        [],
    ]
    assert not torch.equal(made[2], made[3])
    compare(views, images, params, made)


def all_views(size=24, **kwargs):
    return Views(
        views=[make_view(size=size, **ALL, **kwargs), make_view(size=size, **ALL)], **NORMAL
    )


@pytest.mark.parametrize(("size", "height", "width"), [(24, 24, 24), (32, 32, 32), (19, 23, 30)])
@pytest.mark.parametrize("processes", [2, 3, 12])
def test_processes_make_the_bits_of_one(size, height, width, processes):
    views = all_views(size, interpolation="bicubic")
    images = photos(12, height, width)
    params = views.draw(seed=0, step=0, batch=12)
    whole = views(images, params)
    share = 12 // processes
    for start in range(0, 12, share):
        part = views(images[start : start + share], params[start : start + share])
        for a, b in zip(part, whole, strict=True):
            assert torch.equal(a, b[start : start + share])


def test_the_working_set_of_a_cpu_does_not_change_a_bit(monkeypatch):
    views, images = all_views(), photos(13, 30, 30)
    params = views.draw(seed=0, step=0, batch=13)
    whole = views(images, params)
    monkeypatch.setattr(views_module, "CACHED", 5 * 3 * 24**2)
    for a, b in zip(views(images, params), whole, strict=True):
        assert torch.equal(a, b)


def test_same_parameters_same_bits():
    views, images = all_views(), photos(8, 30, 30)
    first = views(images, views.draw(seed=2, step=9, batch=8))
    again = views(images, views.draw(seed=2, step=9, batch=8))
    other = views(images, views.draw(seed=2, step=10, batch=8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def both_paths(filter, height, width, size, images, antialias=True):
    """Grey levels between the crops of a worker and those of the batch."""
    view = make_view(size=size, interpolation=filter, antialias=antialias)
    views = Views(views=[view, view], **PLAIN)
    params = views.draw(seed=0, step=0, batch=len(images))
    crops = [views.crop(image, params, i) for i, image in enumerate(images)]
    assert all(crop.dtype == torch.uint8 for crop in crops[0])
    worker = [torch.stack(kind).float() for kind in zip(*crops, strict=True)]
    batched = views(images, params)
    return torch.stack(
        [(a - (255 * b).round()).abs() for a, b in zip(worker, batched, strict=True)]
    )


@pytest.mark.parametrize("filter", image_ops.FILTERS)
@pytest.mark.parametrize(("height", "width", "size"), [(90, 61, 24), (20, 33, 48), (1, 9, 5)])
def test_without_antialiasing_a_worker_cuts_what_the_batch_cuts(filter, height, width, size):
    """Black and white too: both clip after both passes, so that one rounding is between them."""
    images = photos(16, height, width)
    images[:8] = (images[:8] > 127).to(torch.uint8) * 255
    difference = both_paths(filter, height, width, size, images, antialias=False)
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (90, 61, 24), (20, 33, 48)])
def test_a_worker_cuts_what_the_batch_cuts(filter, height, width, size):
    """Within 1 of 255 grey levels, and the same in most places: the worker rounds twice."""
    images = photos(16, height, width)
    if filter == "bicubic":  # away from black and white; see the next test
        images = images // 2 + 64
    difference = both_paths(filter, height, width, size, images)
    assert difference.max() <= 1
    assert difference.mean() < 0.25


def test_a_worker_clips_bicubic_overshoot_between_its_passes():
    """As Pillow does: only pixels beside black or white can differ by more."""
    difference = both_paths("bicubic", 90, 61, 32, photos(16, 90, 61))
    assert difference.mean() < 0.25
    assert (difference > 1).float().mean() < 0.01


def test_images_of_unequal_size():
    views = Views(views=[make_view(size=24, **ALL), make_view(size=16, **ALL)], **NORMAL)
    images = [photos(1, 20 + 7 * i, 60 - 5 * i, seed=i)[0] for i in range(8)]
    params = views.draw(seed=0, step=0, batch=8)
    crops = [views.crop(image, params, i) for i, image in enumerate(images)]
    stacked = [torch.stack(kind) for kind in zip(*crops, strict=True)]
    made = views(stacked, params)
    # What comes after the crop equals torchvision's on the very same uint8 crops.
    for v, view in enumerate(made):
        whole = Views(
            views=[make_view(size=view.shape[-1], scale=(1, 1), flip_p=0, **ALL)], **NORMAL
        )
        after = type(params)(whole.views, params.uniforms[:, v : v + 1])
        again = whole(stacked[v], after)[0]
        torch.testing.assert_close(view, again, rtol=0, atol=2e-6)
        for i in range(8):
            expected = view_of(stacked[v][i], after, i, 0, whole)
            torch.testing.assert_close(view[i], expected, rtol=0, atol=5e-5)


def test_layout_and_type():
    views = all_views()
    images = photos(4, 30, 30)
    before = images.clone()
    params = views.draw(seed=0, step=0, batch=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = views(images, params)
    for view, inside_autocast in zip(views(images, params), mixed, strict=True):
        assert view.dtype == torch.float32
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert not view.requires_grad
        assert torch.equal(view, inside_autocast)
    assert torch.equal(images, before)


def test_values_stay_in_range():
    """Bicubic weights overshoot and the jitter is strong; every operation clips."""
    view = make_view(size=24, interpolation="bicubic", **ALL)
    views = Views(views=[view], **PLAIN)
    images = (photos(32, 40, 40) > 127).to(torch.uint8) * 255
    (made,) = views(images, views.draw(seed=0, step=0, batch=32))
    assert made.min() == 0
    assert made.max() <= 1 + 1e-6


def test_misuse_is_refused():
    views, images = all_views(), photos(4, 30, 30)
    params = views.draw(seed=0, step=0, batch=4)
    with pytest.raises(ValueError, match="uint8"):
        views(images.float(), params)
    with pytest.raises(ValueError, match="4 samples"):
        views(images[:3], params)
    with pytest.raises(ValueError, match="4 samples"):
        views([images], params)


@pytest.mark.gpu
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_a_gpu_makes_the_views_of_a_cpu(filter, antialias, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    views = all_views(interpolation=filter, antialias=antialias)
    images = photos(32, 30, 30)
    params = views.draw(seed=0, step=0, batch=32)
    for a, b in zip(views(images, params), views(images.cuda(), params), strict=True):
        # A value at the threshold of solarisation may fall on either side of it.
        assert ((a - b.cpu()).abs() > 1e-4).float().mean() < 1e-3
