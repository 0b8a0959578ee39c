"""`visrep pretrain` as a user runs it: killed, resumed, refused, on unlabelled and broken data."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from visrep.cli import main
from visrep.engine import snapshot
from visrep.results import read
from visrep.weights import load_encoder

TINY = ("backbone=resnet18_small", "backbone.width=0.0625", "threads=1", "knn.times=0")
MOCO = (
    *("pretrain", "data=scenes", "method=moco_small", *TINY, "batch_size=32", "bn_splits=4"),
    *("method.queue_size=128", "method.momentum=0.9", "epochs=200", "steps=24"),
    *("snapshot_every=5", "log_every=1"),
)


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "visrep", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def refused(capsys, *arguments: str, code: int = 2) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", *arguments])
    err = capsys.readouterr().err
    assert caught.value.code == code, err
    assert len(err.strip().splitlines()) == 1, err
    return err


def tensors(value, prefix: str = "") -> dict:
    if isinstance(value, dict):
        found = {}
        for key, item in value.items():
            found |= tensors(item, f"{prefix}{key}.")
        return found
    if isinstance(value, list | tuple):
        return tensors(dict(enumerate(value)), prefix)
    return {prefix: value}


def test_killed_mid_epoch_and_resumed_every_tensor_is_the_same(tmp_path):
    """SIGKILL lands wherever it lands: weights, momentum, queue and key network end bit-equal."""
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    uninterrupted = start(*MOCO, f"out={straight}")
    victim = start(*MOCO, f"out={cut}", "resume=auto")
    metrics = cut / "metrics.jsonl"
    for _ in range(12_000):  # a busy machine starts slowly
        if metrics.exists() and len(metrics.read_text().splitlines()) >= 8:
            break
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    left = snapshot.latest(cut / "snapshots")
    assert left is not None and left[0] < 24
    assert uninterrupted.wait() == 0, uninterrupted.stdout.read()
    resumed = start(*MOCO, f"out={cut}", "resume=must")
    assert resumed.wait() == 0, resumed.stdout.read()

    (step_a, a), (step_b, b) = (snapshot.latest(out / "snapshots") for out in (straight, cut))
    assert step_a == step_b == 24
    a, b = tensors(a), tensors(b)
    assert a.keys() == b.keys()
    for part in ("queue", "key_encoder", "momentum_buffer"):
        assert any(part in name for name in a), part
    for name in a:
        same = torch.equal(a[name], b[name]) if torch.is_tensor(a[name]) else a[name] == b[name]
        assert same, name
    assert load_encoder(straight / "encoder.safetensors").sha256 == (
        load_encoder(cut / "encoder.safetensors").sha256
    )
    assert f"resumed from the snapshot of step {left[0]}/24" in (cut / "log.txt").read_text()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Forty flat, unlabelled images of unequal size."""
    folder = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for i in range(40):
        width, height = 40 + i % 7, 36 + i % 5
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{i:02d}.jpg")
    return folder


FLAT = (
    *("data=folder", "method=simclr_small", *TINY, "batch_size=8", "steps=3"),
    *("optim.warmup_epochs=0", "knn.times=5"),
)


def test_a_flat_folder_of_unlabelled_images_needs_no_flag(photos, tmp_path, capsys):
    for workers in (0, 2):
        out = tmp_path / f"w{workers}"
        with pytest.raises(SystemExit) as caught:
            main(["pretrain", *FLAT, f"data.root={photos}", f"out={out}", f"workers={workers}"])
        assert caught.value.code == 0
    assert "kNN monitor: off, there are no labels" in capsys.readouterr().out
    hashes = {load_encoder(tmp_path / w / "encoder.safetensors").sha256 for w in ("w0", "w2")}
    assert len(hashes) == 1  # the number of workers changes no view
    records = read(tmp_path / "w0" / "results.jsonl")
    assert {r.metric for r in records} == {"loss", "images_per_s"}
    assert records[0].weights in hashes


def test_a_filled_folder_is_refused_and_another_configuration_named(photos, tmp_path, capsys):
    run = [*FLAT, f"data.root={photos}", f"out={tmp_path / 'run'}", "workers=0"]
    with pytest.raises(SystemExit):
        main(["pretrain", *run])
    capsys.readouterr()
    assert "resume=auto to continue it" in refused(capsys, *run)
    assert "(optim.lr)" in refused(capsys, *run, "resume=auto", "optim.lr=0.5")
    assert "resume=must: there is no run" in refused(
        capsys, *run[:-2], f"out={tmp_path / 'none'}", "resume=must"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    err = refused(capsys, *run[:-2], f"out={tmp_path / 'mine'}", "overwrite=true")
    assert "left alone" in err and (tmp_path / "mine" / "thesis.tex").exists()


def test_a_broken_image_is_skipped_up_to_a_share(photos, tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for path in photos.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "07.jpg").write_bytes((photos / "07.jpg").read_bytes()[:200])
    run = [*FLAT, f"data.root={folder}", "workers=0", "steps=6"]
    err = refused(capsys, *run, f"out={tmp_path / 'a'}", code=1)
    assert "07.jpg" in err and "0.1 %" in err
    assert not (tmp_path / "a" / "encoder.safetensors").exists()
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", *run, f"out={tmp_path / 'b'}", "max_broken=0.05"])
    assert caught.value.code == 0
    assert "skipped image" in capsys.readouterr().out


def test_what_does_not_fit_is_refused_before_the_first_step(photos, tmp_path, capsys):
    flat = [*FLAT, f"data.root={photos}", f"out={tmp_path / 'run'}", "workers=0"]
    assert "larger than the data" in refused(capsys, *flat, "batch_size=64")
    assert "couples the samples" in refused(capsys, *flat, "accumulate=2")
    assert "multiple of the total batch size 8" in refused(capsys, *flat, "method.memory_size=20")
    assert "choose a recipe with 2" in refused(capsys, *flat, "views=npid_small")
    assert "does not divide into bn_splits" in refused(
        capsys, *flat, "batchnorm=split", "bn_splits=3"
    )
    assert "batchnorm=both" in refused(capsys, *flat, "batchnorm=both")
    empty = tmp_path / "empty"
    empty.mkdir()
    err = refused(capsys, *FLAT, f"data.root={empty}", f"out={tmp_path / 'e'}", code=1)
    assert str(empty) in err


def test_steps_0_writes_the_untrained_encoder(photos, tmp_path):
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", *FLAT, f"data.root={photos}", f"out={tmp_path}", "steps=0"])
    assert caught.value.code == 0
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    assert not encoder.training and encoder.preprocess.size == 32
    assert torch.equal(encoder.bn1.running_mean, torch.zeros(4))


def test_simclrs_steps_and_resize(photos, tmp_path, capsys):
    """floor(40 * 2 / 12) + 1 steps over a repeated stream; the file says how its views were cut."""
    settings = ("data=folder", "method=simclr", *TINY, "batch_size=12", "epochs=2")
    small = ("views.size=32", "optim.warmup_epochs=0", "batchnorm=local", f"data.root={photos}")
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", *settings, *small, "workers=0", f"out={tmp_path / 'run'}"])
    assert caught.value.code == 0, capsys.readouterr()
    assert " 7 steps" in capsys.readouterr().out
    made = load_encoder(tmp_path / "run" / "encoder.safetensors").preprocess
    assert (made.interpolation, made.antialias) == ("bicubic_tf1", False)
    message = refused(capsys, *settings, *small, "batch_size=64", f"out={tmp_path / 'large'}")
    assert "batch_size=64 is larger than the data" in message
