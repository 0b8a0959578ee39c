"""Killed at random moments and gone on with, every kind of training ends as if nothing had been.

Each kind of training runs once undisturbed, then again in another folder: SIGKILL ends it, workers
and all, at random moments, and `resume=auto` goes on. Weights, predictions and metrics, each step
once, must be equal to the last bit. `VISREP_KILLS=20 pytest -m slow tests/test_kills.py` kills
more often.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.small_data import tiny_net
from visrep.data.preprocess import Preprocess
from visrep.nn.heads import MLP, simclr_head
from visrep.weights import save_encoder
from visrep.weights.encoder_file import fingerprint

KILLS = int(os.environ.get("VISREP_KILLS", "3"))
SEED = int(os.environ.get("VISREP_KILLS_SEED", "0"))
OF_TIME = ("images_per_s", "data_share", "eta_s")  # of metrics, what a clock decides

NET = ("backbone=resnet18_small", "backbone.width=0.0625")
PRETRAIN = (
    *("batch_size=16", "steps=18"),
    *("optim.warmup_epochs=0", "snapshot_every=2", "log_every=1", "knn.times=3", "workers=1"),
    "health=off",
)
METHODS = {
    "barlow_twins": NET,
    "byol": NET,
    "exemplar": ("views.classes=40",),
    "moco_v1": (*NET, "bn_splits=4", "method.queue_size=64"),
    "moco_v2": (*NET, "bn_splits=4", "method.queue_size=64"),
    "npid": (*NET, "method.negatives=32"),
    "simclr": NET,
    "simclr_v2": NET,
    "simsiam": NET,
    "swav": NET,
}
DETECT = (
    *("task=scenes", "iterations=8", "warmup=1", "batch_size=2", "train_sizes=[48]"),
    *("test_size=48", "fpn.channels=16", "fpn.box_width=32", "roi_batch=8", "log_every=1"),
    *("score_threshold=0.0", "detections_per_image=10", "snapshot_every=2", "workers=1"),
)


def pictures(root: Path) -> Path:
    """root/train/CLASS/*.png and root/val/..: unequal sizes, so that workers decode them."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 6)):
        for label, name in enumerate(("blue", "green", "red")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 160, (40 + i % 5, 42 + i % 3, 3))
                pixels[..., 2 - label] += 90
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{i:02d}.png")
    return root


def scenes(root: Path) -> Path:
    """VOC's layout: a bright square or two on noise."""
    draw = np.random.default_rng(1)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for part, count in (("trainval", 8), ("test", 4)):
        names = [f"{part}{i}" for i in range(count)]
        (root / "ImageSets/Main" / f"{part}.txt").write_text("\n".join(names))
        for name in names:
            pixels = draw.integers(0, 60, (48, 64, 3)).astype(np.uint8)
            x, y = (int(v) for v in draw.integers(2, 28, 2))
            pixels[y : y + 16, x : x + 18] = 230
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.png")
            box = "".join(
                f"<{key}>{value}</{key}>"
                for key, value in (("xmin", x), ("ymin", y), ("xmax", x + 18), ("ymax", y + 16))
            )
            (root / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><object><name>square</name><bndbox>{box}</bndbox></object>"
                "</annotation>"
            )
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, an encoder, a teacher."""
    root = tmp_path_factory.mktemp("kills")
    pictures(root / "photos")
    scenes(root / "voc")
    net = tiny_net()
    save_encoder(
        root / "encoder.safetensors",
        encoder=net,
        preprocess=Preprocess(size=16, resize=18, mean=(0.5,) * 3, std=(0.25,) * 3),
        head=MLP(in_dim=net.out_dim, layers=simclr_head(hidden=net.out_dim, out_dim=8, depth=3)),
        source={"method": "none"},
    )
    code, text = once(commands(root)["finetune"], root / "teacher")
    assert code == 0, text
    return root


def commands(root: Path) -> dict[str, list[str]]:
    """Kind of training -> its command, without `out=`."""
    photos = ["data=imagefolder", f"data.root={root / 'photos'}", "threads=1"]
    weights = f"weights={root / 'encoder.safetensors'}"
    learning = ["snapshot_every=2", "log_every=1", "workers=1", "batch_size=16"]
    voc = ["detection=voc", f"detection.root={root / 'voc'}", "threads=1", weights, *DETECT]
    teacher = f"teacher={root / 'teacher' / 'encoder.safetensors'}"
    return {
        **{
            name: ["pretrain", f"method={name}_scenes", *photos, *PRETRAIN, *extra]
            for name, extra in METHODS.items()
        },
        "finetune": ["finetune", *photos, weights, "labels=0.5", "epochs=6", *learning],
        "distill": [
            *("distill", *photos, teacher, "student=resnet18_small_w8", "steps=12", *learning),
            "optim.warmup_epochs=0",
        ],
        "linear": ["linear", *photos, weights, "epochs=4", "workers=1"],
        "detect torchvision": ["detect", "engine=torchvision", *voc],
        "detect detectron2": ["detect", "engine=detectron2", *voc],
    }


def run(arguments: list[str], log: Path) -> None:
    """In a process of its own, and the leader of a group: the command, as `visrep` runs it."""
    os.setsid()
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from visrep.cli import main

    main(arguments)


def once(arguments: list[str], out: Path, *, kill_after: float = 0) -> tuple[int, str]:
    """Run to the end, or to the kill: the exit code (-9 of a kill) and what was printed."""
    log = out.with_name(f"{out.name}.log")
    process = SERVER.Process(target=run, args=([*arguments, f"out={out}"], log))
    process.start()
    process.join(kill_after or 300)
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode, log.read_text(errors="replace") if log.exists() else ""


# Its processes have everything imported when they are forked, so a start takes a moment only.
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "torch.utils.tensorboard",
        *(f"visrep.{name}" for name in ("cli", "config", "pretrain.train", "distill.finetune")),
        *(f"visrep.{name}" for name in ("distill.distil", "transfer.frozen.linear")),
        "visrep.transfer.detection.detect",
    ]
)


def left(out: Path) -> dict[str, Any]:
    """What a run has come to: weights, predictions, numbers, metrics without what clocks decide."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k not in OF_TIME} for line in lines]
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    numbers = {r["metric"]: r["value"] for r in records if r["metric"] not in OF_TIME}
    encoder, predictions = out / "encoder.safetensors", out / "predictions.json"
    return {
        "metrics": kept,
        "numbers": numbers,
        "records": len(records),
        "weights": fingerprint(load_file(encoder)) if encoder.exists() else None,
        "predictions": predictions.read_text() if predictions.exists() else None,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(commands(Path("."))))
def test_killed_and_gone_on_with_it_ends_the_same(kind: str, place: Path, tmp_path: Path) -> None:
    if kind == "detect detectron2":
        pytest.importorskip("detectron2")
    command = [*commands(place)[kind], *([] if kind == "linear" else ["resume=auto"])]
    if kind == "linear":  # starts anew: it has nothing to lose but minutes
        command.append("overwrite=true")
    began = time.monotonic()
    code, text = once(command, tmp_path / "straight")
    lasts = time.monotonic() - began
    assert code == 0, text
    draw = random.Random(f"{kind} {SEED}")
    killed = 0
    while killed < KILLS:
        code, text = once(command, tmp_path / "cut", kill_after=draw.uniform(0.05, lasts))
        assert "Traceback" not in text, text
        assert code in (0, -signal.SIGKILL), text
        if code == 0:
            if killed:
                assert_same(tmp_path)
            shutil.rmtree(tmp_path / "cut")
        else:
            killed += 1
    code, text = once(command, tmp_path / "cut")
    assert code == 0, text
    assert_same(tmp_path)


def assert_same(folder: Path) -> None:
    straight, cut = left(folder / "straight"), left(folder / "cut")
    steps = [line["step"] for line in cut["metrics"] if "loss" in line]
    assert len(steps) == len(set(steps)), steps
    for name in straight:
        assert straight[name] == cut[name], name
