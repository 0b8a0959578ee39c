"""What the four commands begin with, each on small images."""

import logging
from pathlib import Path

import pytest
import torch

from tests.small_data import composed, count_reads, preprocess
from visrep.config import compose
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.transfer.frozen import knn, linear, low_shot, svm
from visrep.transfer.frozen.opening import open_frozen
from visrep.weights import load_encoder
from visrep.weights.exemplar_file import save_exemplar

COMMANDS = {
    "knn": (knn, ["k=3"]),
    "linear": (linear, ["epochs=1"]),
    "svm": (svm, ["costs=[1.0]"]),
    "low_shot": (low_shot, ["shots=[1]", "draws=1"]),
}


@pytest.mark.parametrize("output", ["pooled", "head", "layers"])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_weights_file_is_read_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, command: str, output: str
) -> None:
    weights = root.parent / "encoder.safetensors"
    module, settings = COMMANDS[command]
    given = [f"weights={weights}", f"out={root.parent / 'out'}", f"output={output}", *settings]
    reads = count_reads(monkeypatch)
    module.main(composed(command, root, *given))
    assert reads == [weights.name]


def test_exemplar_cnns_file_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = root.parent / "cnn.safetensors"
    prepared = Preprocess(size=32, resize=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    save_exemplar(weights, net=ExemplarNet(net="small"), preprocess=prepared, source={})
    reads = count_reads(monkeypatch)
    opening = open_frozen(
        composed("svm", root, f"weights={weights}", f"out={root.parent / 'out'}", "output=layers")
    )
    assert reads == [weights.name] and opening.preprocess == prepared


def test_net_run_data_and_features(root: Path) -> None:
    weights = root.parent / "encoder.safetensors"
    opening = open_frozen(composed("svm", root, f"weights={weights}", f"out={root.parent / 'out'}"))
    assert opening.sha256 == load_encoder(weights).sha256
    assert opening.preprocess == preprocess()
    assert (opening.train.name, opening.test.name) == ("data/train", "data/test")
    train, test = opening.features()
    assert (train.shape, test.shape) == ((60, 32), (30, 32))
    assert (opening.run.out / "config.yaml").exists()


def test_pixels_are_prepared_as_the_file_says_or_left_as_they_are(root: Path) -> None:
    given = ["init=raw_pixels", f"out={root.parent / 'a'}"]
    plain = open_frozen(composed("knn", root, *given), raw_pixels=True)
    assert (plain.net, plain.sha256) == (None, "none")
    train, _ = plain.features()
    torch.testing.assert_close(train, plain.train.images.flatten(1).float() / 255)
    given = ["init=raw_pixels", f"out={root.parent / 'b'}"]
    given += [f"weights={root.parent / 'encoder.safetensors'}"]
    opening = open_frozen(composed("knn", root, *given), raw_pixels=True)
    assert opening.preprocess == preprocess()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistake_in_the_weights_leaves_no_folder(root: Path, command: str) -> None:
    out = root.parent / "never"
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        COMMANDS[command][0].main(
            composed(command, root, f"weights={root.parent / 'gone.safetensors'}", f"out={out}")
        )
    assert not out.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_data_is_asked_for(command: str) -> None:
    with pytest.raises(ConfigError, match="data"):
        compose(command, ["weights=x", "out=x"])


def test_broken_images_leave_features_labels_and_counts_alike(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Extracted, from the cache, and as pixels; each time they are named."""
    monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
    broken = [min((root / "train/green").iterdir()), min((root / "test/red").iterdir())]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    given = ["max_broken=0.05", f"weights={root.parent / 'encoder.safetensors'}"]
    found = []
    for run, pixels in enumerate((False, False, True)):
        cfg = composed("knn", root, *given, f"out={root.parent / f'out{run}'}")
        for part in ("train", "test"):
            cfg.data[part].update({"memory_limit": 0, "max_broken": 0.5})
        opening = open_frozen(cfg, raw_pixels=pixels)
        labels = opening.train.labels
        monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
        caplog.clear()
        bank, queries = opening.features()
        assert len(bank) == len(opening.train) == 59 and len(queries) == len(opening.test) == 29
        assert opening.train.labels.tolist() == [*labels[:20].tolist(), *labels[21:].tolist()]
        assert all(path.name in caplog.text for path in broken)
        assert broken[0].name not in [opening.train.file(i)[6:] for i in range(20, 40)]
        found.append(bank)
    assert torch.equal(found[0], found[1])
    cfg.out, cfg.max_broken = str(root.parent / "few"), 0.02  # the cache does not know of it
    with pytest.raises(UserError, match="1 of 30 images cannot be read"):
        open_frozen(cfg).features()


def test_a_class_whose_images_cannot_be_read_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (root / "test/red").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    given = ["max_broken=0.5", f"out={root.parent / 'lost'}"]
    cfg = composed("knn", root, *given, f"weights={root.parent / 'encoder.safetensors'}")
    for part in ("train", "test"):
        cfg.data[part].update({"memory_limit": 0, "max_broken": 0.5})
    opening = open_frozen(cfg)
    monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
    opening.features()
    assert f"no image of red in {opening.test.name} can be read" in caplog.text
