"""What of OpenMMLab's checkpoints is refused, and what their configs say."""

import pytest
import torch

from tests.oracles.checkpoints.frameworks import narrow, state_of
from visrep.errors import UserError
from visrep.weights import read_weights


@pytest.mark.parametrize(
    "state",
    [
        {"backbone.conv1.weight": torch.ones(4, 2, 7, 7)},
        {"sobel_layer.sobel.0.weight": torch.ones(1, 3, 1, 1)},
    ],
)
def test_a_net_behind_a_sobel_filter_is_refused(tmp_path, state):
    state = state_of(narrow(), "backbone.") | state
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "epoch_200.pth")
    with pytest.raises(UserError, match="two edge maps of a Sobel filter"):
        read_weights(tmp_path / "epoch_200.pth")


@pytest.mark.parametrize(
    ("config", "mean"),
    [
        ("", 0.485),
        ("mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2]", 0.5),
        ("mean=[127.5, 127.5, 127.5],\n    std=[51, 51, 51]", 0.5),
        # Two of them: which is the input's is not known, so neither is taken.
        ("mean=[1, 1, 1], std=[1, 1, 1]\nmean=[2, 2, 2], std=[1, 1, 1]", 0.485),
        ("mean=MEAN, std=STD", 0.485),
    ],
)
def test_the_input_is_read_from_the_config(tmp_path, config, mean):
    content = {"meta": {"cfg": config}, "state_dict": state_of(narrow(), "backbone.")}
    torch.save(content, tmp_path / "epoch_200.pth")
    assert read_weights(tmp_path / "epoch_200.pth").preprocess["mean"][0] == mean


def test_a_squeeze_and_excite_net_is_named(tmp_path):
    state = state_of(narrow(), "backbone.") | {"backbone.layer1.0.se_layer.w": torch.ones(2)}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "epoch_200.pth")
    with pytest.raises(UserError, match=r"unknown layer1\.0\.se_layer\.w"):
        read_weights(tmp_path / "epoch_200.pth")
