"""A checkpoint is converted tensor by tensor: memory holds the encoder once at most."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from visrep.weights.encoder_file import build

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
LIMIT = 1.3  # of the encoder's size

# VmHWM is the peak of this process alone; getrusage's begins with that of the one that started it.
# Imports, buffers and what else a conversion needs of any size are counted with a net of 0.2 MB.
CHILD = """
import contextlib, importlib.util, re, sys
from pathlib import Path
from omegaconf import OmegaConf
from visrep import convert
from visrep.paths import config_dir

small, large, out, to, check = sys.argv[1:]
find = importlib.util.find_spec
if check == "no":
    importlib.util.find_spec = lambda name: None if name == "detectron2" else find(name)
elif to == "timm":
    import timm

def peak(weights, out, to):
    cfg = OmegaConf.load(config_dir() / "convert.yaml")
    cfg.merge_with({"weights": weights, "out": out, "to": to})
    convert.main(cfg)
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

before = peak(small, "small_" + out, to if to == "detectron2" else "visrep")
print(peak(large, out, to) - before)
"""


def checkpoint(path: Path, *, width: float, zipped: bool) -> int:
    """A ResNet-50 and an optimizer state of its size; bytes of the encoder."""
    spec = {"depth": 50, "width": width, "sk": False, "stem": "imagenet", "padding": "torch"}
    state = {
        name: torch.rand(t.shape).add_(0.5).div_(t[:1].numel())
        if t.is_floating_point()
        else torch.zeros_like(t, device="cpu")
        for name, t in build(spec).state_dict().items()
    }
    slots = {i: {"momentum_buffer": t + 1} for i, t in enumerate(state.values())}
    content = {"state_dict": state, "optimizer": {"state": slots}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return sum(t.numel() * t.element_size() for t in state.values())


def ratio(
    folder: Path, *, width: float, to: str, zipped: bool = True, check: bool = False
) -> float:
    """Peak memory over the encoder's size. check: in Detectron2, which else is hidden."""
    checkpoint(folder / "small.pth", width=1 / 32, zipped=zipped)
    size = checkpoint(folder / "large.pth", width=width, zipped=zipped)
    out = "x.pkl" if to == "detectron2" else "x.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "small.pth", "large.pth", out, to, "yes" if check else "no"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]) / size


def test_a_checkpoint_of_200_mb_is_copied_tensor_by_tensor(tmp_path):
    assert 0 < ratio(tmp_path, width=1.0625, to="visrep") < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("to", ["visrep", "torchvision", "detectron2"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_700_mb(tmp_path, to, zipped):
    # Of a width that torchvision has no class of.
    assert 0 < ratio(tmp_path, width=1.9375, to=to, zipped=zipped) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "width", "limit"),
    [
        ("torchvision", 1, 1.4),  # of 90 MB, where activations count
        ("timm", 1, 1.4),
        # Its checkpointer copies what it has loaded into the model.
        pytest.param("detectron2", 2, 2.2, marks=pytest.mark.detectron2),
    ],
)
def test_the_check_in_the_targets_class(tmp_path, to, width, limit):
    if to == "timm":
        pytest.importorskip("timm")
    assert 0.9 < ratio(tmp_path, width=width, to=to, check=True) < limit
