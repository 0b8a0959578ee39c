"""The kNN monitor: one number, however many processes share the work."""

import logging
from pathlib import Path

import pytest
import torch
from torchvision.io import write_png

from tests.small_data import pictures, preprocess, tiny_net
from visrep import dist
from visrep.data.dataset import ImageFiles, MemoryImages
from visrep.errors import UserError
from visrep.nn.knn import knn_predict
from visrep.pretrain.monitor import even, knn_monitor, together

SETTINGS = {"times": 1, "k": 3, "temperature": 0.1, "max_broken": 0.0}
CLASSES = ["blue", "green", "red"]


def memory(count: int, seed: int, name: str) -> MemoryImages:
    images, labels = pictures(count, seed=seed)
    return MemoryImages(name=name, images=images, labels=labels, classes=CLASSES)


def monitor(train, test, *, bank: int = 100, **settings):
    return knn_monitor(
        lambda: test,
        encoder=settings.pop("encoder", None) or tiny_net(),
        train=train,
        preprocess=preprocess(),
        bank=bank,
        **(SETTINGS | settings),
    )


def test_it_is_knn_of_a_drawn_part_of_the_training_images() -> None:
    train, test = memory(40, 1, "d/train"), memory(15, 2, "d/test")
    found = monitor(train, test, bank=11).evaluate()["knn"]
    net = tiny_net().eval()
    with torch.no_grad():
        bank, queries = (net(preprocess()(part.images)) for part in (train, test))
    rows = even(40, 11)
    assert len(rows) == 11 and rows[0] == 0 and rows[-1] == 39
    predicted = knn_predict(bank[rows], train.labels[rows], queries, k=3, temperature=0.1)
    assert found == pytest.approx(100 * predicted.eq(test.labels).double().mean().item())
    assert 20 < found <= 100


def test_a_class_that_test_lacks_is_counted_by_name() -> None:
    images, labels = pictures(30, seed=1)
    train = MemoryImages(name="d/train", images=images, labels=labels, classes=CLASSES)
    keep = labels != 0  # the same images without blue: each is its own nearest neighbour
    test = MemoryImages(
        name="d/val", images=images[keep], labels=labels[keep] - 1, classes=["green", "red"]
    )
    assert monitor(train, test, k=1).evaluate() == {"knn": 100.0}


def written(folder: Path, count: int, seed: int) -> ImageFiles:
    folder.mkdir()
    images, labels = pictures(count, seed=seed)
    for i, image in enumerate(images):
        write_png(image, str(folder / f"{i}.png"))
    files = [f"{i}.png" for i in range(count)]
    return ImageFiles(name=folder.name, root=folder, files=files, labels=labels, classes=CLASSES)


def test_broken_images_are_left_out_and_too_many_are_a_failure(tmp_path: Path) -> None:
    train, test = written(tmp_path / "train", 20, 1), written(tmp_path / "test", 12, 2)
    for path in (train.root / "3.png", test.root / "0.png", test.root / "1.png"):
        path.write_bytes(b"no image")
    found = monitor(train, test, max_broken=0.2, workers=1).evaluate()["knn"]
    assert (found * 10 / 100) == pytest.approx(round(found * 10 / 100)), "of ten images"
    with pytest.raises(UserError, match="cannot be read"):
        monitor(train, test, max_broken=0.1).evaluate()


def test_what_it_cannot_measure_turns_it_off_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
    train = memory(9, 1, "d/train")
    strange = MemoryImages(
        name="d/test", images=train.images, labels=train.labels, classes=["blue", "green", "odd"]
    )
    assert monitor(train, strange) is None and "kNN monitor: off: " in caplog.text
    assert "images of odd" in caplog.text
    caplog.clear()

    def missing() -> None:
        raise UserError("there is no val/")

    rest = {"encoder": tiny_net(), "train": train, "preprocess": preprocess(), "bank": 9}
    assert knn_monitor(missing, **rest, **SETTINGS) is None
    assert "there is no val/" in caplog.text and len(caplog.records) == 1
    assert monitor(train, None) is None


def _shared(count: int) -> tuple[float, list[float]]:
    net = tiny_net()
    own = float(dist.rank()) / 8
    net.bn1.running_mean.add_(own)  # as after training with statistics of its own
    hook = monitor(memory(40, 1, "d/train"), memory(count, 2, "d/test"), encoder=net)
    return hook.evaluate()["knn"], net.bn1.running_mean[:1].tolist()


@pytest.mark.parametrize("count", [15, 1])
def test_two_processes_share_the_work_of_the_first_ones_net(two_processes, count: int) -> None:
    alone = monitor(memory(40, 1, "d/train"), memory(count, 2, "d/test")).evaluate()["knn"]
    (first, mean_first), (second, mean_second) = two_processes(_shared, count)
    assert first == second == pytest.approx(alone)
    assert mean_first == [0.0] and mean_second == [0.125], "each has its own again"


def _one_fails() -> str:
    def work() -> None:
        if dist.rank() == 1:
            raise UserError("my disk is gone")

    try:
        together(work, "cpu")
    except UserError as error:
        return str(error)
    return "nothing"


def test_all_processes_fail_when_one_does(two_processes) -> None:
    first, second = two_processes(_one_fails)
    assert "1 other processes" in first and second == "my disk is gone"
