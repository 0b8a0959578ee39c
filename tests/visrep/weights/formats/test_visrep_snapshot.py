"""An interrupted pretraining yields its encoder: its snapshots are read as encoder files are."""

import pytest
import torch

from visrep.cli import main
from visrep.errors import UserError
from visrep.weights.reading import read_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("snapshot") / "run"
    arguments = ["method=simclr_small", "backbone=resnet18_small", "backbone.width=0.0625"]
    arguments += ["data=scenes", "batch_size=8", "steps=2", "snapshot_every=1", "knn.times=0"]
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", *arguments, "workers=0", "threads=1", "optim.warmup_epochs=0",
              f"out={out}"])  # fmt: skip
    assert not caught.value.code
    return out


def test_the_last_snapshot_is_the_encoder_file(run):
    whole = read_weights(run / "encoder.safetensors")
    file = read_weights(run / "snapshots/step-000000002.pt")
    assert file.kind == "visrep snapshot" and file.sha256 == whole.sha256
    assert file.preprocess == whole.preprocess and file.head == whole.head
    first = read_weights(run / "snapshots/step-000000001.pt")
    assert not torch.equal(first.part("")["conv1.weight"], whole.part("")["conv1.weight"])


def test_a_run_folder_stands_for_its_encoder_else_its_newest_whole_snapshot(run):
    encoder = run / "encoder.safetensors"
    assert read_weights(run).kind == "visrep encoder"
    moved = encoder.rename(run / "moved")
    last = run / "snapshots/step-000000002.pt"
    content = last.read_bytes()
    try:
        assert read_weights(run).source["method"] == "simclr_small"
        last.write_bytes(content[: len(content) // 2])
        first = read_weights(run / "snapshots/step-000000001.pt")
        assert read_weights(run).sha256 == first.sha256
    finally:
        last.write_bytes(content)
        moved.rename(encoder)


def test_a_snapshot_away_from_its_run_is_refused(run, tmp_path):
    alone = tmp_path / "a/step-000000001.pt"
    alone.parent.mkdir()
    alone.write_bytes((run / "snapshots/step-000000001.pt").read_bytes())
    with pytest.raises(UserError, match=r"encoder\.json.*encoder\.safetensors"):
        read_weights(alone)


def test_a_snapshot_that_changed_after_it_was_sealed_is_refused(run):
    """A tensor's bytes, which no CRC of the reader covers: the run goes on from the one before."""
    last, encoder = run / "snapshots/step-000000002.pt", run / "encoder.safetensors"
    content, moved = last.read_bytes(), encoder.rename(run / "moved")
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    try:
        last.write_bytes(changed)
        with pytest.raises(UserError, match="its content has changed since it was written"):
            read_weights(last)
        first = read_weights(run / "snapshots/step-000000001.pt")
        assert read_weights(run).sha256 == first.sha256
    finally:
        last.write_bytes(content)
        moved.rename(encoder)
