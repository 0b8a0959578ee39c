"""Foreign files: opened by content, damaged ones refused in one line, nothing executed."""

import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict

import pytest
import torch

from visrep.errors import UserError
from visrep.weights.torch_files import Tree, float_tensor, read_tree, save_torch, tensors_in


def refused(path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_tree(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


CONTENT = {"state_dict": OrderedDict(a=torch.arange(12.0).reshape(3, 4)), "epoch": 3, "name": "x"}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a"])
def test_containers_are_told_by_content(tmp_path, zipped, name):
    path = tmp_path / name
    torch.save(CONTENT, path, _use_new_zipfile_serialization=zipped)
    tree = read_tree(path)
    assert tree.container == ("torch (zip)" if zipped else "torch (before 1.6)")
    assert tree.value["epoch"] == 3
    assert torch.equal(tree.value["state_dict"]["a"], CONTENT["state_dict"]["a"])


def test_what_is_no_file(tmp_path):
    refused(tmp_path / "absent.pth", "there is no file")
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not an ordinary file")
    (tmp_path / "empty.pth").touch()
    refused(tmp_path / "empty.pth", "is empty")


STRANGERS = {
    "page": (b"<!DOCTYPE html><html>not found</html>", "web page"),
    "spaced page": (b"\n  <html>", "web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle that torch did not write"),
    "text": (b"some words", "no checkpoint that visrep reads"),
    "json": (b'{"a": 1, "b": 2}', "no checkpoint that visrep reads"),
    "zeros": (bytes(1000), "no checkpoint that visrep reads"),
    "one byte": (b"P", "no checkpoint that visrep reads"),
    "like safetensors": (b"\x05\0\0\0\0\0\0\0{abc}", "is cut short or damaged"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_checkpoint(tmp_path, name):
    content, word = STRANGERS[name]
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    refused(path, word)


def archive(entries: dict[str, bytes], *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as opened:
        for name, content in entries.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def test_archives_that_torch_did_not_write(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(archive({"word/document.xml": b"<a/>"}))
    refused(path, "torch did not write it")
    path.write_bytes(archive({"a/data.pkl": b"x", "a/constants.pkl": b"x"}))
    refused(path, "TorchScript")


def test_a_zip_bomb_and_a_nested_zip_are_not_opened(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(archive({"a/data.pkl": b"x", "a/data/0": bytes(50_000_000)}, packed=True))
    assert path.stat().st_size < 100_000
    refused(path, "packed entries")
    inner = archive({"b/data.pkl": bytes(10)})
    path.write_bytes(archive({"a/data.pkl": inner}))
    refused(path, "is cut short or damaged")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path, zipped):
    path, proof = tmp_path / "model.pth", tmp_path / "executed"
    torch.save(
        {"conv1.weight": torch.zeros(2), "x": Evil(str(proof))},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    refused(path, "asks to run", "mkdir", "never")
    assert not proof.exists()
    path.write_bytes(pickle.dumps(Evil(str(proof))))
    refused(path, "a pickle that torch did not write")
    assert not proof.exists()


def test_a_pickled_module_is_refused_with_a_way_out(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    refused(path, "asks to run torch.nn.modules.linear.Linear", "state dict")


@pytest.mark.parametrize("zipped", [True, False])
def test_cuts_and_flips_end_in_one_line(tmp_path, zipped):
    path = tmp_path / "model.pth"
    torch.save(CONTENT, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    rng = random.Random(0)
    for size in [1, 4, 30, len(whole) - 1, *(rng.randrange(1, len(whole)) for _ in range(15))]:
        path.write_bytes(whole[:size])
        refused(path)
    for _ in range(100):
        changed = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            tree = read_tree(path)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        if zipped:  # its checksums cover what matters; the container of old has none
            assert torch.equal(tree.value["state_dict"]["a"], CONTENT["state_dict"]["a"])


def test_an_archive_without_checksums_is_read(tmp_path):
    path = tmp_path / "model.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_tree(path).value["epoch"] == 3


def tree_of(size: int = 1000) -> Tree:
    from pathlib import Path

    return Tree(Path("model.pth"), "torch (zip)", {}, size)


def test_only_dense_floats_that_the_file_can_hold_are_weights():
    half = torch.ones(2, 3, dtype=torch.bfloat16)
    assert float_tensor(tree_of(), "a", half).dtype == torch.float32
    transposed = torch.arange(6.0).reshape(2, 3).T
    own = float_tensor(tree_of(), "a", transposed)
    assert own.is_contiguous()
    assert torch.equal(own, transposed)
    assert own.untyped_storage().data_ptr() != transposed.untyped_storage().data_ptr()
    bad = {
        "no dense tensor": [torch.eye(2).to_sparse(), [1.0], None],
        "torch.int64": [torch.ones(2, dtype=torch.int64)],
        "claims more data": [
            torch.zeros(1).expand(1_000_000, 1_000_000),
            torch.zeros(2, device="meta"),
        ],
    }
    for message, values in bad.items():
        for value in values:
            with pytest.raises(UserError, match=message):
                float_tensor(tree_of(), "a", value)


def test_the_tensors_of_a_tree_are_found_once():
    a, b = torch.zeros(1), torch.ones(1)
    tree = {"state_dict": {"x.y": a}, "list": [1, {"z": b}], "text": "t"}
    assert [name for name, _ in tensors_in(tree)] == ["state_dict/x.y", "list/1/z"]
    bomb: list = [a]
    for _ in range(40):
        bomb = [bomb] * 40
    assert len(list(tensors_in(bomb))) <= 1
    endless: list = []
    endless.append(endless)
    assert list(tensors_in(endless)) == []


def test_a_failed_write_is_the_systems_error():
    class Full(io.BytesIO):
        def write(self, data):  # type: ignore[override]
            if self.tell() + len(data) > 1000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    with pytest.raises(OSError, match="No space left"):
        save_torch({"a": torch.zeros(10_000)}, Full())
