"""docs/examples/vicreg in a stranger's folder: its own test, a run that is cut, the report."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from visrep.engine import snapshot
from visrep.results import read
from visrep.weights import load_encoder

ROOT = Path(__file__).resolve().parents[2]
STRANGERS = ("plugins=vicreg", "config_dir=configs", "method=vicreg_scenes")
RUN = (
    *("pretrain", *STRANGERS, "data=scenes", "backbone=resnet18_small", "backbone.width=0.0625"),
    *("method.out_dim=32", "batch_size=32", "steps=24", "optim.warmup_epochs=0"),
    *("knn.times=0", "snapshot_every=5", "log_every=1", "threads=1", "device=cpu"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A copy of the example, and nothing of ours beside it."""
    folder = tmp_path_factory.mktemp("stranger") / "vicreg"
    shutil.copytree(ROOT / "docs" / "examples" / "vicreg", folder)
    return folder


def start(place: Path, *arguments: str, module: str = "visrep") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def done(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def runs(place) -> Path:
    """Two runs of the same settings, one of which was killed in the middle and resumed."""
    whole = start(place, *RUN, "out=runs/whole")
    victim = start(place, *RUN, "out=runs/cut", "resume=auto")
    metrics = place / "runs" / "cut" / "metrics.jsonl"
    while victim.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) >= 8:
            break
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    done(victim, -signal.SIGKILL)
    step, _ = snapshot.latest(place / "runs" / "cut" / "snapshots")
    assert 5 <= step < 24
    assert f"resumed from the snapshot of step {step}/24" in done(
        start(place, *RUN, "out=runs/cut", "resume=auto")
    )
    done(whole)
    return place / "runs"


def test_its_own_test_passes(place):
    own = ("test_vicreg.py", "-q", "-p", "no:cacheprovider")
    assert "3 passed" in done(start(place, *own, module="pytest"))


def test_a_run_that_was_killed_ends_with_the_same_encoder(runs):
    whole, cut = (load_encoder(runs / name / "encoder.safetensors") for name in ("whole", "cut"))
    assert whole.sha256 == cut.sha256
    records = read(runs / "whole" / "results.jsonl")
    assert {record.extra["title"] for record in records} == {"VICReg"}
    assert {record.weights for record in records} == {whole.sha256}


def test_its_title_is_in_the_report(place, runs):
    done(start(place, "report", "runs=runs/whole", "out=report.html"))
    assert "<title>VICReg on scenes" in (place / "report.html").read_text()


def test_it_is_a_choice_beside_ours_and_trusted_only_by_name(place):
    assert " vicreg_scenes" in done(start(place, "pretrain", "config_dir=configs", "--help"))
    output = done(start(place, "pretrain", *STRANGERS[1:], "data=scenes", "out=runs/no"), 2)
    assert "_target_=vicreg.VICReg is not allowed" in output and "plugins=" in output
    assert "Traceback" not in output and not (place / "runs" / "no" / "snapshots").exists()


@pytest.mark.slow
def test_it_can_be_rehearsed_beside_ours(place):
    code = (
        "from visrep import config; from visrep.tools.chain import rehearse;"
        f"settings = ['methods=[simclr,vicreg]', 'out=rehearsal', *{STRANGERS[:2]}];"
        "print(*rehearse.entered(config.compose('rehearse', settings)[0]), sep='\\n')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True
    )
    assert "name='vicreg', title='VICReg', judge='knn', share=1.0" in printed.stdout, printed.stderr
