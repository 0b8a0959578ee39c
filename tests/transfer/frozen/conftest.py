"""A folder of small images beside an encoder file, and a cache of their own."""

from pathlib import Path

import pytest

from tests.small_data import write_encoder, write_folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "cache"))
    write_encoder(tmp_path / "encoder.safetensors")
    return write_folder(tmp_path / "data")
