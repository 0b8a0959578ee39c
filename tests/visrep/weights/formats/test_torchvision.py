"""torchvision's state dicts: every class of its ResNets, every container, and what is no ResNet."""

import pytest
import torch
from torchvision import models

from tests.oracles.encoders import numbered, stir
from visrep.errors import UserError
from visrep.nn.resnet import ResNet
from visrep.weights import EncoderFile, load_classifier, load_encoder, read_weights
from visrep.weights.encoder_file import build, shapes_of
from visrep.weights.formats import torchvision

SLOW = pytest.mark.slow
INPUT = {"size": 224, "resize": 256, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.fixture(scope="module")
def resnet18() -> torch.nn.Module:
    return stir(models.resnet18(weights=None, num_classes=10)).eval()


def test_features_and_logits_are_torchvisions(tmp_path, resnet18):
    path = tmp_path / "model.pth"
    torch.save(resnet18.state_dict(), path)
    images = torch.randn(2, 3, 64, 64)
    file = read_weights(path)
    assert file.backbone == {
        "depth": 18,
        "width": 1,
        "sk": False,
        "stem": "imagenet",
        "padding": "torch",
    }
    assert {key: file.preprocess[key] for key in INPUT} == INPUT
    assert file.dropped == {"counters of batches": 20}
    assert file.source["format"] == "torchvision state dict"
    assert len(file.tensors) == 102
    with torch.inference_mode():
        assert torch.equal(load_classifier(path)(images), resnet18(images))
        without = torch.nn.Sequential(*list(resnet18.children())[:-1])
        assert torch.equal(load_encoder(path)(images), without(images).flatten(1))


def small(width: int = 4) -> dict:
    """The state dict of a ResNet-18 of 4 channels: torchvision's names, quick to write."""
    from tests.oracles.encoders import net

    return net(width=width / 64, stem="imagenet").state_dict()


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_containers_and_wrappers_come_off(tmp_path, container, prefix, zipped):
    state = small()
    value = {prefix + name: tensor for name, tensor in state.items()}
    if container:
        value = {container: value, "epoch": 7, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}
    path = tmp_path / "checkpoint"
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    file = read_weights(path)
    assert file.source.get("container") == container
    assert file.source.get("prefix") == (prefix or None)
    assert file.backbone["width"] == 1 / 16
    kept = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    assert file.tensors.keys() == kept.keys()
    assert all(torch.equal(file.tensors[name], kept[name]) for name in kept)


def test_half_precision_is_widened_and_said(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in small().items()}, path)
    file = read_weights(path)
    assert file.source["stored_as"] == "float16"
    assert torch.equal(file.tensors["conv1.weight"], small()["conv1.weight"].half().float())


def test_a_plain_safetensors_file_is_read_too(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file(small(), path, metadata={"format": "pt"})
    assert read_weights(path).source["format"] == "torchvision state dict"


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_depth_is_told_from_names(depth):
    from visrep.weights.architecture import infer

    with torch.device("meta"):
        state = getattr(models, f"resnet{depth}")(weights=None).state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if not k.startswith("fc.")}
    shapes = {k: shape for k, shape in shapes.items() if not k.endswith("num_batches_tracked")}
    assert infer(shapes, "x.pth") == {
        "depth": depth,
        "width": 1,
        "sk": False,
        "stem": "imagenet",
        "padding": "torch",
    }


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("wide_resnet50_2", {"inner": 2}),
        ("resnext50_32x4d", {"inner": 2, "groups": 32}),
        ("resnext101_32x8d", {"inner": 4, "groups": 32}),
    ],
)
def test_grouped_and_wide_bottlenecks(name, more):
    from visrep.weights.architecture import infer

    with torch.device("meta"):
        state = getattr(models, name)(weights=None).state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if not k.startswith("fc.")}
    shapes = {k: shape for k, shape in shapes.items() if not k.endswith("num_batches_tracked")}
    spec = infer(shapes, "x.pth")
    assert {key: spec[key] for key in more} == more
    assert spec["width"] == 1


def change(state: dict, **changes: object) -> dict:
    state = dict(state)
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


CHANGED = {
    "a block less": (lambda s: {k: v for k, v in s.items() if "layer3.1" not in k}, "2, 2, 1, 2"),
    "a stem of 3x3": (
        lambda s: change(s, conv1__weight=torch.zeros(4, 3, 3, 3)),
        "nothing says its stride",
    ),
    "one channel": (
        lambda s: change(s, conv1__weight=torch.zeros(4, 1, 7, 7)),
        "first convolution is 4x1x7x7",
    ),
    "no bias of bn1": (lambda s: change(s, bn1__bias=None), "it lacks bn1.bias"),
    "no block in layer4": (
        lambda s: {k: v for k, v in s.items() if "layer4" not in k},
        "2, 2, 2, 0",
    ),
    "squeeze and excite": (
        lambda s: {**s, "layer1.0.se.fc1.weight": torch.zeros(1)},
        "squeeze and excite, or efficient channel attention (se), which visrep's has not",
    ),
    "a head of another kind": (
        lambda s: {**s, "projection_head.0.weight": torch.zeros(1)},
        "module 0 of a head is neither linear",
    ),
    "fc of another width": (
        lambda s: {**s, "fc.weight": torch.zeros(3, 7), "fc.bias": torch.zeros(3)},
        "fc.weight is 3x7 where 3x32 is needed",
    ),
    "fc without bias": (
        lambda s: {**s, "fc.weight": torch.zeros(3, 32)},
        "it lacks fc.bias",
    ),
    "an embedding of the weights": (
        lambda s: change(s, conv1__weight=torch.zeros(1).expand(64_000_000, 3, 7, 7)),
        "claims more data",
    ),
    "NaN": (lambda s: change(s, bn1__bias=torch.full((4,), float("nan"))), "NaN or infinity"),
    "two nets": (lambda s: {"state_dict": s, "state_dict_ema": dict(s)}, "prefix=state_dict_ema"),
    "text for a tensor": (lambda s: change(s, bn1__bias="zero"), "bn1.bias is no dense tensor"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_is_no_resnet_of_ours_is_refused(tmp_path, case):
    change_it, word = CHANGED[case]
    path = tmp_path / "model.pth"
    torch.save(change_it(small()), path)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert word in message
    assert str(path) in message
    assert "\n" not in message


FULL = {
    "resnet50": {"depth": 50},
    "resnext50_32x4d": {"depth": 50, "groups": 32, "inner": 2},
    "wide_resnet50_2": {"depth": 50, "inner": 2},
    "resnext101_32x8d": {"depth": 101, "groups": 32, "inner": 4},
    "resnext101_64x4d": {"depth": 101, "groups": 64, "inner": 4},
}


@pytest.mark.parametrize("name", ["resnext50_32x4d", pytest.param("wide_resnet50_2", marks=SLOW)])
def test_out_and_back_is_the_same_to_the_bit(tmp_path, name):
    file = numbered(width=1, stem="imagenet", **FULL[name])
    torchvision.dump(tmp_path / "x.pth", file)
    back = read_weights(tmp_path / "x.pth")
    assert (back.backbone, back.sha256) == (file.backbone, file.sha256)


@pytest.mark.parametrize("name", FULL)
def test_the_class_is_torchvisions_with_its_shapes(name):
    with torch.device("meta"):
        spec = ResNet(width=1, stem="imagenet", **FULL[name]).spec
        shown, theirs = torchvision.own_class(EncoderFile(backbone=spec, preprocess={}, tensors={}))
        expected = getattr(models, name)(weights=None).state_dict()
    assert shown == f"torchvision's {name}"
    ours = shapes_of(theirs)
    assert ours == shapes_of(build(spec))
    assert ours.items() <= {k: tuple(t.shape) for k, t in expected.items()}.items()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2"])
def test_the_command_runs_grouped_and_wide_nets_in_torchvision(tmp_path, capsys, name):
    from tests.visrep.test_convert import run

    theirs = stir(getattr(models, name)(weights=None)).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    run(tmp_path / "theirs.pth", tmp_path / "x.pth", to="torchvision")
    out = capsys.readouterr().out
    assert f"in torchvision's {name}: features differ by at most" in out
    again = torch.load(tmp_path / "x.pth", weights_only=True)
    kept = {k: t for k, t in theirs.state_dict().items() if "num_batches" not in k}
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[k], kept[k]) for k in kept)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"stem": "d"}, "stem=d"),
        ({"stem": "imagenet", "stride_in_1x1": True}, "stride_in_1x1=true"),
        ({"stem": "imagenet", "shortcut": "avg_down"}, "shortcut=avg_down"),
        ({"stem": "imagenet", "padding": "haiku"}, "padding=haiku"),
    ],
)
def test_what_torchvisions_names_cannot_say_is_refused(tmp_path, spec, word):
    with pytest.raises(UserError, match=f"torchvision has no ResNet with {word}: use to=visrep"):
        torchvision.dump(tmp_path / "x.pth", numbered(depth=50, width=0.125, **spec))
