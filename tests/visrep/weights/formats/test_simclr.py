"""SimCLR v1 and v2: TensorFlow's checkpoints and the two PyTorch conversions of them."""

import numpy as np
import pytest
import torch

from tests.oracles.checkpoints import tf
from tests.oracles.encoders import in_memory
from visrep.errors import UserError
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet
from visrep.weights import EncoderFile, load_classifier, read_weights
from visrep.weights.encoder_file import into_module
from visrep.weights.foreign import Choice
from visrep.weights.formats.simclr_tf import creation_order
from visrep.weights.reading import classifier_of, encoder_of

HEAD = 3 + 2 * 4 + 3  # kernels, two whole batch norms, one without beta


def images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def difference(given: torch.Tensor, expected: torch.Tensor) -> float:
    assert given.shape == expected.shape
    return float((given - expected).abs().max() / expected.abs().max())


def features(file: EncoderFile, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return encoder_of(file)(x)


def projected(file: EncoderFile, x: torch.Tensor) -> torch.Tensor:
    with torch.device("meta"):
        head = MLP(**file.head)
    into_module(head, file.part("head"))
    with torch.inference_mode():
        return head.eval()(features(file, x))


@pytest.mark.parametrize("sk", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (65, 47), (34, 90)])
def test_features_of_a_v2_checkpoint(tmp_path, sk, size):
    net = tf.simclr_net(sk=sk, ema=True)
    path = tf.write_bundle(tmp_path / "model.ckpt-250228", net.values, shards=2)
    file = read_weights(path)
    assert (file.encoder, file.alternatives) == ("raw", ("ema",))
    assert file.backbone == {
        "depth": 14,
        "width": 0.0625,
        "sk": sk,
        "stem": "d" if sk else "imagenet",
        "padding": "tf",
    }
    x = images(*size)
    assert difference(features(file, x), net.features(x)) < 1e-5
    assert difference(projected(file, x), net.projected(x)) < 1e-5
    ema = read_weights(path, Choice(encoder="ema"))
    assert (ema.encoder, ema.alternatives) == ("ema", ("raw",))
    assert difference(features(ema, x), net.features(x, "ema_model/")) < 1e-5
    assert difference(projected(ema, x), net.projected(x, prefix="ema_model/")) < 1e-5
    assert difference(features(file, x), net.features(x, "ema_model/")) > 0.01


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"depth": 18, "channels": 2}, {"depth": 18, "project": True, "width": 1 / 32}),
        ({"depth": 10, "channels": 8}, {"depth": 10, "project": True, "width": 1 / 8}),
        ({"depth": 50, "channels": 2}, {"depth": 50}),
        ({"depth": 50, "channels": 2, "sk": True}, {"depth": 50, "sk": True, "stem": "d"}),
        ({"depth": 14, "cifar": True}, {"depth": 14, "stem": "cifar"}),
        ({"depth": 18, "channels": 2, "cifar": True}, {"stem": "cifar", "project": True}),
    ],
)
def test_features_of_every_kind_of_net(tmp_path, spec, expected):
    net = tf.simclr_net(head=0, **spec)
    file = read_weights(tf.write_bundle(tmp_path / "m", net.values))
    assert {key: file.backbone[key] for key in expected} == expected
    x = images(32, 32) if spec.get("cifar") else images()
    assert difference(features(file, x), net.features(x)) < 1e-5
    assert file.preprocess["size"] == (32 if spec.get("cifar") else 224)
    assert (file.preprocess["mean"], file.preprocess["std"]) == ([0.0] * 3, [1.0] * 3)


def test_another_padding_is_another_net(tmp_path):
    net = tf.simclr_net(sk=True)
    path = tf.write_bundle(tmp_path / "m", net.values)
    ported = features(read_weights(path, Choice(padding="torch")), images())
    assert difference(ported, net.features(images())) > 0.01


@pytest.mark.parametrize(
    ("depth", "sk", "convs", "norms"),
    [(50, False, 53, 53), (50, True, 87, 71), (101, True, 172, 139), (152, True, 257, 207)],
)
def test_creation_order_has_the_published_numbers(depth, sk, convs, norms):
    names = creation_order(depth, sk=sk, deep=sk)
    assert (len(names[0]), len(names[1])) == (convs, norms)
    with torch.device("meta"):
        modules = dict(ResNet(depth=depth, sk=sk, stem="d" if sk else "imagenet").named_modules())
    assert all(isinstance(modules[name], torch.nn.Conv2d) for name in names[0])
    kinds = {name for name, m in modules.items() if hasattr(m, "running_mean")}
    assert set(names[1]) == kinds
    first = 3 if sk else 1
    assert names[0][first : first + 2] == ["layer1.0.downsample.0", "layer1.0.conv1"]


def test_what_is_left_out_is_counted(tmp_path):
    net = tf.simclr_net(ema=True)
    file = read_weights(tf.write_bundle(tmp_path / "m", net.values))
    trained = [name for name in net.values if name.endswith("/Momentum")]
    ema = [name for name in net.values if name.startswith("ema_model/")]
    assert sorted(file.dropped.values()) == sorted([len(trained), 1, len(ema), 2])
    assert file.dropped["of the other encoder"] == len(ema)


def classifier(net: tf.Net, x: torch.Tensor) -> torch.Tensor:
    return tf.tf_classifier(net.variables, x)


def test_a_classifier_on_the_encoder_or_on_the_head(tmp_path):
    net = tf.simclr_net()
    path = tf.write_bundle(tmp_path / "m", net.values)
    file = read_weights(path)
    assert len(file.head["layers"]) == 3
    assert not file.part("fc")
    assert any("classifier=0" in group for group in file.dropped)
    with pytest.raises(UserError, match="classifier=LAYER"):
        load_classifier(path)
    x = images()
    for layer in (0, 1, 2):
        file = read_weights(path, Choice(classifier=layer))
        assert file.dropped["of the projection head"] == HEAD - 5 * layer
        with torch.inference_mode():
            given = classifier_of(file)(x)
        below = net.features(x)
        for i in range(layer):
            net.variables.begin(f"head_contrastive/nl_{i}/")
            below = below @ net.variables.kernel(
                f"head_contrastive/nl_{i}/dense/kernel", (below.shape[1],) * 2
            )
            below = tf.tf_norm(net.variables, below)
        assert difference(given, classifier(net, below)) < 1e-5
    with pytest.raises(UserError, match="give classifier=a number from 0 to 3"):
        read_weights(path, Choice(classifier=4))


def test_a_head_that_was_never_trained_goes(tmp_path):
    net = tf.simclr_net()
    for name, value in net.values.items():
        if name.startswith("head_contrastive/") and name.endswith(("gamma", "beta")):
            value[:] = 1 if name.endswith("gamma") else 0
    path = tf.write_bundle(tmp_path / "m", net.values)
    file = read_weights(path)
    assert file.head is None
    assert file.dropped["of the projection head, which was never trained"] == HEAD
    x = images()
    with torch.inference_mode():
        given = load_classifier(path)(x)
    assert difference(given, classifier(net, net.features(x))) < 1e-5


def changed(values: dict, **changes: object) -> dict:
    values = dict(values)
    for name, value in changes.items():
        name = f"base_model/{name.replace('__', '/')}"
        if value is None:
            del values[name]
        else:
            values[name] = value
    return values


CHANGED = {
    "a convolution less": ({"conv2d_5__kernel": None}, "number 5 is missing"),
    "the last convolution": ({"conv2d_16__kernel": None}, "its 16 convolutions under base_model/"),
    "the last norm": (
        {f"batch_normalization_16__{part}": None for part in tf.STATISTICS},
        "17 convolutions and 16 batch norms",
    ),
    "a part of a norm": ({"batch_normalization_3__gamma": None}, "it lacks layer1.0.bn2.weight"),
    "a strange variable": (
        {"conv2d_5__bias": np.zeros(3, np.float32)},
        "base_model/conv2d_5/bias has no place in it",
    ),
    "another shape": (
        {"conv2d_9__kernel": np.zeros((1, 1, 16, 33), np.float32)},
        "it is close to a ResNet-14",
    ),
    "no convolution": ({"conv2d_9__kernel": np.zeros(3, np.float32)}, "of no ResNet"),
    "whole numbers": ({"conv2d_9__kernel": np.zeros((1, 1, 8, 8), np.int32)}, "torch.int32"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_is_no_net_of_simclr_is_refused(tmp_path, case):
    changes, clause = CHANGED[case]
    net = tf.simclr_net()
    path = tf.write_bundle(tmp_path / "m", changed(net.values, **changes))
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert clause in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_single_encoder_has_no_average(tmp_path):
    path = tf.write_bundle(tmp_path / "m", tf.simclr_net().values)
    with pytest.raises(UserError, match="it holds no encoder=ema, but a single one"):
        read_weights(path, Choice(encoder="ema"))
    with pytest.raises(UserError, match="stem=small is for nets that begin with a 3x3"):
        read_weights(path, Choice(stem="small"))


# PyTorch


@pytest.mark.parametrize("sk", [False, True])
def test_the_port_of_v2(tmp_path, sk):
    """Its weights are TensorFlow's, so are the features; with padding=torch they are the port's."""
    content, net = tf.simclr_port(sk=sk)
    path = tmp_path / "r50_1x_sk0.pth"
    torch.save(content, path)
    file = read_weights(path)
    assert file.backbone["padding"] == "tf"
    assert file.preprocess["interpolation"] == "bicubic_tf1"
    assert file.preprocess["antialias"] is False
    x = images(65, 64)
    assert difference(features(file, x), net.features(x)) < 1e-5
    assert difference(projected(file, x), net.projected(x)) < 1e-5
    assert [layer["norm"] for layer in file.head["layers"]] == ["affine", "affine", "scale"]
    net.spec["port"] = True
    ported = read_weights(path, Choice(padding="torch"))
    assert difference(features(ported, x), net.features(x)) < 1e-5
    with torch.inference_mode():
        given = classifier_of(read_weights(path, Choice(classifier=0)))(x)
    net.spec["port"] = False
    assert difference(given, classifier(net, net.features(x))) < 1e-5


def test_the_port_of_a_supervised_net(tmp_path):
    """The converter leaves its head as PyTorch makes it."""
    content, _ = tf.simclr_port(sk=False)
    for name, value in content["head"].items():
        if value.dim() == 1:
            value[:] = 1 if name.endswith(("weight", "var")) else 0
    torch.save(content, tmp_path / "m.pth")
    file = read_weights(tmp_path / "m.pth")
    assert file.head is None
    assert len(file.part("fc")) == 2


@pytest.mark.parametrize("name", ["net.5.blocks.0.net.0.weight", "net.0.9.weight", "more"])
def test_the_port_with_a_strange_module(tmp_path, name):
    content, _ = tf.simclr_port(sk=False)
    content["resnet"][name] = torch.zeros(1)
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(UserError, match=f"resnet.{name} has no place in it"):
        read_weights(tmp_path / "m.pth")


def test_weights_of_v1_under_torchvisions_names(tmp_path):
    """Nothing in them says so: the user does."""
    file = in_memory(depth=14, stem="imagenet", padding="tf")
    state = {**file.tensors, "fc.weight": torch.zeros(5, 128), "fc.bias": torch.ones(5)}
    path = tmp_path / "resnet50-1x.pth"
    torch.save({"state_dict": state}, path)
    assert read_weights(path).preprocess["mean"] == [0.485, 0.456, 0.406]
    ours = read_weights(path, Choice(origin="simclr"))
    assert ours.backbone["padding"] == "tf"
    assert ours.preprocess["mean"] == [0.0] * 3
    assert ours.dropped == {"of the classifier without its bias": 2}
    assert torch.equal(features(ours, images()), features(file, images()))


def test_an_origin_is_for_torchvisions_names(tmp_path):
    path = tf.write_bundle(tmp_path / "m", tf.simclr_net().values)
    with pytest.raises(UserError, match="origin= is for torchvision's names only"):
        read_weights(path, Choice(origin="simclr"))
