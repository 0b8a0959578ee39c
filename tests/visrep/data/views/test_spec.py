"""The yaml rows say what the papers say."""

import inspect

import pytest

from visrep.config import instantiate
from visrep.data.views.operation import Operation
from visrep.data.views.operations import OURS, Blur, Gray, Jitter
from visrep.data.views.spec import make_view, make_views
from visrep.errors import ConfigError
from visrep.groups import choices, named

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NOTHING = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

SIMCLR = {
    "size": 224,
    "scale": (0.08, 1.0),
    "interpolation": "bicubic_tf1",
    "antialias": False,
    "jitter": (0.8, 0.8, 0.8, 0.2),
    "jitter_p": 0.8,
    "brightness_additive": True,
    "gray_p": 0.2,
    "blur_p": 0.5,
    "blur_sigma": (0.1, 2.0),
    "order": ("jitter", "gray", "blur"),
}
SIMCLR_SMALL = {
    "size": 32,
    "interpolation": "bicubic",
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_p": 0.8,
    "gray_p": 0.2,
    "order": ("jitter", "gray"),
}
MOCO_V1 = {
    "size": 224,
    "scale": (0.2, 1.0),
    "jitter": (0.4, 0.4, 0.4, 0.4),
    "jitter_p": 1.0,
    "gray_p": 0.2,
    "order": ("gray", "jitter"),
}
MOCO_V2 = {
    "size": 224,
    "scale": (0.2, 1.0),
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_p": 0.8,
    "gray_p": 0.2,
    "blur_p": 0.5,
    "blur_sigma": (0.1, 2.0),
    "blur_kernel": 23,
    "order": ("jitter", "gray", "blur"),
}
MOCO_SMALL = {
    "size": 32,
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_p": 0.8,
    "gray_p": 0.2,
    "order": ("jitter", "gray"),
}
SCENES = {
    "size": 32,
    "scale": (0.6, 1.0),
    "flip_p": 0.0,
    "jitter": (0.6, 0.6, 0.6, 0.2),
    "jitter_p": 0.8,
    "gray_p": 0.2,
    "invert_p": 0.3,
    "order": ("jitter", "gray", "invert"),
}

BYOL = {
    "size": 224,
    "scale": (0.08, 1.0),
    "interpolation": "bicubic",
    "antialias": False,
    "jitter": (0.4, 0.4, 0.2, 0.1),
    "jitter_p": 0.8,
    "brightness_additive": True,
    "gray_p": 0.2,
    "blur_p": 1.0,
    "blur_sigma": (0.1, 2.0),
    "solarize_p": 0.0,
    "solarize_threshold": 0.5,
    "order": ("jitter", "gray", "blur", "solarize"),
}
BARLOW = dict(BYOL, antialias=True, brightness_additive=False, blur_kernel=23)
BARLOW |= {"solarize_threshold": 0.50196}
SWAV = {
    "size": 224,
    "scale": (0.14, 1.0),
    "jitter": (0.8, 0.8, 0.8, 0.2),
    "jitter_p": 0.8,
    "gray_p": 0.2,
    "blur_p": 0.5,
    "blur_sigma": (0.1, 2.0),
    "blur_kernel": 23,
    "order": ("jitter", "gray", "blur"),
}
NPID_SMALL = {
    "size": 32,
    "scale": (0.2, 1.0),
    "flip_p": 0.0,
    "jitter": (0.4, 0.4, 0.4, 0.4),
    "jitter_p": 1.0,
    "gray_p": 0.2,
    "order": ("jitter", "gray"),
}
SWAV_STD = ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
AUTHORS_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

# As the papers and their code have them: views, (mean, std).
PAPERS = {
    "simclr": ([SIMCLR] * 2, NOTHING),
    "simclr_v2": ([dict(SIMCLR, brightness_additive=False)] * 2, NOTHING),
    "simclr_small": ([SIMCLR_SMALL] * 2, NOTHING),
    "moco_v1": ([MOCO_V1] * 2, IMAGENET),
    "moco_v2": ([MOCO_V2] * 2, IMAGENET),
    "moco_small": ([MOCO_SMALL] * 2, AUTHORS_CIFAR),
    "npid": ([MOCO_V1], IMAGENET),
    "npid_small": ([NPID_SMALL], AUTHORS_CIFAR),
    "simsiam_small": ([dict(MOCO_SMALL, scale=(0.2, 1.0))] * 2, CIFAR),
    "byol": ([BYOL, dict(BYOL, blur_p=0.1, solarize_p=0.2)], IMAGENET),
    "barlow_twins": ([BARLOW, dict(BARLOW, blur_p=0.1, solarize_p=0.2)], IMAGENET),
    "swav": ([SWAV] * 2 + [dict(SWAV, size=96, scale=(0.05, 0.14))] * 6, SWAV_STD),
    "swav_2x224": ([dict(SWAV, scale=(0.08, 1.0))] * 2, SWAV_STD),
    "swav_small": ([dict(MOCO_SMALL, scale=(0.14, 1.0))] * 2, CIFAR),
    "scenes": ([SCENES] * 2, NOTHING),
    "supervised": ([{"size": 224, "interpolation": "bicubic"}], NOTHING),
    "supervised_small": ([{"size": 32, "interpolation": "bicubic"}], NOTHING),
}

ALL_ON = {f"{name}_p": 1.0 for name in OURS}

ALL_ON = {f"{name}_p": 1.0 for name in OURS}


@pytest.mark.parametrize("name", PAPERS)
def test_recipe(name):
    expected, (mean, std) = PAPERS[name]
    views = instantiate(named("views", name))
    assert list(views.views) == [make_view(**settings) for settings in expected]
    assert (views.mean, views.std) == (mean, std)


def test_every_yaml_is_checked():
    assert set(PAPERS) <= set(choices("views"))
    # Recipes for the built-in scenes are no paper's.
    assert {name for name in choices("views") if "scenes" not in name} <= set(PAPERS)


def test_blur_of_simclr_is_23_pixels():
    (blur,) = (o for o in make_view(**SIMCLR).operations if isinstance(o, Blur))
    assert blur.width(224) == 23


def test_alike():
    views = make_views(
        size=32, copies=3, gray_p=0.2, **dict(zip(("mean", "std"), NOTHING, strict=True))
    )
    assert views.views == (make_view(size=32, gray_p=0.2),) * 3


def test_each_kind_has_its_own_settings():
    byol = make_views(
        size=224,
        each=[{"blur_p": 1.0}, {"blur_p": 0.1, "solarize_p": 0.2}],
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )
    assert byol.views == (
        make_view(size=224, blur_p=1.0),
        make_view(size=224, blur_p=0.1, solarize_p=0.2),
    )
    swav = make_views(
        flip_p=0.4,
        each=[
            {"size": 224, "scale": [0.14, 1], "copies": 2},
            {"size": 96, "scale": [0.05, 0.14], "copies": 6},
        ],
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )
    assert [view.size for view in swav.views] == [224] * 2 + [96] * 6
    assert {view.flip_p for view in swav.views} == {0.4}
    assert swav.views[7].scale == (0.05, 0.14)


def test_the_command_line_sees_the_settings_of_a_view():
    """What the yaml rows and the first version knew, key by key."""
    assert set(inspect.signature(make_views).parameters) == {
        *("mean", "std", "copies", "each"),
        *("size", "scale", "ratio", "interpolation", "antialias", "flip_p", "order"),
        *("jitter", "jitter_p", "brightness_additive", "gray_p", "blur_p", "blur_sigma"),
        *("blur_kernel", "solarize_p", "solarize_threshold", "invert_p"),
    }


def test_settings_reach_their_operation_in_the_given_order():
    view = make_view(
        size=32, jitter=[0.4, 0.3, 0.2, 0.1], jitter_p=0.8, brightness_additive=True, gray_p=0.2,
        blur_p=0.5, blur_sigma=[0.5, 1], blur_kernel=3,
        order=["blur", "gray", "solarize", "jitter"],
    )  # fmt: skip
    assert view.operations == (
        Blur(p=0.5, sigma=(0.5, 1.0), kernel=3),
        Gray(p=0.2),
        Jitter(p=0.8, strength=(0.4, 0.3, 0.2, 0.1), additive=True),
    )
    assert [operation.name for operation in make_view(size=32, **ALL_ON).operations] == list(OURS)


def test_one_s_own_operation_stands_in_the_order():
    class Darken(Operation):
        name = "darken"
        p = 0.5

        def apply(self, images, numbers):
            return images / 2

    own = Darken()
    view = make_view(size=32, gray_p=0.2, jitter_p=0.8, order=["gray", own, "jitter"])
    assert view.operations == (Gray(p=0.2), own, Jitter(p=0.8))
    with pytest.raises(ConfigError, match="order="):
        make_view(size=32, gray_p=0.2, order=[own])


def test_wrong_settings():
    with pytest.raises(TypeError, match="blurp"):
        make_views(size=32, blurp=0.5, mean=[0] * 3, std=[1] * 3)
    with pytest.raises(ConfigError, match="one view"):
        make_views(size=32, copies=0, mean=[0] * 3, std=[1] * 3)
    with pytest.raises(ConfigError, match="mean="):
        make_views(size=32, mean=[0, 0], std=[1] * 3)
    with pytest.raises(ConfigError, match="std="):
        make_views(size=32, mean=[0] * 3, std=[1, 1, 0])
