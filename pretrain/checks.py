"""What does not fit together, said before the first step: an error or one line of warning each."""

import math
from collections.abc import Sequence

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from visrep import dist
from visrep.data.dataset import ImageDataset, read_or_next
from visrep.data.images import BrokenImage
from visrep.data.views.params import View
from visrep.engine.optim import scaled_lr
from visrep.errors import ConfigError
from visrep.groups import choices, named
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.resnet import STEM_STRIDES, ResNet
from visrep.pretrain.method import Method, Plan

FAR = 4  # times above or below the recipe's learning rate
WIDE = 16  # positions on a side of the last feature map beyond which a stem was made for less


def check(
    task: Method, cfg: DictConfig, plan: Plan, *, views: Sequence[View], steps_per_epoch: float
) -> list[str]:
    """Warnings about the run of `task` under `cfg`, a line each.

    Raises:
        ConfigError: it cannot train.
    """
    if plan.batch_size % cfg.accumulate:
        raise ConfigError(
            f"batch_size={plan.batch_size} does not divide into accumulate={cfg.accumulate} parts"
        )
    lines = task.check(plan)
    if not isinstance(lines, list):
        name = f"{type(task).__module__}.{type(task).__qualname__}.check"
        raise ConfigError(f"method: {name} must return a list of warnings, not {lines!r}")
    require_statistics(task, batch_size=plan.batch_size // cfg.accumulate)
    return [
        *lines,
        *feature_maps(task.encoder, views),
        *learning_rate(task, cfg),
        *length(cfg, steps=plan.steps, steps_per_epoch=steps_per_epoch),
    ]


def same_picture(train: ImageDataset, *, looked_at: int = 32) -> list[str]:
    """A data set whose images are all the same: nothing tells one from another."""
    indices = torch.linspace(0, len(train) - 1, min(looked_at, len(train))).long().unique()
    try:
        images = (read_or_next(train, indices, place)[0] for place in range(len(indices)))
        first = next(images)
        different = any(not torch.equal(image, first) for image in images)
    except BrokenImage:
        return []  # who reads them for training says so
    if different or len(indices) == 1:
        return []
    return [
        f"{len(indices)} images of {train.name} were looked at, and all are the same picture, "
        "pixel by pixel: nothing can be learnt that tells them apart; look at the data"
    ]


def require_statistics(task: nn.Module, *, batch_size: int) -> None:
    """Raise ConfigError where batch norm would see single images, which have no statistics."""
    for norm in task.modules():
        if isinstance(norm, BatchNorm):
            shares = 1 if norm.mode == "sync" else dist.world_size() * norm.groups
            if batch_size // shares < 2:
                raise ConfigError(
                    f"batch norm would see {batch_size // shares} image at a time: batch_size over "
                    f"accumulate is {batch_size}, in {shares} parts; choose a larger batch_size or "
                    "fewer bn_splits"
                )


def feature_maps(encoder: nn.Module, views: Sequence[View]) -> list[str]:
    """Views that a stem leaves one position of, or that it leaves far too many of."""
    if not isinstance(encoder, ResNet):
        return []
    lines, stem, stride = [], encoder.spec["stem"], encoder.strides[-1]
    for size in sorted({view.size for view in views}):
        side = math.ceil(size / stride)
        smaller = [name for name, first in STEM_STRIDES.items() if 8 * first < stride]
        if side == 1:
            stems = " or ".join(f"backbone.stem={name}" for name in smaller if "_" not in name)
            lines.append(
                f"views of {size} px end as one position with the {stem} stem, which divides their "
                f"sides by {stride}: use {stems or 'larger views'}"
            )
        elif side > WIDE and STEM_STRIDES[stem] < 4:
            lines.append(
                f"views of {size} px end as {side} x {side} positions with the {stem} stem, which "
                "is made for small images: backbone.stem=imagenet is many times faster"
            )
    return lines


def learning_rate(task: Method, cfg: DictConfig) -> list[str]:
    """A peak learning rate far from what the method's own yaml gives at this batch."""
    if cfg.name not in choices("method"):
        return []
    recipe, optim = recipe_of(cfg.name), cfg.optim
    if recipe.optim.name != optim.name:
        return []
    peak = scaled_lr(optim.lr, cfg.batch_size, optim.lr_rule)
    usual = scaled_lr(recipe.optim.lr, cfg.batch_size, recipe.optim.lr_rule)
    if peak <= 0:
        raise ConfigError(f"optim.lr={optim.lr}: give a learning rate above 0")
    rooted = task.root_rule_below > 0 and recipe.optim.name == "lars"
    base = recipe.optim.lr * recipe.batch_size / 256 / math.sqrt(recipe.batch_size)
    root = scaled_lr(base, cfg.batch_size, "sqrt")
    sensible = [usual, root] if rooted else [usual]
    if not min(sensible) / FAR <= peak <= FAR * max(sensible):
        return [
            f"optim.lr={optim.lr:g} (optim.lr_rule={optim.lr_rule}) is a peak of {peak:.3g} at "
            f"batch {cfg.batch_size}, {max(peak / usual, usual / peak):.3g} times "
            f"{'more' if peak > usual else 'less'} than {cfg.name} has: {usual:.3g}, with "
            f"optim.lr={recipe.optim.lr:g} (optim.lr_rule={recipe.optim.lr_rule})"
        ]
    small = optim.lr_rule == "linear" and cfg.batch_size < task.root_rule_below
    if rooted and small and peak < root:
        return [
            f"at batch {cfg.batch_size} the linear rule gives {task.title} too small a rate, "
            f"{peak:.3g}: use optim.lr={base:.3g} optim.lr_rule=sqrt, which is {root:.3g}"
        ]
    return []


def length(cfg: DictConfig, *, steps: int, steps_per_epoch: float) -> list[str]:
    """A warm-up that takes up most of the run."""
    warmup = cfg.optim.warmup_epochs * steps_per_epoch
    if warmup <= steps / 2:
        return []
    return [
        f"the warm-up of {warmup:.0f} steps is more than half of the {steps} of the run: lower "
        "optim.warmup_epochs"
    ]


def recipe_of(name: str) -> DictConfig:
    """`batch_size` and the whole `optim` of method/`name`."""
    recipe = named("method", name)
    chosen = (entry["override /optim"] for entry in recipe.defaults if "override /optim" in entry)
    optim = OmegaConf.merge(named("optim", next(chosen, "lars")), recipe.optim)  # pretrain.yaml's
    return OmegaConf.create({"batch_size": recipe.batch_size, "optim": optim})
