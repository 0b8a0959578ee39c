"""One format matches, or the error says what was found."""

import pytest
import torch

from tests.oracles.checkpoints import tf
from tests.oracles.trees import tree
from visrep.errors import UserError
from visrep.weights import formats
from visrep.weights.containers.pickle_records import Inert
from visrep.weights.containers.torch_files import read_tree
from visrep.weights.formats import FORMATS, Format, identify, prefixes

W = torch.zeros(1)


def test_no_match_lists_the_prefixes_with_counts():
    state = {f"module.encoder_q.layer{i}.weight": W for i in range(5)}
    state |= {"module.encoder_k.conv1.weight": W, "module.queue": W}
    with pytest.raises(UserError) as caught:
        identify(tree({"epoch": 1, "state_dict": state}))
    message = str(caught.value)
    assert "model.pth fits none of the known formats" in message
    assert "state_dict/module.encoder_q. 5" in message
    assert "state_dict/module.encoder_k. 1" in message
    assert "state_dict/module.queue 1" in message
    assert "torchvision state dict" in message


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({}, "no tensor"),
        ({"a": 1}, "no tensor"),
        ("text", "no tensor"),
        (W, "a single tensor 1"),
        ([W, W], "0 1, 1 1"),
        ({"a\n\x1b[31mb": W}, "a??[31mb 1"),
        ({"x" * 200: W}, "x" * 57 + "... 1"),
        ({f"p{i}.a": W for i in range(30)}, "and 22 more prefixes"),
        ({1: {2: W}}, "1/2 1"),
        (Inert("Net", state={"x": Inert("Frozen", ({"w": 1},))}), "no tensor"),
    ],
)
def test_anything_can_be_described_in_one_line(value, found):
    assert found in prefixes(tree(value))
    with pytest.raises(UserError) as caught:
        identify(tree(value))
    assert "\n" not in str(caught.value)


def test_several_matches_are_an_error(monkeypatch):
    state = {"conv1.weight": W, "layer1.0.conv1.weight": W}
    assert identify(tree(state)).name == "torchvision state dict"
    other = Format("another", lambda _: True, FORMATS[0].read)
    monkeypatch.setattr(formats, "FORMATS", [*FORMATS, other])
    with pytest.raises(UserError, match="several formats, torchvision state dict and another"):
        identify(tree(state))
    assert identify(tree({"b": W})).name == "another"


def test_a_file_that_says_it_is_ours_is_ours():
    state = {"conv1.weight": W, "layer1.0.conv1.weight": W}
    assert identify(tree(state, format="visrep-encoder/1")).name == "visrep encoder"
    assert identify(tree(state, format="pt")).name == "torchvision state dict"


@pytest.mark.parametrize("case", tf.CASES)
def test_one_format_has_what_tensorflow_and_haiku_save(tmp_path, case):
    tree = read_tree(tf.CASES[case](tmp_path / "checkpoint"))
    matches = [kind.name for kind in FORMATS if kind.recognise(tree)]
    assert len(matches) == 1
