"""A whole pretraining, cut and gone on with in one process: files, records, data, length."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from visrep import results
from visrep.cli import main
from visrep.engine import snapshot
from visrep.engine.trainer import Trainer
from visrep.engine.writers import SPEEDS
from visrep.weights.reading import read_weights

TINY = (
    *("pretrain", "data=folder", "method=simclr_small", "backbone=resnet18_small_w8"),
    *("batch_size=8", "threads=1", "workers=0", "knn.times=0", "optim.warmup_epochs=0"),
)
RUN = (*TINY, "snapshot_every=2", "log_every=3")


class Killed(BaseException):
    pass


def visrep(*arguments: object) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 0


def refused(capsys, *arguments: object, code: int = 2) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    err = capsys.readouterr().err.strip()
    assert caught.value.code == code and len(err.splitlines()) == 1, err
    return err


def picture(path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (32, 32, 3), generator=generator).byte().numpy()
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(16):
        picture(folder / f"{i:02d}.png", i)
    return folder


def kill_after(monkeypatch, step: int) -> None:
    update = Trainer._update

    def cut(self, *arguments):
        if self.step == step:
            raise Killed
        return update(self, *arguments)

    monkeypatch.setattr(Trainer, "_update", cut)


def readings(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in SPEEDS} for line in lines]


def losses(out: Path) -> list[float]:
    return [r.value for r in results.read(out / "results.jsonl") if r.metric == "loss"]


def test_cut_anywhere_it_leaves_what_an_undisturbed_run_leaves(photos, tmp_path, monkeypatch):
    run = [*RUN, "steps=5", f"data.root={photos}"]
    straight = tmp_path / "straight"
    visrep(*run, f"out={straight}")
    want = read_weights(straight / "encoder.safetensors").sha256
    health = (straight / "health.json").read_text()
    for step in (1, 2, 4):
        out = tmp_path / str(step)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, step)
            main([*run, f"out={out}"])
        visrep(*run, f"out={out}", "resume=auto")
        # And once more as if it had been killed between its last snapshot and its end.
        for name in ("encoder.safetensors", "results.jsonl", "health.json"):
            (out / name).unlink()
        visrep(*run, f"out={out}", "resume=must")
        assert read_weights(out / "encoder.safetensors").sha256 == want
        assert readings(out) == readings(straight)
        assert losses(out) == losses(straight)
        assert (out / "health.json").read_text() == health
    visrep(*run, f"out={out}", "resume=auto")  # a requeue loop comes once too often
    assert {r.metric for r in results.read(out / "results.jsonl")} == {"loss", "images_per_s"}
    assert len(results.read(out / "results.jsonl")) == 2


def test_a_changed_folder_is_refused_or_allowed_by_a_word(photos, tmp_path, capsys):
    run = [*RUN, f"data.root={photos}", f"out={tmp_path / 'run'}"]
    visrep(*run, "epochs=2", "snapshot_every=1")
    (photos / "03.png").rename(tmp_path / "03.png")
    assert "1 image fewer (03.png)" in refused(capsys, *run, "epochs=2", "resume=auto")
    (tmp_path / "03.png").rename(photos / "03.png")
    visrep(*run, "epochs=2", "resume=auto")
    for i in range(16, 24):
        picture(photos / f"{i}.png", i)
    err = refused(capsys, *run, "epochs=2", "resume=auto")
    assert "8 images more (16.png, 17.png, 18.png, ...)" in err and "resume_data=changed" in err
    visrep(*run, "epochs=2", "resume=auto", "resume_data=changed")  # 6 steps now instead of 4
    found = snapshot.latest(tmp_path / "run" / "snapshots")
    assert found is not None and found[0] == 6
    moved = photos.rename(tmp_path / "elsewhere")
    run[-2] = f"data.root={moved}"
    visrep(*run, "epochs=2", "resume=auto", "max_broken=0.5")


def test_a_memory_of_every_image_allows_no_other_images(photos, tmp_path, capsys):
    run = [*RUN, "method=npid_small", "batch_size=8", f"data.root={photos}", "steps=2"]
    run.append(f"out={tmp_path / 'run'}")
    visrep(*run)
    (photos / "03.png").unlink()
    err = refused(capsys, *run, "resume=auto", "resume_data=changed")
    assert "1 image fewer (03.png)" in err and "npid_small has a memory of every image" in err


def test_a_run_is_made_longer_by_a_word(photos, tmp_path, capsys):
    run = [*RUN, f"data.root={photos}", f"out={tmp_path / 'run'}"]
    visrep(*run, "steps=2")
    assert "extend=true makes the run longer" in refused(capsys, *run, "steps=4", "resume=auto")
    visrep(*run, "steps=4", "resume=auto", "extend=true")
    assert "4 steps instead of 2: its learning rate" in capsys.readouterr().out
    assert snapshot.latest(tmp_path / "run" / "snapshots")[0] == 4


def test_images_that_are_all_the_same_are_said_before_and_after(tmp_path, capsys):
    folder = tmp_path / "black"
    folder.mkdir()
    for i in range(8):
        Image.new("RGB", (32, 32)).save(folder / f"{i}.png")
    visrep(*RUN, "steps=2", f"data.root={folder}", f"out={tmp_path / 'run'}")
    text = capsys.readouterr().out
    assert "8 images of black were looked at, and all are the same picture" in text
    assert "so are the images, all alike" in text and "healthy" not in text
    assert json.loads((tmp_path / "run" / "health.json").read_text())["verdict"] == "collapsing"
