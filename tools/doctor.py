"""`visrep doctor`: what is installed here, what would not work, and what to do about it.

Every part is imported, not only looked up: a package that is there and cannot be loaded is the
usual trouble. Exit code 0 when everything required works, 3 otherwise.

`visrep doctor data=imagefolder data.root=PATH` looks at a data set instead, see `doctor_data`, and
`visrep doctor detection=voc detection.root=PATH` at one with boxes, see `doctor_detection`.
"""

import contextlib
import importlib
import importlib.metadata
import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from packaging.version import InvalidVersion, Version

from visrep import __version__
from visrep.config import instantiate
from visrep.data.dataset import checked
from visrep.engine.precision import autocast_dtype
from visrep.errors import CheckFailed, ConfigError
from visrep.paths import cache_dir, config_dir
from visrep.tools import doctor_data, doctor_detection

INSTALL = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"
REINSTALL = "pip install -U visrep"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that visrep builds on.

    Attributes:
        name: of the package, as pip knows it.
        module: what is imported.
        least: lowest version that works; empty where any does.
        without: what is so without it, a clause; empty for a required part: nothing works.
        remedy: what to do.
    """

    name: str
    module: str
    least: str = ""
    without: str = ""
    remedy: str = REINSTALL


REQUIRED = (
    Part(name="torch", module="torch", least="2.11"),
    Part(name="torchvision", module="torchvision", least="0.26"),
    Part(name="numpy", module="numpy"),
    Part(name="hydra-core", module="hydra", least="1.3"),
    Part(name="omegaconf", module="omegaconf"),
    Part(name="PyYAML", module="yaml"),
    Part(name="packaging", module="packaging.version"),
    Part(name="fvcore", module="fvcore.common.param_scheduler", least="0.1.5"),
    Part(name="iopath", module="iopath"),
    Part(name="safetensors", module="safetensors.torch", least="0.5"),
    Part(name="google-crc32c", module="google_crc32c", least="1.5"),
    Part(name="scikit-learn", module="sklearn.datasets", least="1.4"),
    Part(name="Pillow", module="PIL.Image"),
    Part(name="pycocotools", module="pycocotools.mask", least="2.0.8"),
    Part(name="defusedxml", module="defusedxml.ElementTree", least="0.7"),
    Part(name="tensorboard", module="torch.utils.tensorboard", least="2.16"),
    Part(name="tqdm", module="tqdm", least="4.66"),
    Part(name="matplotlib", module="matplotlib.figure", least="3.8"),
    Part(name="Jinja2", module="jinja2", least="3.1"),
    Part(name="MarkupSafe", module="markupsafe"),
)

EXPORT = {"without": "no visrep export", "remedy": "pip install 'visrep[export]'"}
OPTIONAL = (
    Part(
        name="pkg_resources",
        module="pkg_resources",
        without="no detectron2.model_zoo (visrep does without it)",
        remedy="pip install 'setuptools<82', the last that has it",
    ),
    Part(name="onnx", module="onnx", least="1.17", **EXPORT),
    Part(name="onnxscript", module="onnxscript", least="0.3", **EXPORT),
    Part(name="onnxruntime", module="onnxruntime", least="1.20", **EXPORT),
    Part(
        name="faster-coco-eval",
        module="faster_coco_eval",
        least="1.6.5",
        without="COCO AP takes longer: pycocotools gives the same",
        remedy="pip install 'visrep[fast-eval]'",
    ),
    Part(
        name="timm",
        module="timm",
        least="1.0",
        without="visrep convert to=timm does not run the weights in timm's class",
        remedy="pip install timm",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the answer: name, version or what was found, and what is wrong ("" = nothing)."""

    name: str
    found: str
    problem: str = ""


def main(cfg: DictConfig) -> None:
    """Look, print, fail when something required does not work, or when data would mislead."""
    data, detection = OmegaConf.select(cfg, "data"), OmegaConf.select(cfg, "detection")
    if detection is not None:
        if data is not None:
            raise ConfigError("give one of data= and detection=")
        conclude(
            doctor_detection.examine(
                {part: partial(instantiate, detection.get(part)) for part in ("train", "test")},
                chosen=detection.get("classes") is not None,
                max_broken=float(cfg.max_broken),
                workers=int(cfg.workers),
            )
        )
        return
    if data is not None:
        conclude(
            doctor_data.examine(
                {part: partial(open_whole, data.get(part)) for part in ("train", "test")},
                max_broken=float(cfg.max_broken),
                workers=int(cfg.workers),
            )
        )
        return
    choices = ["detectron2", *(part.name for part in OPTIONAL), "gpu"]
    demanded = [str(name) for name in cfg.require]
    for name in demanded:
        if name not in choices:
            raise ConfigError(f"require={name}: choose from {', '.join(choices)}")
    print(f"visrep {__version__}, Python {platform.python_version()}, {platform.platform()}")
    required = [*map(examine, REQUIRED), *working()]
    optional = [detectron2(), *map(examine, OPTIONAL), gpu()]
    show("Required", required)
    show("Optional", optional)
    print("\nThis machine")
    for line in machine():
        print(f"  {line}")
    broken = [finding for finding in required if finding.problem]
    broken += [finding for finding in optional if finding.problem and finding.name in demanded]
    print()
    if broken:
        raise CheckFailed("; ".join(f"{each.name}: {each.problem}" for each in broken))
    missing = [finding.name for finding in optional if finding.problem]
    rest = f" Not here: {', '.join(missing)}." if missing else ""
    print(f"Everything required works.{rest}")


def open_whole(node: DictConfig | None) -> Any:
    """A part of the data with all of its files, the broken ones too, and none in memory."""
    # Reading a folder into memory leaves broken files out, and too many are an error.
    folder = node is not None and str(node._target_).startswith("visrep.data.folders.")
    return checked(
        instantiate(node, **({"memory_limit": 0, "max_broken": 0.999} if folder else {}))
    )


def conclude(problems: list[str]) -> None:
    """Print that nothing is wrong with the data, or raise CheckFailed with the problems."""
    print()
    if problems:
        raise CheckFailed("; ".join(problems))
    print("Nothing here would make a training wrong.")


def show(title: str, findings: list[Finding]) -> None:
    """Print findings as aligned lines."""
    print(f"\n{title}")
    for finding in findings:
        mark = "--" if finding.problem else "ok"
        line = f"  {mark}  {finding.name:<18}{finding.found:<12}{finding.problem}"
        print(line.rstrip())


def examine(part: Part) -> Finding:
    """Import `part` and compare its version."""
    found, problem = "there", ""
    try:
        load(part.module)
    except ModuleNotFoundError as error:
        itself = error.name == part.module.split(".")[0]
        found = "missing" if itself else "broken"
        problem = "not installed" if itself else f"needs {error.name}"
    except Exception as error:  # a broken binary raises anything
        found, problem = "broken", f"cannot be imported ({first_line(error)})"
    else:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found = importlib.metadata.version(part.name)
        if part.least and older(found, part.least):
            problem = f"too old, {part.least} is needed"
    if problem:
        problem += f": {part.remedy}" + (f"; without it, {part.without}" if part.without else "")
    return Finding(name=part.name, found=found, problem=problem)


def load(module: str) -> None:
    """Import `module` without its warnings, which are not about the user's installation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(module)


def older(found: str, least: str) -> bool:
    """`found` is a lower version than `least`; a version that cannot be read is taken as new."""
    try:
        return Version(Version(found).base_version) < Version(least)
    except InvalidVersion:
        return False


def first_line(error: BaseException) -> str:
    """The first line of a message, or the kind of error where there is none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def detectron2() -> Finding:
    """Detectron2 with its compiled part, as `visrep detect` finds it."""
    try:
        # Not at the top: it needs parts whose absence is to be reported, not to end the report.
        from visrep.d2 import installed

        found, problem = installed.version()
    except ImportError as error:
        found, problem = None, f"cannot look for it ({first_line(error)})"
    if found:
        return Finding(name="detectron2", found=found)
    lost = "without it detection runs on torchvision (engine=auto)"
    return Finding(name="detectron2", found="--", problem=f"{problem}: see {INSTALL}; {lost}")


def gpu() -> Finding:
    """A usable CUDA device."""
    if torch.cuda.is_available():
        return Finding(name="gpu", found=torch.cuda.get_device_name())
    built = torch.version.cuda
    reason = "no device is visible" if built else "this torch is built without CUDA"
    return Finding(name="gpu", found="--", problem=f"{reason}; everything runs on the CPU")


def working() -> Iterator[Finding]:
    """Things that can be installed and still not work."""
    yield _tried("torchvision ops", _nms, "torch and torchvision do not fit: install both anew")
    yield _tried("configs", _configs, REINSTALL)
    remedy = "set VISREP_CACHE to a folder that can be written"
    yield _tried("cache folder", _cache, remedy)


def _tried(name: str, try_it: Callable[[], None], remedy: str) -> Finding:
    try:
        try_it()
    except Exception as error:  # whatever goes wrong is the finding
        return Finding(name=name, found="broken", problem=f"{first_line(error)}: {remedy}")
    return Finding(name=name, found="works")


def _nms() -> None:
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
    if nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() != [1]:
        raise RuntimeError("nms gives a wrong result")


def _configs() -> None:
    if not (config_dir() / "pretrain.yaml").is_file():
        raise FileNotFoundError(f"no configurations in {config_dir()}")


def _cache() -> None:
    folder = existing(cache_dir())
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written")


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return path if path.exists() else existing(path.parent)


def detection_on(device: torch.device) -> str:
    """What Detectron2 can do on `device`: norms over several processes, precisions."""
    if device.type == "cuda":
        return "norms over several processes are SyncBN; fp32, bf16, fp16"
    return "norms over several processes are naiveSyncBN; fp32 in Detectron2, bf16 in torchvision"


def machine() -> Iterator[str]:
    """Devices, threads, precision and folders, one line each."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS")
    threads = f", OMP_NUM_THREADS={limit}" if limit else ""
    yield f"CPU         {usable} cores, torch uses {torch.get_num_threads()} threads{threads}"
    devices = [torch.device("cpu")]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield f"GPU {index}       {device.name}, {device.total_memory / 2**30:.0f} GiB"
        devices[:] = [torch.device("cuda", 0)]
    if devices[0].type == "cpu":
        yield "GPU         none"
    fast = autocast_dtype("auto", devices[0])
    words = "bfloat16 autocast" if fast else "float32 (bfloat16 is emulated here, and slower)"
    yield f"precision   auto means {words}"
    yield f"detection   {detection_on(devices[0])}"
    free = shutil.disk_usage(existing(cache_dir())).free
    yield f"cache       {cache_dir()}, {free / 1e9:.0f} GB free (VISREP_CACHE)"
    datasets = os.environ.get("DETECTRON2_DATASETS")
    yield f"datasets    {datasets or 'DETECTRON2_DATASETS is not set; data sets get root=FOLDER'}"
