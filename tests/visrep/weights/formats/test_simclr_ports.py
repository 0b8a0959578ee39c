"""What the ports of SimCLR to PyTorch leave out of their files; the rest is in test_selfsup.py."""

import argparse

import pytest
import torch

from tests.oracles.checkpoints import simclr
from visrep.errors import UserError
from visrep.weights import read_weights
from visrep.weights.foreign import Choice


def read(tmp_path, content, **choice):
    torch.save(content, tmp_path / "m.ckpt")
    return read_weights(tmp_path / "m.ckpt", Choice(**choice))


@pytest.mark.parametrize("case", [simclr.sthalles, simclr.spijkervet])
def test_a_data_set_is_a_size_where_images_are_not_normalised(tmp_path, case):
    file = read(tmp_path, case().content, input="cifar10")
    assert (file.preprocess["size"], file.preprocess["resize"]) == (32, 32)
    assert (file.preprocess["mean"], file.preprocess["std"]) == ([0.0] * 3, [1.0] * 3)
    assert "note" not in file.source


@pytest.mark.parametrize(("data", "size"), [("imagenet", (224, 246)), ("cifar10", (32, 35))])
def test_the_input_of_bolts_is_that_of_its_data_set(tmp_path, data, size):
    stem = {"stem": "cifar"} if data == "cifar10" else {}
    file = read(tmp_path, simclr.bolts(data, **stem).content)
    assert (file.preprocess["size"], file.preprocess["resize"]) == size
    assert file.dropped["of a classifier that was not trained"] == 2


def test_a_stem_of_bolts_that_no_net_of_ours_has_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"7x7 convolution with no max-pool \(maxpool1=False\)"):
        read(tmp_path, simclr.bolts_stl10())
    content = simclr.bolts("cifar10", stem="cifar").content
    settings = argparse.Namespace(dataset="cifar10", maxpool1=True)
    with pytest.raises(UserError, match="3x3 convolution with a max-pool"):
        read(tmp_path, {**content, "hyper_parameters": settings}, stem="cifar")


def test_a_3x3_stem_is_asked_for_where_the_file_does_not_say_it(tmp_path):
    """The file of a fork, and a state dict alone."""
    small = simclr.bolts(None, stem="cifar").content
    forks = [small]
    for prefix, head in (("backbone.", "backbone.fc."), ("encoder.", "projector.")):
        net = {k.replace("encoder.", prefix): t for k, t in small.items() if "encoder.fc" not in k}
        net = {k: t for k, t in net.items() if not k.startswith("projection.")}
        forks.append(net | {f"{head}{i}.weight": torch.ones(32, 32) for i in (0, 2)})
    for content in forks:
        with pytest.raises(UserError, match="give stem=cifar"):
            read(tmp_path, content)
        assert read(tmp_path, content, stem="cifar").backbone["stem"] == "cifar"
