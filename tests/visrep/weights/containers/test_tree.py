"""What a tree says of its tensors, and which of them are weights."""

import pytest
import torch

from tests.oracles.trees import tree as in_memory
from visrep.errors import UserError
from visrep.weights.containers.tree import float_tensor, tensors_in
from visrep.weights.containers.weights_files import read_tree


def test_only_dense_floats_that_the_file_can_hold_are_weights(tmp_path):
    half = torch.ones(2, 3, dtype=torch.bfloat16)
    assert float_tensor(*at(half)).dtype == torch.float32
    transposed = torch.arange(6.0).reshape(2, 3).T
    assert float_tensor(*at(transposed)).is_contiguous()
    torch.save(
        {"a": torch.eye(2).to_sparse(), "b": torch.zeros(2, device="meta"), "c": [1.0]},
        tmp_path / "a.pth",
    )
    tree = read_tree(tmp_path / "a.pth")
    bad = {
        "no dense tensor": [(tree, "a", tree.value[name]) for name in ("a", "b", "c")],
        "torch.int64": [at(torch.ones(2, dtype=torch.int64))],
        "claims more data": [at(torch.zeros(1).expand(1_000_000, 1_000_000))],
    }
    for message, cases in bad.items():
        for case in cases:
            with pytest.raises(UserError, match=message):
                float_tensor(*case)


def at(tensor: torch.Tensor):
    whole = in_memory({"a": tensor}, size=1000)
    return whole, "a", whole.value["a"]


def test_the_tensors_of_a_tree_are_found_once():
    a, b = torch.zeros(1), torch.ones(1)
    tree = in_memory({"state_dict": {"x.y": a}, "list": [1, {"z": b}], "text": "t"}).value
    assert [name for name, _ in tensors_in(tree)] == ["state_dict/x.y", "list/1/z"]
    bomb: list = [tree]
    for _ in range(40):
        bomb = [bomb] * 40
    assert len(list(tensors_in(bomb))) <= 1
    endless: list = []
    endless.append(endless)
    assert list(tensors_in(endless)) == []
