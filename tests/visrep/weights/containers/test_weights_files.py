"""Foreign files: opened by content, and what is no checkpoint is refused in one line."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from tests.oracles.refusals import refused
from visrep.weights.containers.weights_files import read_tree

TENSORS = {"a": torch.arange(12.0).reshape(3, 4)}
SAVE = {
    "torch (zip)": lambda path: torch.save(TENSORS, path),
    "torch (before 1.6)": lambda path: torch.save(
        TENSORS, path, _use_new_zipfile_serialization=False
    ),
    "safetensors": lambda path: save_file(TENSORS, path),
    "pickle": lambda path: path.write_bytes(
        pickle.dumps({name: tensor.numpy() for name, tensor in TENSORS.items()})
    ),
}


@pytest.mark.parametrize("container", SAVE)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a"])
def test_containers_are_told_by_content(tmp_path, container, name):
    SAVE[container](tmp_path / name)
    tree = read_tree(tmp_path / name)
    assert tree.container == container
    assert torch.equal(tree.value["a"].read(), TENSORS["a"])


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
