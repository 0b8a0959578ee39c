"""The command works from a bare checkout, an editable install and a built wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
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
        source = ROOT / name
        if source.is_symlink() or source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name, follow_symlinks=False)
    return target


@pytest.fixture(scope="module")
def unpacked(checkout, tmp_path_factory) -> Path:
    """A wheel's content: what lands in site-packages. What it depends on is borrowed."""
    home = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    call(*pip, "wheel", "--no-deps", "-w", home, checkout, cwd=home)
    with zipfile.ZipFile(next(home.glob("visrep-*.whl"))) as wheel:
        wheel.extractall(home / "site")
    return home / "site"


def trains(command: tuple[str | Path, ...], out: Path, cwd: Path, **env: str) -> None:
    call(*command, *TRAIN, f"out={out}", cwd=cwd, **env)
    assert (out / "encoder.safetensors").exists()


def test_bare_checkout(checkout, tmp_path):
    where = call(sys.executable, "-c", "import visrep; print(visrep.__file__)", cwd=checkout)
    assert where.strip() == str(checkout / "visrep" / "__init__.py")
    trains((sys.executable, "-m", "visrep"), tmp_path / "run", checkout)


def test_editable_install(tmp_path):
    script = Path(sys.executable).with_name("visrep")
    if not script.exists():
        pytest.skip("this environment has no editable install of visrep")
    trains((script,), tmp_path / "run", tmp_path)


def test_wheel(unpacked, checkout, tmp_path):
    """One name in site-packages; every source and every yaml is in it, under its own name."""
    where = call(
        sys.executable, "-c", "import visrep; print(visrep.__file__)", cwd=tmp_path,
        PYTHONPATH=str(unpacked),
    )  # fmt: skip
    assert where.strip() == str(unpacked / "visrep" / "__init__.py")
    top = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"visrep"}
    for folder in ("pretrain", "transfer", "distill", "tools", "configs"):
        wanted = {
            path.relative_to(checkout / folder)
            for pattern in ("*.py", "*.yaml", "*.html", "*.css", "*.js")
            for path in (checkout / folder).rglob(pattern)
        }
        packed = unpacked / "visrep" / folder
        assert wanted <= {path.relative_to(packed) for path in packed.rglob("*")}, folder
    path = {"PYTHONPATH": str(unpacked)}
    trains((sys.executable, "-m", "visrep"), tmp_path / "run", tmp_path, **path)
    views, page = tmp_path / "views.png", tmp_path / "report.html"
    program = (sys.executable, "-m", "visrep")
    call(*program, "views", "data=scenes", "views=scenes", f"out={views}", cwd=tmp_path, **path)
    call(*program, "report", f"runs={tmp_path}", f"out={page}", cwd=tmp_path, **path)
    assert views.exists() and "<h1>SimCLR on scenes" in page.read_text()


@pytest.fixture
def crowded(tmp_path) -> Path:
    """A user's folder with files of the stages' names, each of which ends whoever imports it."""
    for name in ("pretrain.py", "distill.py", "tools.py", "configs.py", "transfer/__init__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise SystemExit('the user has a {name}')\n")
    return tmp_path


WAYS = {
    "module": (sys.executable, "-m", "visrep"),
    "torchrun": (
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "visrep"),
    ),
    "script": (sys.executable, "-c", "import sys, visrep.cli; sys.exit(visrep.cli.main())"),
}
DRY = ("pretrain", "data=scenes", "method=simclr_small", "out=x", "--dry-run")
EVERY_ENTRY = (
    "import importlib; from visrep.cli import COMMANDS\n"
    "print(*{importlib.import_module(m).__name__.split('.')[0] for m, _ in COMMANDS.values()})"
)


@pytest.mark.parametrize("way", WAYS)
def test_a_users_files_shadow_nothing(crowded, unpacked, way):
    """In the current folder and on PYTHONPATH, before and after the wheel."""
    path = os.pathsep.join([str(crowded), str(unpacked), str(crowded)])
    assert "name: simclr_small" in call(*WAYS[way], *DRY, cwd=crowded, PYTHONPATH=path)


def test_a_users_files_shadow_no_command_of_a_checkout(crowded, checkout):
    path = os.pathsep.join([str(crowded), str(checkout)])
    shown = call(sys.executable, "-c", EVERY_ENTRY, cwd=crowded, PYTHONPATH=path)
    assert shown.strip() == "visrep"


def test_the_console_script_runs_its_own(crowded):
    """The script of the environment the tests run in: an editable install, or a wheel."""
    script = Path(sys.executable).with_name("visrep")
    if not script.exists():
        pytest.skip("this environment has no console script of visrep")
    shown = call(script, *DRY, cwd=crowded, PYTHONPATH=str(crowded))
    assert "name: simclr_small" in shown


def test_a_checkout_without_links_says_what_to_do(checkout, tmp_path):
    """What git leaves on Windows: a text file with the link's target."""
    copy = tmp_path / "copy"
    shutil.copytree(checkout / "visrep", copy / "visrep", symlinks=True)
    for link in [path for path in (copy / "visrep").iterdir() if path.is_symlink()]:
        target = os.readlink(link)
        link.unlink()
        link.write_text(target)
    done = subprocess.run(
        [sys.executable, "-m", "visrep", "pretrain", "out=x"],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "core.symlinks true" in done.stderr and "visrep/pretrain" in done.stderr


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
