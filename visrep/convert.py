"""`visrep convert weights=FILE out=FILE to=visrep|detectron2|torchvision|timm`, verified.

What is written is read back and compared before it gets its name: every tensor is accounted for,
the way back is exact to the bit, and where the target's own code is installed it runs the weights.
A check that fails leaves no file. Tensors are read one at a time, each time that
they are needed: memory holds an encoder once at most, and twice inside Detectron2.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from visrep.config import instantiate
from visrep.d2 import pkl as d2
from visrep.d2 import tasks as d2_tasks
from visrep.d2 import verify
from visrep.d2.config_text import Part
from visrep.d2.installed import version
from visrep.data.detection import DetectionDataset, readiness
from visrep.errors import ConfigError, UserError
from visrep.files import atomic_path, write_bytes
from visrep.weights.containers.tree import renamed, shapes_in
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import EncoderFile, dump_encoder
from visrep.weights.foreign import INPUTS, Choice
from visrep.weights.formats import timm, torchvision, visrep_encoder
from visrep.weights.reading import read_weights
from visrep.weights.verification import checking, require_equal, run_in_own_class

TARGETS = ("visrep", "detectron2", "torchvision", "timm")


def main(cfg: DictConfig) -> None:
    """Convert `cfg.weights` to `cfg.out` and print what was read, written and verified.

    Raises:
        UserError: the input cannot be read or the output cannot be written.
        ConfigError: the keys do not fit together, or `out` exists.
        CheckFailed: a check did not hold; nothing is written.
    """
    if cfg.to not in TARGETS:
        raise ConfigError(f"to={cfg.to}: choose one of {', '.join(TARGETS)}")
    out = Path(cfg.out)
    _check_names(out, cfg.to)
    tasks = d2_tasks.selected(cfg.task)
    only = cfg.stem_stride is not None or cfg.norm != "SyncBN" or tasks or "detection" in cfg
    if cfg.to != "detectron2" and only:
        raise ConfigError(
            f"stem_stride, norm, task and detection are for to=detectron2, not to={cfg.to}"
        )
    names = [d2_tasks.PLAIN, *tasks] if cfg.to == "detectron2" else []
    for path in [out, *(d2_tasks.config_path(out, name) for name in names)]:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder: give out= a file name")
        if path.exists() and not cfg.overwrite:
            raise ConfigError(f"{path} exists: choose another out=, or overwrite=true")
    at = cfg.classifier
    if at is not None and (not isinstance(at, int) or isinstance(at, bool) or at < 0):
        raise ConfigError(f"classifier={at}: give the number of a layer, 0 for the encoder")
    if cfg.origin not in (None, "simclr"):
        raise ConfigError(f"origin={cfg.origin}: the only one is simclr")
    if cfg.input is not None and cfg.input not in INPUTS:
        raise ConfigError(f"input={cfg.input}: choose one of {', '.join(INPUTS)}")
    asked = ("encoder", "stem", "padding", "input", "classifier", "origin", "prefix")
    choice = Choice(**{key: cfg[key] for key in asked}, on_demand=True)
    file = with_head(read_weights(cfg.weights, choice), cfg.head)
    lines = [f"read      {cfg.weights}: {_summary(file)}"]
    lines += [f"note      {file.source['note']}"] if "note" in file.source else []
    if cfg.to == "visrep":
        lines += to_visrep(file, out)
    elif cfg.to in ("torchvision", "timm"):
        lines += to_state_dict(file, out, torchvision if cfg.to == "torchvision" else timm)
    else:
        own = own_data(cfg.detection) if "detection" in cfg else None
        if cfg.task == "all":
            problems = {task: d2_tasks.problem(task, file.backbone, own) for task in tasks}
            lines += [f"left out  task {task}: {text}" for task, text in problems.items() if text]
            tasks = [task for task in tasks if not problems[task]]
        lines += to_detectron2(
            file, out, norm=cfg.norm, stem_stride=cfg.stem_stride, tasks=tasks, own=own
        )
    print("\n".join([*lines, f"sha256    {file.sha256}"]))


def with_head(file: EncoderFile, head: object) -> EncoderFile:
    """`file` with its whole projection head (`full`), none of it, or its first layers.

    Raises:
        ConfigError: `head` is none of these, or a classifier sits on what is to go.
    """
    if head == "full" or (head == "none" and file.head is None):
        return file
    layers = [] if file.head is None else file.head["layers"]
    keep = 0 if head == "none" else head
    if not isinstance(keep, int) or isinstance(keep, bool) or not 0 <= keep <= len(layers):
        raise ConfigError(
            f"head={head}: choose full, none, or 0 to {len(layers)} of the {len(layers)} layers"
        )
    if keep < len(layers) and file.names("fc"):
        raise ConfigError(f"head={head}: the classifier sits on the whole head; use head=full")
    starts = tuple(f"head.layers.{i}." for i in range(keep, len(layers)))
    return replace(
        file,
        tensors=_only(file, [name for name in file.tensors if not name.startswith(starts)]),
        head={**file.head, "layers": layers[:keep]} if file.head and keep else None,
        sha256="",
    )


def to_visrep(file: EncoderFile, out: Path) -> list[str]:
    """Write the encoder file `out`; lines that say what was written and verified."""
    with _all_or_none([out]) as (temporary,):
        with _writing(out):
            dump_encoder(temporary, file)
        with checking({temporary: out}):
            back = read_weights(temporary, Choice(on_demand=True))
            require_equal(back.tensors, file.tensors, out)
    return [
        f"wrote     {out} ({_size(out)})",
        f"verified  {len(file.tensors)} of {len(file.tensors)} tensors accounted for, read back "
        "bit-equal",
    ]


def to_state_dict(file: EncoderFile, out: Path, target: ModuleType) -> list[str]:
    """Write a state dict under the names of `target`, the module of torchvision's or timm's format;
    lines that say what was written and verified.

    Nets that it has a class of are also run in it.
    """
    kept, left_out = _without(file, ("head",))
    with _all_or_none([out]) as (temporary,):
        with _writing(out):
            target.dump(temporary, file)
        with checking({temporary: out}):
            written = read_tree(temporary)
            back = target.read(written, Choice(on_demand=True))
            require_equal(back.tensors, kept, out)
            checked = run_in_own_class(file, written, out, target)
    lines = [f"left out  {left_out}"] if left_out else []
    lines += [f"wrote     {out} ({_size(out)})", _accounted(file, kept), f"          {checked}"]
    if file.preprocess != INPUTS["imagenet"].to_dict():
        lines.append(
            "note      a state dict does not say what its input went through; this encoder's: "
            f"{_input(file)}"
        )
    return lines


def to_detectron2(
    file: EncoderFile,
    out: Path,
    *,
    norm: str,
    stem_stride: int | None,
    tasks: Sequence[str] = (),
    own: d2_tasks.OwnData | None = None,
) -> list[str]:
    """Write `out` and its configs beside it; lines that say what was written and verified.

    tasks: those whose configs are written besides the plain one. own: data in place of the tasks'.
    """
    before = file.backbone
    kept, left_out = _without(file, ("head", "fc"))
    changed = replace(file, backbone=d2.with_stem_stride(before, stem_stride))
    texts = {
        d2_tasks.config_path(out, task): d2_tasks.config_for(
            changed, weights=out, norm=norm, task=task, own=own
        )
        for task in dict.fromkeys([d2_tasks.PLAIN, *tasks])
    }
    with _all_or_none([out, *texts]) as (temporary, *configs):
        for (config, text), path in zip(texts.items(), configs, strict=True):
            with _writing(config):
                path.write_text(text, encoding="utf-8")
        with _writing(out):
            d2.dump_pkl(temporary, changed)
        with checking({temporary: out, **dict(zip(configs, texts, strict=True))}):
            require_equal(d2.read_pkl(temporary).tensors, kept, out)
            checked = _run_in_detectron2(changed, temporary, configs)
    config, *others = texts
    lines = [f"left out  {left_out}"] if left_out else []
    lines += [
        f"wrote     {out} ({_size(out)}) and {config}",
        *(f"          {path}" for path in others),
        _accounted(file, kept),
        *(f"          {line}" for line in checked),
    ]
    if changed.backbone != before:
        lines.append(
            "changed   the stem's stride is 2 and no longer 1: strides 2, 4, 8, 16; this is not "
            "the network that was trained"
        )
    if not d2.native(changed.backbone):
        lines.append(
            f"note      Detectron2's own ResNet cannot hold this net: {config.name} says how to "
            "register visrep's"
        )
    return lines


def own_data(node: DictConfig) -> d2_tasks.OwnData:
    """The data that `detection=` names, which are read for their classes.

    Raises:
        ConfigError: a part is not named, or the classes of the parts are not the same.
        UserError: they cannot be read.
    """
    nodes: Any = OmegaConf.to_container(node, resolve=True)
    if nodes.get("train") is None or nodes.get("test") is None:
        raise ConfigError("detection needs data to train and to test on: choose both")
    train, test = (instantiate(node[name]) for name in ("train", "test"))
    pixels = any(record.labels is not None for record in getattr(train, "records", []))
    if not isinstance(train, DetectionDataset) or train.classes == [] or pixels:
        raise ConfigError(
            "detection: these data have no boxes to learn, which configs on other data are for"
        )
    test = readiness.matched(train, test, chosen=nodes.get("classes") is not None)
    first, second = Part.both(train, test, nodes)
    return d2_tasks.OwnData(
        classes=train.classes,
        train=first,
        test=second,
        masks=any(box.mask is not None for record in train.records for box in record.boxes),
        keypoints=train.keypoint_count,
    )


def _check_names(out: Path, to: str) -> None:
    if to == "detectron2" and out.suffix != ".pkl":
        raise ConfigError(f"out={out}: Detectron2 tells the format by the name; end it in .pkl")
    if to == "timm" and out.suffix != ".safetensors":
        raise ConfigError(f"out={out}: timm tells the format by the name; end it in .safetensors")
    if to == "detectron2" and "?" in str(out.absolute()):
        raise ConfigError(f"out={out}: Detectron2 takes what follows a ? for an option; rename it")


@contextlib.contextmanager
def _all_or_none(paths: list[Path]) -> Iterator[list[Path]]:
    """Temporary paths that get their names together at the end, or none of them does.

    The first one is named last: where it is, the others are. The others are small.
    """
    before = {path: path.read_bytes() if path.exists() else None for path in paths[1:]}
    complete = False
    try:
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(atomic_path(path)) for path in paths]
            complete = True
    except BaseException:
        for path, content in before.items() if complete else ():
            path.unlink(missing_ok=True)
            if content is not None:
                write_bytes(path, content)
        raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file that cannot be written by the name that the user knows."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder, then run the command again"
        ) from error


def _run_in_detectron2(file: EncoderFile, pkl: Path, configs: list[Path]) -> list[str]:
    found, problem = version()
    if not found:
        return [f"{problem}: not checked in its backbone, see its installation page"]
    return [f"in {report}" for report in verify.verify_all(pkl, file, configs)]


def _only(file: EncoderFile, names: Iterable[str]) -> Mapping[str, Tensor]:
    return renamed(file.tensors, {name: name for name in names})


def _without(file: EncoderFile, prefixes: tuple[str, ...]) -> tuple[Mapping[str, Tensor], str]:
    """The tensors that the target holds, and what it leaves out in words."""
    starts = tuple(f"{prefix}." for prefix in prefixes)
    kept = _only(file, [name for name in file.tensors if not name.startswith(starts)])
    names = {"head": "projection head", "fc": "classifier"}
    left = [f"{names[p]} ({len(file.names(p))} tensors)" for p in prefixes if file.names(p)]
    return kept, ", ".join(left)


def _accounted(file: EncoderFile, kept: Mapping[str, Any]) -> str:
    total, left = len(file.tensors), len(file.tensors) - len(kept)
    split = f" ({len(kept)} written, {left} left out)" if left else ""
    return f"verified  {total} of {total} tensors accounted for{split}, inverse bit-equal"


def _summary(file: EncoderFile) -> str:
    shapes = shapes_in(_only(file, file.names("")))
    numbers = sum(
        math.prod(shape) for name, shape in shapes.items() if not name.endswith(("_mean", "_var"))
    )
    wrappers = [] if file.kind == visrep_encoder.NAME else ["container", "prefix"]
    words = [f"its {file.source[key]!r}" for key in wrappers if key in file.source]
    parts = [
        " in ".join([file.kind, *words]),
        d2.describe(file.backbone),
        f"{numbers / 1e6:.2f} M parameters",
        _input(file),
    ]
    if file.encoder:
        others = f" (it also holds {', '.join(file.alternatives)})" if file.alternatives else ""
        parts.insert(1, f"the {file.encoder} encoder{others}")
    parts += [f"projection head of {len(file.head['layers'])} layers"] if file.head else []
    parts += [f"classifier of {len(file.tensors['fc.weight'])} classes"] if file.names("fc") else []
    parts += [f"dropped {count} {group}" for group, count in file.dropped.items()]
    return ", ".join(parts)


def _input(file: EncoderFile) -> str:
    mean, std = (
        " ".join(f"{value:.3f}" for value in file.preprocess[key]) for key in ("mean", "std")
    )
    low, high = file.preprocess["range"]
    preprocess = file.preprocess
    return (
        f"{preprocess['channel_order']} of {preprocess['size']} px in [{low:g}, {high:g}], "
        f"mean {mean}, std {std}"
    )


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"
