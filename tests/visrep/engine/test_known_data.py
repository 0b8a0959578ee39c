"""When a run may go on with what is there now."""

import logging
from pathlib import Path

import pytest

from visrep.engine import known_data
from visrep.engine.known_data import KnownData, compare_and_keep
from visrep.errors import ConfigError


def record(names: str = "abc", classes: tuple[str, ...] | None = ("x", "y")) -> dict:
    return {
        "count": len(names),
        "classes": None if classes is None else list(classes),
        "kind": "pixels",
        "fingerprint": f"{names}{classes}",
        "images": dict.fromkeys(names, "1"),
    }


def begin(out: Path) -> None:
    assert not compare_and_keep(out, KnownData(record()), begun=False)


def test_the_same_goes_on_and_a_change_is_refused_with_what_to_do(tmp_path: Path) -> None:
    begin(tmp_path)
    assert not compare_and_keep(tmp_path, KnownData(record()), begun=True)
    with pytest.raises(ConfigError, match=r"1 image fewer \(c\).*by resume_data=changed"):
        compare_and_keep(tmp_path, KnownData(record("ab")), begun=True)
    assert not compare_and_keep(tmp_path, KnownData(record()), begun=True)  # nothing was lost


def test_the_word_allows_images_and_only_images(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(known_data.log, "propagate", True)
    begin(tmp_path)
    more = KnownData(record("abcd"), word="changed")
    with pytest.raises(ConfigError, match="a memory of every image"):
        fixed = KnownData(record("abcd"), word="changed", fixed="it has a memory of every image")
        compare_and_keep(tmp_path, fixed, begun=True)
    with caplog.at_level(logging.WARNING):
        assert compare_and_keep(tmp_path, more, begun=True)
    assert "goes on with other data: 1 image more (d)" in caplog.text
    assert not compare_and_keep(tmp_path, KnownData(record("abcd")), begun=True)
    renamed = record("abcd", ("x", "z"))
    with pytest.raises(ConfigError, match="class renamed: y -> z.*an output for each class"):
        compare_and_keep(tmp_path, KnownData(renamed, word="changed"), begun=True)
    unlabelled = KnownData(renamed, word="changed", classes_matter=False)
    assert compare_and_keep(tmp_path, unlabelled, begun=True)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"fingerprint": 3}'])
def test_a_folder_that_does_not_know_its_data_says_so(
    tmp_path: Path, monkeypatch, caplog, content: str | None
) -> None:
    monkeypatch.setattr(known_data.log, "propagate", True)
    if content is not None:
        (tmp_path / known_data.FILE).write_text(content)
    assert not compare_and_keep(tmp_path, KnownData(record()), begun=True)
    assert "taken to be those that it was begun with" in caplog.text
    assert known_data.read(tmp_path / known_data.FILE) == record()


def test_a_word_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="resume_data=yes: choose same or changed"):
        KnownData(record(), word="yes")
