"""A trained detector as a file, from which it is built again without the encoder's.

Detectron2's is `model_final.pth`, in its own layout and with its own config beside it,
`detectron2.yaml`; torchvision's is `detector.safetensors`. Both say as plain data what the net is.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visrep.d2.recipe import DetectionRecipe
from visrep.errors import UserError
from visrep.files import atomic_path, write_text
from visrep.weights.containers.safetensors_files import read_safetensors, write_safetensors
from visrep.weights.containers.torch_files import save_torch
from visrep.weights.encoder_file import COUNTER, fingerprint

FORMAT = "visrep-detector/1"
NAMES = {"detectron2": "model_final.pth", "torchvision": "detector.safetensors"}
BEST = {"detectron2": "model_best.pth", "torchvision": "detector_best.safetensors"}
CONFIG = "detectron2.yaml"
AUTHOR = "visrep"


@dataclass(kw_only=True)
class DetectorFile:
    """A detector, trained.

    Attributes:
        engine: that trained it.
        recipe: how, the fields of a `DetectionRecipe`.
        backbone, preprocess: of the encoder, as in its file.
        classes: what it finds, in the order of its outputs.
        encoder: sha256 of the encoder that it was trained from.
        init: pretrained or random, the encoder.
        config: Detectron2's config as yaml; "" for torchvision.
        keypoints: that it finds, the fields of a `Keypoints`; {} without any.
        opts: what changed that config beyond the recipe, KEY, value, ...
        labels: what records say of the labels it was trained on; {} for all.
        best: of the best one by a validation part: its iteration, metric, value and data set.
        tensors: its state, without counters of batches.
        sha256: of the tensors, see `fingerprint`.
    """

    engine: str
    recipe: dict[str, Any]
    backbone: dict[str, Any]
    preprocess: dict[str, Any]
    classes: list[str]
    encoder: str
    init: str
    config: str = ""
    opts: list[Any] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    keypoints: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(repr=False)
    sha256: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.tensors = {n: t for n, t in self.tensors.items() if not n.endswith(COUNTER)}
        self.sha256 = fingerprint(self.tensors)

    def about(self) -> dict[str, Any]:
        """All but the tensors, as plain data."""
        names = [name for name in self.__dataclass_fields__ if name not in ("tensors", "sha256")]
        plain = json.loads(json.dumps({name: getattr(self, name) for name in names}))
        return {"format": FORMAT, **plain}


def plain_recipe(recipe: DetectionRecipe) -> dict[str, Any]:
    """A recipe as plain data, the way `DetectionRecipe(**...)` takes it back."""
    return json.loads(json.dumps(asdict(recipe)))


def save(folder: Path, file: DetectorFile) -> Path:
    """Write `file` into `folder`, whole or not at all; returns its path.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = folder / (BEST if file.best else NAMES)[file.engine]
    if file.config:
        write_text(folder / CONFIG, file.config)
    with atomic_path(path) as temporary:
        if file.engine == "torchvision":
            write_safetensors(temporary, file.tensors, {"visrep": json.dumps(file.about())})
        else:
            tensors = {name: tensor.detach().cpu() for name, tensor in file.tensors.items()}
            content = {"model": tensors, "__author__": AUTHOR, "visrep": file.about()}
            with open(temporary, "wb") as stream:
                save_torch(content, stream)
    return path


def find(folder: Path) -> Path | None:
    """The file that `save` wrote into `folder`, if it did."""
    return next((folder / name for name in NAMES.values() if (folder / name).is_file()), None)


def is_one(path: str | Path) -> bool:
    """Whether `read` takes `path`: by what is in it, not by its name."""
    path = Path(path)
    if path.is_dir():
        return find(path) is not None
    try:
        return _contents(path)[0].get("format") == FORMAT
    except Exception:  # whatever a foreign, damaged or missing file makes its reader raise
        return False


def read(path: str | Path) -> DetectorFile:
    """What `save` wrote; a run folder stands for the file in it. Nothing in it is executed.

    Raises:
        UserError: it is missing, damaged or no detector of `visrep detect`.
    """
    path = Path(path)
    if path.is_dir():
        inside = find(path)
        if inside is None:
            raise UserError(f"{path} holds no detector ({' or '.join(NAMES.values())})")
        path = inside
    try:
        about, tensors = _contents(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a foreign or damaged file makes its reader raise
        raise UserError(
            f"{path} is damaged or no detector that visrep detect has written"
        ) from error
    if about.pop("format", None) != FORMAT:
        raise UserError(
            f"{path} is no detector that visrep detect has written: weights= takes encoders, and "
            "detector= takes " + " or ".join(NAMES.values()) + " of a run folder"
        )
    return DetectorFile(**about, tensors=tensors)


def _contents(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if path.suffix == ".safetensors":
        stored, metadata = read_safetensors(path)
        about: Mapping[str, Any] = json.loads(metadata.get("visrep", "{}"))
        if about.get("format") != FORMAT:
            return {}, {}
        return dict(about), {name: tensor.read() for name, tensor in stored.items()}
    content = torch.load(path, map_location="cpu", weights_only=True)
    about = content.get("visrep", {}) if isinstance(content, dict) else {}
    return dict(about), content["model"] if about else {}


def fill(net: nn.Module, file: DetectorFile) -> None:
    """Load the tensors of `file` into `net`.

    Raises:
        UserError: they are those of another net.
    """
    state = {n: t for n, t in net.state_dict().items() if not n.endswith(COUNTER)}
    given = file.tensors
    unlike = sorted(set(state) ^ set(given))
    unlike += [n for n, t in state.items() if n in given and given[n].shape != t.shape]
    if unlike:
        raise UserError(f"the detector's file does not fit the net that it names: {unlike[0]}")
    net.load_state_dict(given, strict=False)
