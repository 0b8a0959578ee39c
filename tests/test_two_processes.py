"""Every command that trains, under torchrun with two processes: it ends, and a signal ends it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.small_data import CLASSES, preprocess, tiny_net, write_encoder, write_folder
from visrep import results
from visrep.nn.classifier import Classifier
from visrep.weights import save_encoder

pytestmark = pytest.mark.slow

NET = ("backbone=resnet18_small", "backbone.width=0.0625", "method=simclr_small")
STUDENT = ("student=resnet18_small_w8", "optim.warmup_epochs=0")
DETECT = (
    *("detect", "detection=scenes", "task=scenes", "warmup=1", "iterations=3", "batch_size=2"),
    *("threads=1", "device=cpu", "log_every=1"),
)


class Torchrun:
    """`visrep ARGUMENTS` in two processes, its output in a file."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.log = folder / "log"
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        with open(self.log, "wb") as stream:
            self.popen = subprocess.Popen(
                [sys.executable, *torchrun, "-m", "visrep", *map(str, arguments)],
                env=os.environ | {"OMP_NUM_THREADS": "1", "VISREP_TIMEOUT": "60"},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def below(self) -> dict[int, bytes]:
        """The living processes that it started, with the environment of each."""
        table = subprocess.run(
            ["ps", "-eo", "pid,ppid,stat"], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split() for line in table.splitlines()[1:]]
        found = {self.popen.pid}
        while more := {int(p) for p, q, s in rows if int(q) in found and "Z" not in s} - found:
            found |= more
        found.discard(self.popen.pid)
        return {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in found}

    def wait(self, seconds: float) -> tuple[int | None, str]:
        """Exit code (None: it had to be killed) and output."""
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
            for pid in [*self.below(), self.popen.pid]:
                os.kill(pid, signal.SIGKILL)
            self.popen.wait()
        return code, self.log.read_text(errors="replace")


def arguments(command: str, folder: Path) -> list[object]:
    weights, root = folder / "encoder.safetensors", folder / "data"
    teacher = folder / "teacher.safetensors"
    write_encoder(weights)
    net = Classifier(encoder=tiny_net(), classes=len(CLASSES), zero_init=False)
    save_encoder(
        teacher,
        encoder=net.encoder,
        preprocess=preprocess(),
        fc=net.fc,
        classes=CLASSES,
        source={"method": "none"},
    )
    write_folder(root)
    labelled = ("data=imagefolder", f"data.root={root}", "threads=1", "device=cpu")
    small = ("batch_size=8", "epochs=1")
    given = {
        "pretrain": ["pretrain", *NET, *labelled, *small, "steps=3", "log_every=1"],
        "distill": ["distill", *labelled, *small, *STUDENT, f"teacher={teacher}", "log_every=1"],
        "linear": ["linear", *labelled, *small, f"weights={weights}"],
        "augmented linear": ["linear", *labelled, *small, f"weights={weights}", "augment=true"],
        "finetune": ["finetune", *labelled, *small, f"weights={weights}", "log_every=1"],
        "detect torchvision": [*DETECT, f"weights={weights}", "engine=torchvision"],
        "detect detectron2": [*DETECT, f"weights={weights}", "engine=detectron2"],
    }
    return [*given[command], f"out={folder / 'out'}"]


COMMANDS = [
    "pretrain",
    "linear",
    "augmented linear",
    "finetune",
    "distill",
    "detect torchvision",
    pytest.param("detect detectron2", marks=pytest.mark.detectron2),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_it_ends(command, tmp_path):
    code, text = Torchrun(tmp_path, *arguments(command, tmp_path)).wait(150)
    assert code == 0, text
    records = results.read(tmp_path / "out/results.jsonl")
    found = [(record.metric, record.extra.get("role")) for record in records]
    assert found and len(set(found)) == len(found)  # every number once, not once a process


ENDLESS = {
    "pretrain": ("steps=100000",),
    "finetune": ("epochs=10000",),
    "distill": ("epochs=10000",),
    "detect torchvision": ("iterations=100000",),
    "detect detectron2": ("iterations=100000",),
}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("command", [c for c in COMMANDS if "linear" not in str(c)])
def test_a_signal_to_one_process_ends_both_with_a_snapshot(command, rank, tmp_path):
    given = [*arguments(command, tmp_path), *ENDLESS[command], "workers=1"]
    given = [a for a in given if str(a) not in ("steps=3", "epochs=1", "iterations=3")]
    job = Torchrun(tmp_path, *given)
    metrics = tmp_path / "out/metrics.jsonl"
    end = time.monotonic() + 90
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
        assert job.popen.poll() is None and time.monotonic() < end, job.wait(0)[1]
        time.sleep(0.05)
    members = job.below()
    mine = [pid for pid, given in members.items() if f"RANK={rank}".encode() in given.split(b"\0")]
    os.kill(min(mine), signal.SIGTERM)
    code, text = job.wait(30)
    left = [pid for pid in members if Path(f"/proc/{pid}/cmdline").exists()]
    assert code not in (0, None) and not left, text
    assert "the snapshot is saved" in text
    saved = [path.name for path in (tmp_path / "out/snapshots").glob("step-*.pt")]
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert f"step-{steps[-1]:09d}.pt" in saved
