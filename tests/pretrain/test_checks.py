"""What does not fit is said before the first step: by the methods, and for a run as a whole."""

import functools

import pytest
from omegaconf import DictConfig
from torch import nn

from tests.pretrain.methods.steps import tiny_encoder
from visrep.config import compose
from visrep.data.views.params import View
from visrep.errors import ConfigError
from visrep.groups import choices
from visrep.nn.batchnorm import BatchNorm, set_batchnorm
from visrep.nn.resnet import ResNet
from visrep.pretrain.checks import check, feature_maps, learning_rate, recipe_of, require_statistics
from visrep.pretrain.method import Method, Plan
from visrep.pretrain.methods.barlow_twins import BarlowTwins
from visrep.pretrain.methods.byol import BYOL
from visrep.pretrain.methods.exemplar import Exemplar
from visrep.pretrain.methods.moco import MoCo
from visrep.pretrain.methods.npid import NPID
from visrep.pretrain.methods.simclr import SimCLR
from visrep.pretrain.methods.simsiam import SimSiam
from visrep.pretrain.methods.swav import SwAV

MAKE = {
    "byol": lambda **k: BYOL(encoder=tiny_encoder(), hidden_dim=8, out_dim=8, **k),
    "simsiam": lambda **k: SimSiam(encoder=tiny_encoder(), out_dim=8, predictor_dim=4, **k),
    "barlow": lambda **k: BarlowTwins(encoder=tiny_encoder(), out_dim=8, **k),
    "moco": lambda **k: MoCo(encoder=tiny_encoder(), **{"queue_size": 64, **k}),
    "simclr": lambda **k: SimCLR(encoder=tiny_encoder(), **k),
    "npid": lambda **k: NPID(encoder=tiny_encoder(), **{"images": 100, "negatives": 32, **k}),
    "swav": lambda **k: SwAV(encoder=tiny_encoder(), **{"prototypes": 16, "freeze_steps": 5, **k}),
    "exemplar": lambda **k: Exemplar(encoder=tiny_encoder(), **{"classes": 100, **k}),
}
VIEWS = {"npid": 1, "exemplar": 1, "swav": 8}


def said(method: str, arguments: dict, **plan) -> list[str]:
    usual = {"batch_size": 16, "views": VIEWS.get(method, 2), "images": 100, "steps": 50}
    return MAKE[method](**arguments).check(Plan(**usual | plan))


@pytest.mark.parametrize("method", MAKE)
def test_what_fits_passes_without_a_word(method) -> None:
    assert said(method, {}) == []


@pytest.mark.parametrize("method", MAKE)
def test_another_number_of_views_is_refused(method) -> None:
    with pytest.raises(ConfigError, match="views= makes"):
        said(method, {}, views=1 if VIEWS.get(method, 2) > 1 else 2)


REFUSED = [
    ("moco", {}, {"batch_size": 24}, "multiple of the total batch size 24"),
    ("simclr", {"memory_size": 64}, {"batch_size": 24}, "multiple of the total batch size 24"),
    ("simclr", {}, {"batch_size": 1}, "negatives are the other images"),
    ("swav", {"queue_size": 64}, {"batch_size": 24}, "multiple of the total batch size 24"),
    ("barlow", {}, {"batch_size": 1}, "correlates dimensions over a batch"),
    ("npid", {}, {"images": 90}, "method.images=100, but the data has 90"),
    ("exemplar", {}, {"images": 200}, "method.classes=100, but the data has 200"),
]


@pytest.mark.parametrize(("method", "arguments", "plan", "match"), REFUSED)
def test_what_cannot_train_is_refused(method, arguments, plan, match) -> None:
    with pytest.raises(ConfigError, match=match):
        said(method, arguments, **plan)


WARNED = [
    ("moco", {"queue_size": 128}, {}, "holds more keys than there are images"),
    ("npid", {"negatives": 128}, {}, "method.negatives=0"),
    ("swav", {"prototypes": 17}, {}, "less than method.prototypes=17"),
    ("swav", {"freeze_steps": 50}, {}, "the prototypes are never trained in 50 steps"),
    ("swav", {"queue_size": 64, "queue_start": 46}, {}, "full at step 50, and so never used"),
]


@pytest.mark.parametrize(("method", "arguments", "plan", "match"), WARNED)
def test_what_trains_badly_is_said(method, arguments, plan, match) -> None:
    (line,) = said(method, arguments, **plan)
    assert match in line and "\n" not in line


def test_a_queue_makes_up_for_a_small_batch() -> None:
    assert said("swav", {"prototypes": 64, "queue_size": 48}) == []


@pytest.mark.parametrize(
    ("mode", "groups", "batch", "enough"),
    [("local", 1, 2, True), ("local", 1, 1, False), ("split", 8, 16, True), ("split", 8, 8, False),
     ("sync", 1, 1, False)],
)  # fmt: skip
def test_batch_norm_wants_two_images(mode, groups, batch, enough) -> None:
    task = BatchNorm(4)
    set_batchnorm(task, mode=mode, groups=groups)
    require_statistics(nn.Linear(2, 2), batch_size=1)
    if enough:
        require_statistics(task, batch_size=batch)
    else:
        with pytest.raises(ConfigError, match="would see 1 image at a time"):
            require_statistics(task, batch_size=batch)


def test_crops_and_the_stem() -> None:
    def lines(stem: str, *sizes: int) -> list[str]:
        encoder = ResNet(depth=18, width=1 / 16, stem=stem)
        return feature_maps(encoder, [View(size=size) for size in sizes])

    for stem, sizes in (("imagenet", (224, 224, 96)), ("cifar", (32, 32)), ("cifar", (32, 16)),
                        ("cifar", (96,)), ("small", (32,)), ("imagenet", (64,))):  # fmt: skip
        assert lines(stem, *sizes) == [], (stem, sizes)
    (line,) = lines("imagenet", 224, 12, 12)
    assert "views of 12 px end as one position" in line
    assert "backbone.stem=small or backbone.stem=cifar" in line
    (line,) = lines("imagenet", 32)
    assert "divides their sides by 32" in line
    (line,) = lines("cifar", 8)
    assert "use larger views" in line
    (line,) = lines("cifar", 224)
    assert "28 x 28 positions" in line and "backbone.stem=imagenet" in line
    assert feature_maps(nn.Linear(2, 2), [View(size=8)]) == []


@functools.cache
def composed(name: str) -> DictConfig:
    return compose("pretrain", [f"method={name}", "out=unused"])[0]


def rate(method: str, **changes) -> list[str]:
    cfg = composed(method).copy()
    cfg.merge_with({key: value for key, value in changes.items() if key in ("batch_size", "name")})
    cfg.optim.merge_with({key: changes[key] for key in changes.keys() & {"lr", "lr_rule"}})
    if "optimizer" in changes:
        cfg.optim.name = changes["optimizer"]
    return learning_rate(MAKE["simclr"]() if "simclr" in method else Method(), cfg)


@pytest.mark.parametrize("name", choices("method"))
def test_no_recipe_is_far_from_itself(name) -> None:
    cfg = composed(name)
    assert rate(name) == rate(name, batch_size=2 * cfg.batch_size) == []
    assert recipe_of(name).optim == cfg.optim and recipe_of(name).batch_size == cfg.batch_size


def test_a_learning_rate_far_from_the_recipe() -> None:
    (line,) = rate("simsiam", lr=0.5)
    assert "optim.lr=0.5 (optim.lr_rule=linear) is a peak of 1 at batch 512, 10 times more" in line
    assert "simsiam has: 0.1, with optim.lr=0.05 (optim.lr_rule=linear)" in line
    (line,) = rate("moco_v2", lr_rule="none", batch_size=4096)
    assert "16 times less" in line
    assert rate("simsiam", lr=0.15) == rate("simsiam", lr=0.02) == []
    assert rate("simsiam", optimizer="lars", lr=9) == []  # another optimiser, another scale
    assert rate("simsiam", lr=9, name="mine") == []
    with pytest.raises(ConfigError, match="above 0"):
        rate("simsiam", lr=0)


def test_simclr_on_small_batches_wants_the_root() -> None:
    (line,) = rate("simclr", batch_size=256)
    assert "optim.lr=0.075 optim.lr_rule=sqrt, which is 1.2" in line
    assert "the linear rule gives SimCLR too small a rate, 0.3" in line
    assert rate("simclr", batch_size=256, lr=0.075, lr_rule="sqrt") == []
    assert rate("simclr", batch_size=1024) == rate("simclr", batch_size=256, lr=1.2) == []
    assert len(rate("simclr", batch_size=256, lr=75)) == 1


def test_a_run_as_a_whole() -> None:
    cfg = composed("simclr").copy()
    cfg.batch_size, cfg.optim.lr = 256, 30
    plan = Plan(batch_size=256, views=2, images=1000, steps=30)
    views = [View(size=32)] * 2
    lines = check(MAKE["simclr"](), cfg, plan, views=views, steps_per_epoch=2)
    assert len(lines) == 2 and lines[0].startswith("optim.lr=30 (optim.lr_rule=linear) is a peak")
    assert "the warm-up of 20 steps is more than half of the 30 of the run" in lines[1]
    cfg.accumulate = 3
    with pytest.raises(ConfigError, match="does not divide into accumulate=3 parts"):
        check(MAKE["simclr"](), cfg, plan, views=views, steps_per_epoch=2)
    cfg.accumulate = 1
    silent = MAKE["simclr"]()
    silent.check = lambda plan: None
    with pytest.raises(ConfigError, match="simclr.SimCLR.check must return a list of warnings"):
        check(silent, cfg, plan, views=views, steps_per_epoch=2)
    plan = Plan(batch_size=1, views=2, images=1000, steps=30)
    with pytest.raises(ConfigError, match="negatives are the other images"):
        check(MAKE["simclr"](), cfg, plan, views=views, steps_per_epoch=2)
