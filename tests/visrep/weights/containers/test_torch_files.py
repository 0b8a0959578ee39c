"""torch's files: every tensor as torch reads it, damage in one line, nothing executed."""

import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict

import pytest
import torch

from tests.oracles.refusals import refused
from visrep.errors import UserError
from visrep.weights.containers.pickle_records import Inert
from visrep.weights.containers.torch_files import save_torch
from visrep.weights.containers.tree import float_tensor, tensors_in
from visrep.weights.containers.weights_files import read_tree

CONTENT = {"state_dict": OrderedDict(a=torch.arange(12.0).reshape(3, 4)), "epoch": 3, "name": "x"}


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
    refused(path, "asks to run", "mkdir", "never")
    assert not proof.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_becomes_a_record(tmp_path, zipped):
    path = tmp_path / "model.pth"
    linear = torch.nn.Linear(2, 3)
    torch.save({"net": linear}, path, _use_new_zipfile_serialization=zipped)
    tree = read_tree(path)
    record = tree.value["net"]
    assert (type(record), record.name) == (Inert, "torch.nn.modules.linear.Linear")
    assert torch.equal(
        float_tensor(tree, "w", record.state["_parameters"]["weight"]), linear.weight
    )
    assert [name for name, _ in tensors_in(tree.value)] == [
        "net/_parameters/weight",
        "net/_parameters/bias",
    ]


VIEWED = torch.arange(40.0).reshape(5, 8)
KINDS = {
    "transposed": VIEWED.T,
    "a row": VIEWED[3],
    "a column": VIEWED[:, 3],
    "every second": VIEWED[1::2, 1::2],
    "repeated": torch.arange(3.0).expand(4, 3),
    "nothing": torch.zeros(0, 3),
    "a single number": torch.tensor(1.5),
    "a parameter": torch.nn.Parameter(torch.ones(2)),
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    **{
        str(dtype).removeprefix("torch."): torch.tensor([0, 1, 3]).to(dtype)
        for dtype in (
            *(torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16),
            *(torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn),
            *(torch.uint16, torch.uint32),
        )
    },
}


@pytest.mark.parametrize("zipped", [True, False])
def test_every_kind_of_tensor_is_read_as_torch_reads_it(tmp_path, zipped):
    path = tmp_path / "model.pth"
    strange = ("float8_e4m3fn", "uint16", "uint32")  # the older container has no place for these
    kinds = {k: t for k, t in KINDS.items() if zipped or k not in strange}
    torch.save(kinds, path, _use_new_zipfile_serialization=zipped)
    read = read_tree(path).value
    for name, theirs in torch.load(path, weights_only=True).items():
        ours = read[name].read()
        assert (read[name].shape, read[name].dtype) == (tuple(theirs.shape), theirs.dtype), name
        assert torch.equal(
            ours.double() if ours.dtype.itemsize == 1 else ours,
            theirs.double() if ours.dtype.itemsize == 1 else theirs,
        ), name
        assert ours.is_contiguous(), name
        assert ours.untyped_storage().nbytes() == ours.numel() * ours.element_size(), name


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_the_byte_order_of_the_machine_that_wrote_it(tmp_path, byteorder):
    content = {"a": torch.arange(5.0), "b": torch.arange(3), "c": torch.ones(2, dtype=torch.int8)}
    path, turned = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save(content, path)
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(turned, "w") as after:
        for name in before.namelist():
            data = before.read(name)
            if name.endswith("/byteorder"):
                data = byteorder.encode()
            if byteorder == "big" and "/data/" in name:
                width = {"0": 4, "1": 8, "2": 1}[name.rpartition("/")[2]]
                data = b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
            after.writestr(name, data)
    read = read_tree(turned).value
    assert all(torch.equal(read[name].read(), content[name]) for name in content)


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
            for name, value in tensors_in(tree.value):
                read = float_tensor(tree, name, value)
                if zipped:  # its checksums cover what matters; the container of old has none
                    assert torch.equal(read, CONTENT["state_dict"]["a"])
        except UserError as error:
            assert "\n" not in str(error)


def test_an_archive_without_checksums_is_read(tmp_path):
    path = tmp_path / "model.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_tree(path).value["epoch"] == 3


def test_a_failed_write_is_the_systems_error():
    class Full(io.BytesIO):
        def write(self, data):  # type: ignore[override]
            if self.tell() + len(data) > 1000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    with pytest.raises(OSError, match="No space left"):
        save_torch({"a": torch.zeros(10_000)}, Full())
