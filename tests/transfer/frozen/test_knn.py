"""`visrep knn` end to end on a small folder of images."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.small_data import composed, write_encoder, write_folder
from visrep import results
from visrep.config import instantiate
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.nn.knn import knn_predict
from visrep.transfer.frozen import features, knn, linear, low_shot, svm
from visrep.transfer.frozen.outputs import frozen_output
from visrep.weights.exemplar_file import save_exemplar


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
    assert file.extra == {"k": 5, "temperature": 0.1, "output": "pooled"}
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


def test_several_k_and_the_heads_own_output_at_once(root: Path) -> None:
    """NPID's protocol: the unit output of the head, votes of weight exp(s / T)."""
    weights = root.parent / "encoder.safetensors"
    write_encoder(weights)
    place = root.parent / "head"
    cfg = composed(
        "knn", root, f"out={place}", f"weights={weights}", "output=head", "k=[1,40,7,500]"
    )
    knn.main(cfg)
    found = {record.extra["k"]: record for record in results.read(place / "results.jsonl")}
    assert list(found) == [1, 7, 40, 500]
    assert {record.extra["output"] for record in found.values()} == {"head"}
    assert [record.config["k"] for record in found.values()] == [1, 7, 40, 500]
    net, preprocess, _ = frozen_output(weights, output="head")
    train, test = instantiate(cfg.data.train), instantiate(cfg.data.test)
    bank, queries = (features.extract(net, dataset, preprocess)[0] for dataset in (train, test))
    assert bank.shape[1] == 8 and torch.allclose(bank.norm(dim=1), torch.ones(len(bank)))
    for k, record in found.items():
        predicted = knn_predict(bank, train.labels, queries, k=k, temperature=0.1)
        assert record.value == pytest.approx(100 * predicted.eq(test.labels).double().mean())
    assert len({record.value for record in found.values()}) > 1


def test_commands_share_what_was_extracted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One extraction for all commands; other weights, data, output or transform: another."""
    weights = [root.parent / name for name in ("a.safetensors", "b.safetensors")]
    for seed, path in enumerate(weights):
        write_encoder(path, seed=seed)
    seen = []
    plain = features.extract

    def counted(net: torch.nn.Module, dataset: object, *args: object, **kwargs: object):
        seen.append(dataset.name)
        return plain(net, dataset, *args, **kwargs)

    monkeypatch.setattr(features, "extract", counted)
    numbers = iter(range(100))

    def extracted(module: object, command: str, *overrides: str, data: Path = root) -> list[str]:
        seen.clear()
        cfg = composed(command, data, f"out={root.parent / str(next(numbers))}", *overrides)
        OmegaConf.set_struct(cfg, False)
        module.main(cfg)
        return list(seen)

    both = ["data/train", "data/test"]
    first = f"weights={weights[0]}"
    assert extracted(knn, "knn", first) == both
    assert extracted(knn, "knn", first, "k=3", "temperature=0.2") == []
    assert extracted(linear, "linear", first, "epochs=1") == []
    assert extracted(svm, "svm", first, "costs=[1.0]") == []
    assert extracted(low_shot, "low_shot", first, "shots=[1]", "draws=2") == []
    assert extracted(knn, "knn", f"weights={weights[1]}") == both
    assert extracted(knn, "knn", first, "output=head") == both
    assert extracted(knn, "knn", first, "size=24") == both
    assert extracted(knn, "knn", first, "precision=bf16") == both
    assert extracted(knn, "knn", first, "init=random") == both
    other = write_folder(root.parent / "other", train=30)  # its test part is the same images
    assert extracted(knn, "knn", first, data=other) == ["other/train"]


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
        (["init=raw_pixels", "k=0"], "1 or more"),
        (["init=raw_pixels", "k=[5,0]"], "1 or more"),
        (["init=raw_pixels", "k=[]"], "1 or more"),
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
    with pytest.raises(ConfigError, match="images of violet, and data/train does not"):
        knn.main(cfg)
