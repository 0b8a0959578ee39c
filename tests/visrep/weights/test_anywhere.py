"""A ResNet is found wherever it lies; of several, none is taken without a word."""

from collections import OrderedDict

import pytest
import torch
import torchvision

from visrep.errors import UserError
from visrep.weights.containers.torch_files import save_torch
from visrep.weights.foreign import Choice
from visrep.weights.reading import read_weights


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return torchvision.models.resnet18(width_per_group=64).state_dict()


def body(net):
    return {name: tensor for name, tensor in net.items() if not name.startswith("fc.")}


def under(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def read(tmp_path, content, **choice):
    path = tmp_path / "file.pth"
    with open(path, "wb") as stream:
        save_torch(content, stream)
    return read_weights(path, Choice(**choice))


def same(file, net):
    wanted = {name for name in body(net) if not name.endswith("num_batches_tracked")}
    part = file.part("")
    return set(part) == wanted and all(torch.equal(part[name], net[name]) for name in wanted)


def wrapped(name):
    name = name.replace("layer1.0.", "layer1._fsdp_wrapped_module.0._checkpoint_wrapped_module.")
    return f"_forward_module.module._orig_mod.{name.replace('layer2.1.', 'layer2.1._orig_mod.')}"


CHILDREN = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
CONTAINERS = {
    "lightning": lambda net: {"pytorch-lightning_version": "2", "state_dict": under("model.", net)},
    "lightning of a longer prefix": lambda net: {"state_dict": under("learner.net.", net)},
    "net": lambda net: {"net": net, "acc": 1.0},
    "nested": lambda net: {"model": {"state_dict": net}, "epoch": 1},
    "deepspeed": lambda net: {"module": under("module.", net), "ds_version": "0.1"},
    "swa": lambda net: {"n_averaged": torch.tensor(3), **under("module.", net)},
    "wrappers inside": lambda net: {wrapped(name): t for name, t in net.items()},
    "a loss beside": lambda net: {**under("net.", net), "loss.centre": torch.ones(3)},
    "children in order": lambda net: {
        f"encoder.{place}.{name.partition('.')[2]}": tensor
        for name, tensor in body(net).items()
        for place in [CHILDREN.index(name.partition(".")[0])]
    },
}  # fmt: skip


@pytest.mark.parametrize("container", CONTAINERS)
def test_one_net_is_found_to_the_bit(tmp_path, net, container):
    assert same(read(tmp_path, CONTAINERS[container](net)), net)


def test_wrappers_inside_the_names_of_a_known_format(tmp_path, net):
    content = {"pytorch-lightning_version": "2", "state_dict": {
        **under("backbone.module.", body(net)), "classifier.weight": torch.ones(3, 512),
        "classifier.bias": torch.ones(3)}}  # fmt: skip
    file = read(tmp_path, content)
    assert file.kind == "solo-learn" and same(file, net)


def test_what_lies_beside_is_counted(tmp_path, net):
    file = read(tmp_path, {**under("net.", net), "loss.centre": torch.ones(3)})
    assert file.dropped["tensors beside the net"] == 1
    assert file.source["prefix"] == "net."


def test_of_two_nets_prefix_names_one(tmp_path, net):
    other = {name: tensor + 1 for name, tensor in net.items()}
    content = {"student": under("module.backbone.", net), "teacher": under("backbone.", other)}
    with pytest.raises(UserError, match=r"prefix=student/backbone. \(ResNet-18\).*prefix=teacher"):
        read(tmp_path, content)
    assert same(read(tmp_path, content, prefix="teacher/backbone."), other)
    assert same(read(tmp_path, content, prefix="student/module.backbone"), net)
    with pytest.raises(UserError, match="prefix=backbone names several of"):
        read(tmp_path, content, prefix="backbone")
    with pytest.raises(UserError, match="prefix=momentum names none of"):
        read(tmp_path, content, prefix="momentum")


def test_a_stranger_within_the_net_is_left_out_by_the_word_alone(tmp_path, net):
    content = under("model.", {**net, "projector.weight": torch.ones(2, 512)})
    with pytest.raises(UserError, match=r"prefix=model\., and projector.weight beside it"):
        read(tmp_path, content)
    file = read(tmp_path, content, prefix="model")
    assert same(file, net) and file.dropped["tensors beside the net"] == 1


def test_a_part_that_no_resnet_has_is_refused(tmp_path, net):
    content = OrderedDict(under("model.", {**net, "layer1.0.se.weight": torch.ones(2)}))
    with pytest.raises(UserError, match="layer1.0.se.weight"):
        read(tmp_path, content, prefix="model.")
