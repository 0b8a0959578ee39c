"""`visrep knn` end to end on a small folder of images."""

from pathlib import Path

import pytest

from tests.small_data import composed, write_encoder, write_folder
from transfer import knn
from visrep import results
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.weights.exemplar import save_exemplar


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "cache"))
    return write_folder(tmp_path / "data")


def run(root: Path, out: str, *overrides: str) -> results.Record:
    place = root.parent / out
    knn.main(composed("knn", root, f"out={place}", "k=5", *overrides))
    (record,) = results.read(place / "results.jsonl")
    return record


def test_records_of_a_file_its_random_twin_and_raw_pixels(root: Path) -> None:
    weights = root.parent / "encoder.safetensors"
    sha256 = write_encoder(weights)
    file = run(root, "a", f"weights={weights}")
    assert (file.task, file.metric, file.init) == ("knn", "top1", "pretrained")
    assert (file.weights, file.dataset) == (sha256, "data/test")
    assert file.extra == {"k": 5, "temperature": 0.1}
    fresh = run(root, "b", f"weights={weights}", "init=random")
    assert fresh.weights != sha256
    assert fresh.extra["bn"] == "initial"
    again = run(root, "c", f"weights={weights}", "init=random", "bn=reestimated")
    assert again.weights not in (sha256, fresh.weights)
    pixels = run(root, "d", "init=raw_pixels")
    assert pixels.weights == "none"
    # The class is the brightest channel: neighbours in pixel space know it far above 1 in 3.
    assert pixels.value > 60
    assert all(0 <= record.value <= 100 for record in (file, fresh, again))


def test_exemplar_cnns_own_net_is_measured_like_any_other(root: Path, tmp_path: Path) -> None:
    net = ExemplarNet(net="small")
    preprocess = Preprocess(size=32, resize=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    weights = tmp_path / "exemplar.safetensors"
    sha256 = save_exemplar(weights, net=net, preprocess=preprocess, source={"method": "exemplar"})
    file = run(root, "a", f"weights={weights}")
    assert (file.weights, file.init) == (sha256, "pretrained")
    fresh = run(root, "b", f"weights={weights}", "init=random")
    assert fresh.weights != sha256


def test_bank_that_is_the_test_set_gives_100_at_k_1(root: Path, tmp_path: Path) -> None:
    cfg = composed("knn", root, f"out={tmp_path / 'same'}", "init=raw_pixels", "k=1")
    cfg.data.train.split = "test"
    knn.main(cfg)
    (record,) = results.read(tmp_path / "same" / "results.jsonl")
    assert record.value == 100


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["init=imagenet"], "init=imagenet: choose"),
        (["init=raw_pixels", "bn=frozen"], "bn=frozen: choose"),
        (["init=raw_pixels", "bn=reestimated"], "is for init=random"),
        (["init=random"], "give a value: weights"),
        (["init=raw_pixels", "k=0"], "must be above 0"),
    ],
)
def test_wrong_settings_leave_no_folder(
    root: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        knn.main(composed("knn", root, f"out={tmp_path / 'never'}", *overrides))
    assert not (tmp_path / "never").exists()


def test_data_without_test_set_or_of_other_classes(root: Path, tmp_path: Path) -> None:
    cfg = composed("knn", root, f"out={tmp_path / 'x'}", "init=raw_pixels")
    cfg.data.test = None
    with pytest.raises(ConfigError, match="without a test set"):
        knn.main(cfg)
    (root / "test" / "violet").mkdir()
    torch_image = next((root / "test" / "red").iterdir())
    (root / "test" / "violet" / "0.png").write_bytes(torch_image.read_bytes())
    cfg = composed("knn", root, f"out={tmp_path / 'y'}", "init=raw_pixels")
    with pytest.raises(ConfigError, match="different classes"):
        knn.main(cfg)
