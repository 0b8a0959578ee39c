"""A detection protocol: all numbers that a published AP depends on, for both engines.

The defaults are Detectron2's for its C4 and FPN models; what a protocol states is in
`configs/protocol/*.yaml`. Anchors are multiples of a feature map's stride (Detectron2's 32 to 512
are 2 to 32 times the stride 16 of res4, and 8 times the stride of each pyramid level), so that a
backbone with other strides gets anchors that follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fvcore.common.param_scheduler import ParamScheduler

from visrep.engine import optim
from visrep.errors import ConfigError

TASKS = ("detection", "instance")
HEADS = ("c4", "fpn")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One training and testing recipe.

    Attributes:
        task: detection, or instance (boxes and masks).
        head: c4 (region features from layer3, layer4 as the head) or fpn.
        iterations: updates.
        batch_size: images per update, over all processes.
        lr: peak learning rate of SGD with momentum.
        decay_at: shares of the iterations at which the rate drops to a tenth.
        warmup: iterations of linear warm-up from `warmup_factor` times the rate.
        weight_decay: on all weights but those of norms, which have none.
        train_sizes: short side of a training image, drawn from this list, in pixels.
        test_size: short side of a test image.
        max_size: the long side at most; the short one gives way.
        flip: mirror half of the training images.
        extra_norm: one more norm after layer4 in the C4 head (MoCo, arXiv 1911.05722, 4.2).
        precise_bn: batches to re-estimate running statistics on after training, 0 for none.
        fpn_channels: width of the pyramid.
        fpn_norm: batch norm on the pyramid's convolutions.
        fpn_first: first layer of the pyramid, 1 to 3; 2 leaves the finest map out.
        box_width: width of the two fully connected layers of the FPN box head.
        mask_width: width of the mask head.
        box_pool: side of the pooled regions.
        anchor_sizes: in strides; on C4 all sit on the one map, on FPN each on every level.
        anchor_ratios: height over width.
        rpn_batch: anchors per image in the proposal loss.
        rpn_pre_nms: proposals kept before suppression in training and in testing (per level).
        rpn_post_nms: the same after it, over all levels.
        roi_batch: regions per image in the box loss, a quarter of them objects.
        score_threshold: lowest score of a detection.
        nms_threshold: overlap above which the lower-scored of two detections of a class goes.
        detections_per_image: the most kept.

    Raises:
        ConfigError: a value that no engine can work with; the message names the key.
    """

    task: str
    head: str
    iterations: int
    batch_size: int
    lr: float
    decay_at: Sequence[float]
    warmup: int
    warmup_factor: float
    momentum: float
    weight_decay: float
    train_sizes: Sequence[int]
    test_size: int
    max_size: int
    flip: bool
    extra_norm: bool
    precise_bn: int
    fpn_channels: int
    fpn_norm: bool
    fpn_first: int
    box_width: int
    mask_width: int
    box_pool: int
    anchor_sizes: Sequence[float]
    anchor_ratios: Sequence[float]
    rpn_batch: int
    rpn_pre_nms: Sequence[int]
    rpn_post_nms: Sequence[int]
    roi_batch: int
    score_threshold: float
    nms_threshold: float
    detections_per_image: int

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"task={self.task}: choose {' or '.join(TASKS)}")
        if self.head not in HEADS:
            raise ConfigError(f"head={self.head}: choose {' or '.join(HEADS)}")
        for name in ("iterations", "batch_size", "test_size", "max_size", "rpn_batch", "roi_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be 1 or more")
        for name in ("warmup", "precise_bn"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must be 0 or more")
        if self.warmup >= self.iterations:
            raise ConfigError(
                f"warmup={self.warmup} is not shorter than iterations={self.iterations}: lower it"
            )
        if self.lr <= 0:
            raise ConfigError(f"lr={self.lr}: must be above 0")
        if not all(0 < share < 1 for share in self.decay_at):
            raise ConfigError(
                f"decay_at={list(self.decay_at)}: shares of the iterations, each between 0 and 1"
            )
        if not self.train_sizes:
            raise ConfigError("train_sizes is empty: give at least one short side, in pixels")
        for name in ("rpn_pre_nms", "rpn_post_nms"):
            if len(getattr(self, name)) != 2:
                raise ConfigError(f"{name}={list(getattr(self, name))}: [in training, in testing]")
        if self.fpn_first not in (1, 2, 3):
            raise ConfigError(f"fpn_first={self.fpn_first}: the first layer of the pyramid, 1 to 3")

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Protocol":
        """The protocol that the configuration of `visrep detect` states."""
        if config["head"] not in HEADS:
            raise ConfigError(f"head={config['head']}: choose {' or '.join(HEADS)}")
        values = {
            **config,
            **config[config["head"]],
            "extra_norm": config["c4"]["extra_norm"],
            "box_width": config["fpn"]["box_width"],
            **{f"fpn_{name}": config["fpn"][name] for name in ("channels", "norm", "first")},
        }
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def masks(self) -> bool:
        """Whether masks are learned and predicted."""
        return self.task == "instance"

    @property
    def milestones(self) -> list[int]:
        """Iterations at which the learning rate drops."""
        drops = {round(share * self.iterations) for share in self.decay_at}
        return sorted(drop for drop in drops if 0 < drop < self.iterations)

    def strides(self, backbone: Sequence[int]) -> list[int]:
        """Strides of the maps that proposals are made on, from the backbone's four."""
        if self.head == "c4":
            return [backbone[2]]
        levels = list(backbone[self.fpn_first - 1 :])
        return [*levels, 2 * levels[-1]]

    def anchors(self, backbone: Sequence[int]) -> list[list[float]]:
        """Anchor sizes (roots of areas, pixels) of each such map."""
        return [[size * stride for size in self.anchor_sizes] for stride in self.strides(backbone)]

    def schedule(self) -> ParamScheduler:
        """Factor on the learning rate at a share of the iterations: warm-up, then steps of 1/10."""
        return optim.multistep(
            self.iterations, self.milestones, warmup=self.warmup, start=self.warmup_factor
        )
