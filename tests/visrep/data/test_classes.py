"""Classes are matched by name, whatever their order is."""

import logging
import unicodedata

import pytest
import torch

from visrep.data.classes import in_classes, some
from visrep.data.dataset import MemoryImages
from visrep.errors import ConfigError


def labelled(classes: list[str], labels: list[int], name: str = "d/val") -> MemoryImages:
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    return MemoryImages(
        name=name,
        images=images.expand(-1, 3, 2, 2).contiguous(),
        labels=torch.tensor(labels),
        classes=classes,
    )


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
    return caplog


def test_equal_classes_are_the_same_object(said: pytest.LogCaptureFixture) -> None:
    data = labelled(["a", "b"], [0, 1])
    assert in_classes(data, ["a", "b"], of="d/train") is data and not said.text


def test_a_class_that_is_missing_moves_no_label(said: pytest.LogCaptureFixture) -> None:
    data = labelled(["blue", "red"], [0, 1, 1])
    mapped = in_classes(data, ["blue", "green", "red"], of="d/train")
    assert mapped.labels.tolist() == [0, 2, 2] and mapped.classes == ["blue", "green", "red"]
    assert torch.equal(mapped.images, data.images) and mapped.fingerprint == data.fingerprint
    assert "d/val has no image of green, of the 3 classes of d/train" in said.text
    assert "another order" not in said.text


def test_a_class_without_images_is_missing_too(said: pytest.LogCaptureFixture) -> None:
    mapped = in_classes(labelled(["a", "b"], [1, 1]), ["a", "b"], of="d/train")
    assert mapped.labels.tolist() == [1, 1] and "no image of a," in said.text


def test_another_order_is_told(said: pytest.LogCaptureFixture) -> None:
    mapped = in_classes(labelled(["b", "a"], [0, 1]), ["a", "b"], of="d/train")
    assert mapped.labels.tolist() == [1, 0] and "another order" in said.text


def test_a_class_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"images of Red, and d/train does not .*but it has red"):
        in_classes(labelled(["Red", "blue"], [0, 1]), ["blue", "red"], of="d/train")
    # One without images has nothing that could be counted wrong.
    mapped = in_classes(labelled(["blue", "odd"], [0, 0]), ["blue"], of="d/train")
    assert mapped.labels.tolist() == [0, 0]


def test_two_spellings_of_an_umlaut_are_one_name() -> None:
    composed, apart = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))
    assert composed != apart
    mapped = in_classes(labelled([apart, "a"], [0, 1]), ["a", composed], of="d/train")
    assert mapped.labels.tolist() == [1, 0]
    with pytest.raises(ConfigError, match="two classes called"):
        in_classes(labelled([apart, composed], [0, 1]), ["a"], of="d/train")


def test_some_names_and_the_number_of_the_rest() -> None:
    assert some(["a", "b"]) == "a, b" and some(list("abcdefg"), 2) == "a, b and 5 more"
