"""Which of Detectron2's settings `visrep detect` takes: by `d2_opts=`, or of a task's `detectron2`.

Data, schedule, evaluation and the run itself are not Detectron2's here, so some of its settings
would change nothing and others would break the run. They are refused by name, with what to use
instead, before anything is read; the rest, once the model stands, where nothing has read them.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from visrep.d2.backbone import add_visrep_config
from visrep.d2.recipe import DATA, KEYPOINTS, DetectionRecipe, flat
from visrep.errors import ConfigError

_CLIPPING = "SOLVER.CLIP_GRADIENTS"
_OWN = "evaluation is visrep's own: leave it out"
_OUTPUTS = "no other outputs are learned than boxes, masks and keypoints: leave it out"
# A setting, or a section, and what to use instead of it.
INSTEAD = {
    "CUDNN_BENCHMARK": "visrep chooses it: leave it out",
    "DATASETS": "use detection=",
    "FLOAT32_PRECISION": "use precision=",
    "GLOBAL": "nothing reads it: leave it out",
    "INPUT.FORMAT": "the encoder's file says the order of the channels: leave it out",
    "MODEL.ANCHOR_GENERATOR.ANGLES": "no box is rotated: leave it out",
    "MODEL.DEVICE": "use device=",
    "MODEL.KEYPOINT_ON": "use outputs=",
    "MODEL.MASK_ON": "use outputs=",
    "MODEL.META_ARCHITECTURE": "use outputs=",
    "MODEL.PANOPTIC_FPN": _OUTPUTS,
    "MODEL.RETINANET": "only R-CNNs are trained: leave it out",
    "MODEL.ROI_HEADS.NUM_CLASSES": "the data say it; choose classes by detection.classes=",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": "use box_beta=",
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": "the data say it: leave it out",
    "MODEL.SEM_SEG_HEAD": "use fcn.width= and its like, or semantic_width=",
    "MODEL.WEIGHTS": "use weights=",
    "OUTPUT_DIR": "use out=",
    "SEED": "use seed=",
    "SOLVER.AMP": "use precision=",
    "SOLVER.CHECKPOINT_PERIOD": "use snapshot_every=",
    "SOLVER.IMS_PER_BATCH": "use batch_size=",
    "SOLVER.MAX_ITER": "use iterations=",
    "SOLVER.REFERENCE_WORLD_SIZE": "the batch is that of all processes: use batch_size= and scale=",
    "TEST.AUG": "an image is tested once, at test_size=: leave it out",
    "TEST.EVAL_PERIOD": "use eval_every=",
    "TEST.EXPECTED_RESULTS": _OWN,
    "TEST.KEYPOINT_OKS_SIGMAS": _OWN,
    "TEST.PRECISE_BN": "use precise_bn=",
    "VERSION": "nothing reads it: leave it out",
    "VIS_PERIOD": "pictures of a training are not written: leave it out",
}
# A setting of which only these values can be followed, and why.
ONLY: dict[str, tuple[Sequence[Any], str]] = {
    "DATALOADER.ASPECT_RATIO_GROUPING": ([True], "all images of a batch lie or stand"),
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": ([True], "images without a box are not trained on"),
    "DATALOADER.SAMPLER_TRAIN": (
        ["TrainingSampler", "RepeatFactorTrainingSampler"],
        "these can be resumed at any iteration",
    ),
    "INPUT.MASK_FORMAT": (["bitmask"], "masks are read as such"),
    "MODEL.ANCHOR_GENERATOR.NAME": (["DefaultAnchorGenerator"], "no box is rotated"),
    "MODEL.LOAD_PROPOSALS": ([False], "proposals are learned"),
    "MODEL.PROPOSAL_GENERATOR.NAME": (["RPN"], "proposals are learned"),
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": ([False], "its counts per class are of Detectron2's LVIS"),
}


def check(opts: Any, recipe: DetectionRecipe) -> None:
    """Raise ConfigError for `d2_opts`, or a task's own settings, that cannot be followed.

    This needs no Detectron2.
    """
    for key, value in _pairs(opts):
        _check("d2_opts", key, value)
    for key, value in flat(recipe.detectron2).items():
        if key not in (*DATA, KEYPOINTS):
            _check(f"task={recipe.task}, detectron2", key, value)


def _pairs(opts: Any) -> list[tuple[str, Any]]:
    """Keys and values of [KEY, value, ...]; a value in quotes is what Detectron2 makes of it."""
    example = "give [KEY, value, ...], such as d2_opts=[SOLVER.GAMMA,0.5]"
    if isinstance(opts, str | Mapping) or not isinstance(opts, Iterable):
        raise ConfigError(f"d2_opts={opts}: {example}")
    given = list(opts)
    for key in given[::2]:
        if not isinstance(key, str):
            raise ConfigError(f"d2_opts: {key} stands where a key is expected: {example}")
    if len(given) % 2:
        raise ConfigError(f"d2_opts: {given[-1]} has no value: {example}")
    pairs = [(key, _decoded(value)) for key, value in zip(given[::2], given[1::2], strict=True)]
    for key, value in pairs:
        if isinstance(value, Mapping):
            inner = ", ".join(flat({key: value})) or key
            raise ConfigError(f"d2_opts: give {inner} by itself, not as a section {key}")
    return pairs


def _decoded(value: Any) -> Any:
    """As yacs reads it: a text that is a literal of Python is that literal."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _check(where: str, key: str, value: Any) -> None:
    for known, answer in INSTEAD.items():
        if f"{key}.".startswith(f"{known}."):
            raise ConfigError(f"{where}: {key} is not Detectron2's to say here: {answer}")
    allowed, reason = ONLY.get(key, ([value], ""))
    if value not in allowed:
        choice = " or ".join(map(str, allowed))
        raise ConfigError(f"{where}: {key}={value} cannot be followed: {choice} only ({reason})")


def check_known(opts: Sequence[Any]) -> None:
    """Raise ConfigError for a setting that Detectron2 does not have, or not with such a value."""
    from detectron2.config import get_cfg

    cfg = get_cfg()
    add_visrep_config(cfg)
    merge_into(cfg, opts)


def merge_into(cfg: Any, opts: Sequence[Any]) -> None:
    """Put [KEY, value, ...] into Detectron2's `cfg`.

    Raises:
        ConfigError: it has no such key, or not with such a value.
    """
    usual = flat(cfg)
    for key, value in zip(opts[::2], opts[1::2], strict=False):
        if any(name.startswith(f"{key}.") for name in usual):
            raise ConfigError(f"d2_opts: {key} is a section: give its settings one by one")
        if value is None and usual.get(key) is not None:
            raise ConfigError(f"d2_opts: {key} needs a value, not null")
    try:
        cfg.merge_from_list(list(opts))
    except (KeyError, AssertionError, ValueError) as error:
        raise ConfigError(f"d2_opts: {error}; give [KEY, value, ...] of its config") from error


def watched(cfg: Any) -> tuple[Any, set[str]]:
    """Detectron2's `cfg`, frozen, and the set of its keys that have been read, which grows."""
    from detectron2.config import CfgNode

    read: set[str] = set()

    class Watched(CfgNode):
        def __init__(self, values: Any, key_list: Any = None, new_allowed: bool = False) -> None:
            super().__init__(values, key_list, new_allowed)
            self.__dict__["above"] = key_list or []

        def __getattr__(self, name: str) -> Any:
            value = super().__getattr__(name)
            read.add(".".join([*self.__dict__["above"], name]))
            return value

    seen = Watched(cfg)
    seen.freeze()
    return seen, read


def check_read(opts: Any, recipe: DetectionRecipe, read: set[str]) -> None:
    """Raise ConfigError for a setting that the model and the training as they stand do not read."""
    clipped = f"{_CLIPPING}.CLIP_TYPE" in read  # its other settings are read at each step
    unread = [
        key
        for key in [*(key for key, _ in _pairs(opts)), *recipe.beyond]
        if key not in read and not (clipped and key.startswith(f"{_CLIPPING}."))
    ]
    if unread:
        raise ConfigError(
            f"d2_opts: nothing reads {', '.join(unread)} with head={recipe.head}, "
            f"outputs={recipe.outputs} and this backbone: leave it out"
        )
