"""The recipe of a detection task: all numbers that a published AP depends on, for both engines.

The defaults are Detectron2's for its C4 and FPN models, in `configs/detect.yaml`; what a task
states is in `configs/task/NAME.yaml`. Anchors are multiples of a feature map's stride (Detectron2's
32 to 512 are 2 to 32 times the stride 16 of res4, and 8 times the stride of each pyramid level), so
that a backbone with other strides gets anchors that follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fvcore.common.param_scheduler import ParamScheduler

from visrep import dist
from visrep.engine import optim
from visrep.errors import ConfigError
from visrep.nn.segmentation import GROUPS

OUTPUTS = ("boxes", "masks", "keypoints", "semantic", "densepose")
HEADS = ("c4", "dc5", "fpn", "fcn")
NORMS = ("BN", "SyncBN", "naiveSyncBN", "FrozenBN")
# Where Detectron2's config names the data and their classes; `visrep detect` has its own.
DATA = (  # the numbers of classes of objects and of pixels
    *("DATASETS.TRAIN", "DATASETS.TEST"),
    *("MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"),
)
KEYPOINTS = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"  # where some are learned
_OF_EACH_HEAD = ("anchor_sizes", "box_pool", "rpn_pre_nms", "rpn_post_nms")


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe:
    """How one task is trained and tested.

    Attributes:
        task: the name of its yaml.
        about: what it is, in a line.
        outputs: boxes; masks, keypoints or densepose (points on a surface), each with boxes; or
            semantic (a class per pixel).
        head: c4 (region features from layer3, layer4 as the head), dc5 (from layer4, dilated at the
            stride of layer3, two fully connected layers as the head), fpn, or, for semantic, fcn
            (layer4 dilated likewise, and dilated convolutions).
        norm: of backbone, pyramid and C4 head: BN (trained, with the statistics of all processes,
            by what the machine can do), SyncBN or naiveSyncBN (the same, by that way and no other),
            or FrozenBN (statistics and scales stay the encoder's).
        freeze_at: parts that do not train and whose norms are frozen: 1 the stem, 2 also layer1,
            ..., 5 all.
        iterations: updates.
        batch_size: images per update, over all processes.
        accumulate: parts that the batch of a process is taken in, one after the other, whose
            gradients are averaged: batch_size / processes / accumulate images at a time. For
            images of equally many sampled regions this is the gradient of the whole batch,
            for others the mean that Detectron2 takes over as many processes; a trained norm takes
            the statistics of a part.
        lr: peak learning rate of SGD with momentum.
        decay_at: shares of the iterations at which the rate drops to a tenth.
        warmup: iterations of linear warm-up from `warmup_factor` times the rate.
        weight_decay: on all weights but those of norms, which have none.
        train_sizes: short side of a training image, drawn from this list, in pixels.
        test_size: short side of a test image; 0, for semantic: its own size.
        max_size: the long side at most; the short one gives way.
        flip: mirror half of the training images.
        extra_norm: one more norm after layer4 in the C4 head (MoCo, arXiv 1911.05722, 4.2).
        precise_bn: batches to re-estimate running statistics on after training, 0 for none.
        fpn_channels: width of the pyramid.
        fpn_norm: batch norm on the pyramid's convolutions.
        fpn_first: first layer of the pyramid, 1 to 3; 2 leaves the finest map out.
        box_width: width of the two fully connected layers of the box head on FPN and DC5.
        mask_width: width of the mask head.
        keypoint_width: width of the eight convolutions of the keypoint head.
        box_beta: offset of a box, in its units of the loss, below which the box loss is a square
            and above which it is L1 (smooth L1, arXiv 1504.08083, eq. 3); 0 is plain L1.
        box_pool: side of the pooled regions.
        anchor_sizes: in strides; on C4 and DC5 all sit on the one map, on FPN each on every level.
        anchor_ratios: height over width.
        rpn_batch: anchors per image in the proposal loss.
        rpn_pre_nms: proposals kept before suppression in training and in testing (per level).
        rpn_post_nms: the same after it, over all levels.
        roi_batch: regions per image in the box loss, a quarter of them objects.
        score_threshold: lowest score of a detection.
        nms_threshold: overlap above which the lower-scored of two detections of a class goes.
        detections_per_image: the most kept.
        scales: for semantic, in place of train_sizes: least and largest factor that a training
            image is resized by.
        crop: for semantic: side of the square that is cut out of a training image, 0 for none.
        fcn_width, fcn_convs, fcn_dilation: of the convolutions of head=fcn.
        semantic_width: of the convolutions of the semantic head on a pyramid.
        repeat_threshold: share of the images below which a class is rare, and images with it come
            more often (`visrep.data.detection.repeats`); 0 for none.
        detectron2: what else its config states, nested: the names of its data sets, their number of
            classes, and settings that only it knows.

    Raises:
        ConfigError: a value that no engine can work with; the message names the key.
    """

    task: str
    about: str
    outputs: str
    head: str
    norm: str
    freeze_at: int
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
    detectron2: Mapping[str, Any]
    # Detectors that were kept before these were settings do not state them.
    keypoint_width: int = 512
    box_beta: float = 0.0
    repeat_threshold: float = 0.0
    accumulate: int = 1
    scales: Sequence[float] = ()
    crop: int = 0
    fcn_width: int = 256
    fcn_convs: int = 2
    fcn_dilation: int = 6
    semantic_width: int = 128

    def __post_init__(self) -> None:
        for name, known in (("outputs", OUTPUTS), ("head", HEADS), ("norm", NORMS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)}: choose {' or '.join(known)}")
        refused = {
            "c4": ("keypoints", "semantic", "densepose"),
            "dc5": ("semantic", "densepose"),
            "fpn": (),
            "fcn": (),  # semantic alone, see below
        }
        if self.outputs in refused[self.head]:
            or_fcn = " (or head=fcn)" if self.outputs == "semantic" else ""
            raise ConfigError(f"outputs={self.outputs} needs the pyramid: head=fpn{or_fcn}")
        self._check_semantic()
        if self.norm == "FrozenBN" and self.precise_bn:
            raise ConfigError("norm=FrozenBN leaves no statistics to re-estimate: precise_bn=0")
        most = 4 if self.head == "c4" else 5  # on C4, layer4 is the head
        if not 0 <= self.freeze_at <= most:
            raise ConfigError(f"freeze_at={self.freeze_at}: 0 to {most} with head={self.head}")
        counts = ["iterations", "batch_size", "max_size", "rpn_batch", "roi_batch"]
        counts += (
            ["keypoint_width"] if self.outputs == "semantic" else ["keypoint_width", "test_size"]
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be 1 or more")
        for name in ("warmup", "precise_bn"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must be 0 or more")
        if not 0 <= self.repeat_threshold < 1:
            raise ConfigError(
                f"repeat_threshold={self.repeat_threshold}: a share of the images, 0 to below 1"
            )
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ConfigError(
                f"accumulate={self.accumulate}: batch_size={self.batch_size} does not divide by it"
            )
        if self.warmup >= self.iterations:
            raise ConfigError(
                f"warmup={self.warmup} is not shorter than iterations={self.iterations}: lower it"
            )
        if self.box_beta < 0:
            raise ConfigError(f"box_beta={self.box_beta}: must be 0 or more")
        if self.lr <= 0:
            raise ConfigError(f"lr={self.lr}: must be above 0")
        if not all(0 < share < 1 for share in self.decay_at):
            raise ConfigError(
                f"decay_at={list(self.decay_at)}: shares of the iterations, each between 0 and 1"
            )
        if not self.train_sizes and not self.scales:
            raise ConfigError("train_sizes is empty: give at least one short side, in pixels")
        for name in ("rpn_pre_nms", "rpn_post_nms"):
            if len(getattr(self, name)) != 2:
                raise ConfigError(f"{name}={list(getattr(self, name))}: [in training, in testing]")
        if self.fpn_first not in (1, 2, 3):
            raise ConfigError(f"fpn_first={self.fpn_first}: the first layer of the pyramid, 1 to 3")

    def _check_semantic(self) -> None:
        """Raise ConfigError for settings of semantic segmentation that do not go together."""
        semantic = self.outputs == "semantic"
        if self.head == "fcn" and not semantic:
            raise ConfigError(f"head=fcn names pixels: outputs=semantic, not {self.outputs}")
        if not semantic and (self.scales or self.crop):
            raise ConfigError("scales and crop are for outputs=semantic: leave them out")
        if self.scales and self.train_sizes:
            raise ConfigError(
                "scales and train_sizes both say how a training image is resized: one must be []"
            )
        if self.scales and (len(self.scales) != 2 or not 0 < self.scales[0] <= self.scales[1]):
            raise ConfigError(f"scales={list(self.scales)}: [least, largest] factor, above 0")
        for name in ("crop", "test_size"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must be 0 or more")
        if semantic and self.repeat_threshold:
            raise ConfigError(
                f"repeat_threshold={self.repeat_threshold}: it counts images with objects of a "
                "class, which outputs=semantic has not: leave it out"
            )
        if semantic and self.head == "fpn" and self.semantic_width % GROUPS:
            raise ConfigError(
                f"semantic_width={self.semantic_width}: a multiple of {GROUPS}, for its group norms"
            )

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "DetectionRecipe":
        """The recipe that the configuration of `visrep detect` states.

        Raises:
            ConfigError: see above; or a task's yaml that leaves out what has no default.
        """
        if config.get("head") not in HEADS:
            raise ConfigError(f"head={config.get('head')}: choose {' or '.join(HEADS)}")
        own = config["c4" if config["head"] == "fcn" else config["head"]]  # fcn has no regions
        if not isinstance(config["detectron2"], Mapping | None):
            raise ConfigError(
                f"detectron2={config['detectron2']}: it holds settings of Detectron2's config, as "
                "in a task's yaml; null leaves them out"
            )
        values = {
            **config,
            **{name: own[name] for name in _OF_EACH_HEAD},
            "extra_norm": config["c4"]["extra_norm"],
            "box_width": config["dc5" if config["head"] == "dc5" else "fpn"]["box_width"],
            **{f"fpn_{name}": config["fpn"][name] for name in ("channels", "norm", "first")},
            **{f"fcn_{name}": config["fcn"][name] for name in ("width", "convs", "dilation")},
            "detectron2": config["detectron2"] or {},
        }
        absent = [field.name for field in fields(cls) if field.name not in values]
        if absent:
            raise ConfigError(f"this task does not say {', '.join(absent)}: state it in its yaml")
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def beyond(self) -> list[str]:
        """The settings that only Detectron2 knows, `DATALOADER.SAMPLER_TRAIN` and so on."""
        return [key for key in flat(self.detectron2) if key not in (*DATA, KEYPOINTS)]

    @property
    def unsaid(self) -> list[str]:
        """What of the data Detectron2's config does not name."""
        said, kind = flat(self.detectron2), "SEM_SEG" if self.outputs == "semantic" else "ROI"
        needed = [key for key in DATA if key.startswith(("DATASETS.", f"MODEL.{kind}_"))]
        needed += [KEYPOINTS] if self.keypoints else []
        return [key for key in needed if key not in said]

    @property
    def masks(self) -> bool:
        """Whether masks are learned and predicted."""
        return self.outputs == "masks"

    @property
    def keypoints(self) -> bool:
        """Whether keypoints are learned and predicted."""
        return self.outputs == "keypoints"

    @property
    def milestones(self) -> list[int]:
        """Iterations at which the learning rate drops."""
        drops = {round(share * self.iterations) for share in self.decay_at}
        return sorted(drop for drop in drops if 0 < drop < self.iterations)

    def strides(self, backbone: Sequence[int]) -> list[int]:
        """Strides of the maps that proposals are made on, from the backbone's four."""
        if self.head != "fpn":  # a dilated layer4 has the stride of layer3
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


def check_batch(size: int, *, accumulate: int = 1) -> int:
    """Images at a time, of a batch of `size` images over the processes, in `accumulate` parts.

    Raises:
        ConfigError: the batch does not divide like that.
    """
    if size % dist.world_size():
        raise ConfigError(
            f"batch_size={size} does not divide over {dist.world_size()} processes: choose a "
            "multiple"
        )
    share = size // dist.world_size()
    if share % accumulate:
        raise ConfigError(
            f"accumulate={accumulate}: the {share} images of a process do not divide by it; "
            "choose one of " + ", ".join(str(n) for n in range(1, share + 1) if share % n == 0)
        )
    return share // accumulate


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one: `MODEL.RESNETS.DEPTH` -> value."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        values |= flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return values
