"""The command works from a bare checkout, an editable install and a built wheel."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAIN = (
    *("pretrain", "data=scenes", "method=simclr_small", "backbone=resnet18_small_w8"),
    *("batch_size=16", "steps=2", "optim.warmup_epochs=0", "knn.times=0", "threads=1"),
)


def call(*command: str | Path, cwd: Path, **env: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | {"OMP_NUM_THREADS": "1"} | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The files that git would hand out, without what builds and tests leave behind."""
    target = tmp_path_factory.mktemp("checkout")
    listed = call("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def installed(checkout, tmp_path_factory) -> Path:
    """The bin folder of an environment with the wheel; torch and the rest are borrowed."""
    home = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    call(*pip, "wheel", "--no-deps", "-w", home, checkout, cwd=home)
    call(sys.executable, "-m", "venv", "--without-pip", home / "env", cwd=home)
    python = home / "env" / "bin" / "python"
    wheel = next(home.glob("visrep-*.whl"))
    call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    folder = Path(
        call(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home
        ).strip()
    )
    (folder / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def trains(command: tuple[str | Path, ...], out: Path, cwd: Path) -> None:
    call(*command, *TRAIN, f"out={out}", cwd=cwd)
    assert (out / "encoder.safetensors").exists()
    views = out.with_suffix(".png")
    call(*command, "views", "data=scenes", "views=scenes", f"out={views}", cwd=cwd)
    assert views.exists()


def test_bare_checkout(checkout, tmp_path):
    where = call(sys.executable, "-c", "import visrep; print(visrep.__file__)", cwd=checkout)
    assert where.strip() == str(checkout / "visrep" / "__init__.py")
    trains((sys.executable, "-m", "visrep"), tmp_path / "run", checkout)


def test_editable_install(tmp_path):
    script = Path(sys.executable).with_name("visrep")
    if not script.exists():
        pytest.skip("this environment has no editable install of visrep")
    trains((script,), tmp_path / "run", tmp_path)


def test_wheel(installed, tmp_path):
    where = call(installed / "python", "-c", "import visrep; print(visrep.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))
    trains((installed / "visrep",), tmp_path / "run", tmp_path)
    # The folder of tools lives inside the package, so that it cannot clash with another `tools`.
    listed = [path.name for path in (Path(where.strip()).parent.parent).iterdir()]
    assert "tools" not in listed and "configs" not in listed


def test_torchrun(tmp_path):
    """Two processes on one machine: the same command, one run folder."""
    out = tmp_path / "run"
    call(
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
        *("-m", "visrep", *TRAIN, f"out={out}"),
        cwd=tmp_path,
    )
    assert (out / "encoder.safetensors").exists()
    assert "batch 16 total, 8 per process" in (out / "log.txt").read_text()
