"""The encoder file: what is written comes back, and what was changed since is noticed."""

import hashlib
import json
import os
import random
import struct

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from tests.oracles.encoders import PREPROCESS, encoder_file, head, net, stir
from tests.oracles.small_disk import small_disk
from visrep.errors import UserError
from visrep.nn.classifier import Classifier
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet
from visrep.weights import (
    EncoderFile,
    load_classifier,
    load_encoder,
    read_weights,
    save_encoder,
    write_encoder,
)
from visrep.weights.encoder_file import fingerprint

SPECS = [
    {},
    {"depth": 18, "width": 0.125, "stem": "cifar"},
    {"depth": 34, "width": 0.0625, "stem": "imagenet", "padding": "tf"},
    {"depth": 50, "width": 0.0625, "stem": "d"},
    {"depth": 50, "width": 0.0625, "stem": "d", "sk": True, "padding": "tf"},
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(map(str, spec.values())) or "r18")
def test_a_loaded_encoder_gives_the_same_numbers(tmp_path, spec):
    encoder = net(**spec)
    path = tmp_path / "encoder.safetensors"
    sha256 = save_encoder(path, encoder=encoder, preprocess=PREPROCESS, source={"method": "x"})
    loaded = load_encoder(path)
    assert isinstance(loaded, ResNet)
    assert loaded.spec == encoder.spec
    assert loaded.preprocess == PREPROCESS
    assert loaded.sha256 == sha256 == read_weights(path).sha256
    assert not any(module.training for module in loaded.modules())
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(loaded(images), encoder(images))
    ours, theirs = loaded.state_dict(), encoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if "num_batches" not in name)


def test_a_loaded_encoder_trains_and_does_not_write_to_its_file(tmp_path):
    path = tmp_path / "encoder.safetensors"
    file = encoder_file(path)
    encoder = load_encoder(path).train()
    encoder(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    assert read_weights(path).sha256 == file.sha256


def test_head_and_classifier_are_kept(tmp_path):
    encoder = net()
    projection = head(encoder)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, encoder=encoder, preprocess=PREPROCESS, head=projection, source={})
    file = read_weights(path)
    assert file.head == projection.spec
    assert file.classes is None
    assert torch.equal(file.part("head")["layers.2.norm.weight"], projection.layers[2].norm.weight)
    with pytest.raises(UserError, match="without a classifier"):
        load_classifier(path)

    model = stir(Classifier(encoder=encoder, head=projection, layers=1, classes=3)).eval()
    path = tmp_path / "classifier.safetensors"
    sha256 = save_encoder(
        path,
        encoder=model.encoder,
        preprocess=PREPROCESS,
        head=model.head,
        fc=model.fc,
        classes=["a", "b", "ç"],
        source={"method": "finetune"},
    )
    loaded = load_classifier(path)
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))
    assert loaded.classes == ["a", "b", "ç"]
    assert loaded.preprocess == PREPROCESS
    assert loaded.sha256 == sha256
    assert not any(module.training for module in loaded.modules())
    assert torch.equal(load_encoder(path)(images), model.encoder(images))


def test_a_classifier_without_head(tmp_path):
    encoder = net()
    fc = stir(torch.nn.Linear(encoder.out_dim, 4))
    path = tmp_path / "classifier.safetensors"
    save_encoder(path, encoder=encoder, preprocess=PREPROCESS, fc=fc, source={})
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_classifier(path)(images), fc(encoder(images)))


def test_the_file_is_plain_safetensors_with_torchvision_names(tmp_path):
    path = tmp_path / "encoder.safetensors"
    file = encoder_file(path)
    tensors = load_file(path)
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.1.bias"} <= set(tensors)
    assert not [name for name in tensors if name.endswith("num_batches_tracked")]
    with safetensors.safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    assert set(metadata) == {
        *("format", "backbone", "preprocess", "head", "classes", "source", "sha256")
    }
    assert metadata["format"] == "visrep-encoder/1"
    assert json.loads(metadata["backbone"]) == net().spec
    assert metadata["sha256"] == file.sha256


def test_files_of_version_0_1_0_are_read(tmp_path):
    """The bytes that 0.1.0 wrote, put together here: header, metadata and order are a promise."""
    encoder, projection = net(), MLP(in_dim=32, layers=[LAYER])
    tensors = stored(encoder.state_dict()) | stored(projection.state_dict(), "head.")
    tensors |= {"fc.weight": torch.eye(2, 8), "fc.bias": torch.arange(2.0)}
    metadata = {
        "format": "visrep-encoder/1",
        "sha256": "",
        "backbone": '{"depth": 18, "width": 0.0625, "sk": false, "stem": "small", '
        '"padding": "torch"}',
        "preprocess": '{"size": 32, "resize": null, "mean": [0.5, 0.4, 0.3], '
        '"std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "channel_order": "RGB", '
        '"range": [0.0, 1.0]}',
        "head": '{"in_dim": 32, "layers": [{"out": 8, "bias": false, "norm": "affine", '
        '"relu": true}]}',
        "classes": '["cat", "dog"]',
        "source": '{"method": "finetune", "command": "visrep finetune", "labels": 0.1}',
    }
    sha256 = hashlib.sha256()
    header, data = {"__metadata__": metadata}, b""
    for name in sorted(tensors):
        shape, raw = list(tensors[name].shape), tensors[name].numpy().tobytes()
        sha256.update(f"{name}\0float32\0{','.join(map(str, shape))}\0".encode() + raw)
        header[name] = {"dtype": "F32", "shape": shape}
        header[name]["data_offsets"] = [len(data), len(data) + len(raw)]
        data += raw
    metadata["sha256"] = sha256.hexdigest()
    text = json.dumps(header).encode()
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)

    model = load_classifier(path)
    assert model.sha256 == load_encoder(path).sha256 == sha256.hexdigest()
    assert model.classes == ["cat", "dog"] and model.preprocess.mean == (0.5, 0.4, 0.3)
    images = torch.randn(2, 3, 32, 32)
    features = projection.eval()(encoder(images))
    assert torch.equal(model(images), features @ tensors["fc.weight"].T + tensors["fc.bias"])
    file = read_weights(path)
    assert file.source["labels"] == 0.1
    write_encoder(tmp_path / "again.safetensors", file)
    again = read_weights(tmp_path / "again.safetensors")
    assert vars(again) | {"tensors": 0} == vars(file) | {"tensors": 0}


LAYER = {"out": 8, "bias": False, "norm": "affine", "relu": True}


def stored(tensors: dict[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """What an encoder file keeps of a state dict."""
    return {f"{prefix}{k}": t for k, t in tensors.items() if "num_batches" not in k}


def test_channels_last_and_half_precision_are_stored_plain(tmp_path):
    encoder = net()
    encoder.to(memory_format=torch.channels_last)
    sha256 = save_encoder(
        tmp_path / "a.safetensors", encoder=encoder, preprocess=PREPROCESS, source={}
    )
    assert sha256 == fingerprint(encoder_file(tmp_path / "b.safetensors").tensors)
    save_encoder(tmp_path / "c.safetensors", encoder=net().half(), preprocess=PREPROCESS, source={})
    half = read_weights(tmp_path / "c.safetensors").tensors["conv1.weight"]
    assert torch.equal(half, net().conv1.weight.half().float())


def test_the_sha256_is_of_the_tensors_only():
    a = torch.arange(6.0).reshape(2, 3)
    b = torch.ones(4)
    assert fingerprint({"a": a, "b": b}) == fingerprint({"b": b.clone(), "a": a.clone()})
    different = [
        {"a": a, "b": b + 1},
        {"a": a.reshape(3, 2), "b": b},
        {"a": a, "c": b},
        {"a": a.double(), "b": b},
        {"a": a},
    ]
    hashes = {fingerprint(tensors) for tensors in different} | {fingerprint({"a": a, "b": b})}
    assert len(hashes) == 6


def test_the_sha256_is_of_name_type_shape_and_bytes():
    tensors = {"y": torch.tensor(3), "x": torch.tensor([[1.0, 2.0]]).T}
    content = b"x\0float32\0" + b"2,1\0" + struct.pack("<2f", 1, 2)
    content += b"y\0int64\0\0" + struct.pack("<q", 3)
    assert fingerprint(tensors) == hashlib.sha256(content).hexdigest()


def test_new_metadata_leave_the_sha256(tmp_path):
    file = encoder_file(tmp_path / "a.safetensors")
    again = EncoderFile(
        backbone=file.backbone,
        preprocess={**file.preprocess, "mean": [0.0, 0.0, 0.0]},
        source={"note": "another one"},
        tensors=dict(reversed(file.tensors.items())),
    )
    write_encoder(tmp_path / "b.safetensors", again)
    assert read_weights(tmp_path / "b.safetensors").sha256 == file.sha256
    assert read_weights(tmp_path / "b.safetensors").preprocess["mean"] == [0.0, 0.0, 0.0]


def rewrite(path, *, metadata=None, tensors=None):
    """The file at `path` with some metadata or tensors replaced; None removes one."""
    with safetensors.safe_open(path, "pt") as opened:
        header = opened.metadata()
    content = load_file(path)
    header |= metadata or {}
    content |= tensors or {}
    save_file(
        {name: tensor for name, tensor in content.items() if tensor is not None},
        path,
        metadata={key: value for key, value in header.items() if value is not None},
    )


BAD_METADATA = {
    "a later version": ({"format": "visrep-encoder/2"}, "upgrade visrep"),
    "no backbone": ({"backbone": None}, "metadata lacks 'backbone'"),
    "no JSON": ({"backbone": "{"}, "Expecting property name"),
    "not a mapping": ({"backbone": "[1]"}, "backbone is not what it should be"),
    "an unknown key": ({"backbone": '{"depth": 18, "_target_": "os.system"}'}, "described by"),
    "another depth": (
        {
            "backbone": '{"depth": 19, "width": 0.0625, "sk": false, "stem": "small",'
            ' "padding": "torch"}'
        },
        "depth 19 does not exist",
    ),
    "a huge width": (
        {
            "backbone": '{"depth": 18, "width": 1e12, "sk": false, "stem": "small",'
            ' "padding": "torch"}'
        },
        "width=1000000000000.0 does not exist",
    ),
    "a width of text": (
        {
            "backbone": '{"depth": 18, "width": "1", "sk": false, "stem": "small",'
            ' "padding": "torch"}'
        },
        "width='1' does not exist",
    ),
    "another width": (
        {
            "backbone": '{"depth": 18, "width": 0.125, "sk": false, "stem": "small",'
            ' "padding": "torch"}'
        },
        "conv1.weight is 4x3x3x3 where 8x3x3x3 is needed",
    ),
    "no preprocess": ({"preprocess": '{"size": 32}'}, "preprocess: missing key"),
    "a head that is not there": (
        {"head": '{"in_dim": 32, "layers": []}', "classes": "[1]"},
        "a class name is no text",
    ),
    "a head of nonsense": ({"head": '{"in_dim": "x", "layers": [5]}'}, "safetensors: "),
    "a head of too many layers": (
        {"head": json.dumps({"in_dim": 32, "layers": [{}] * 100000})},
        "does not fit its tensors",
    ),
    "classes without classifier": ({"classes": '["a"]'}, "no classifier"),
    "deep nesting": ({"source": "[" * 100000}, "encoder.safetensors: "),
    "another sha256": ({"sha256": "0" * 64}, "do not agree with the sha256"),
    "no sha256": ({"sha256": None}, "do not agree with the sha256"),
}


@pytest.mark.parametrize("case", BAD_METADATA)
def test_metadata_are_not_trusted(tmp_path, case):
    metadata, message = BAD_METADATA[case]
    path = tmp_path / "encoder.safetensors"
    encoder_file(path)
    rewrite(path, metadata=metadata)
    with pytest.raises(UserError) as caught:
        load_encoder(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv1.weight": None}, "lacks conv1.weight"),
        ({"extra": torch.ones(1), "more": torch.ones(1)}, "unknown extra and 1 more"),
        ({"bn1.bias": torch.zeros(5)}, "bn1.bias is 5 where 4 is needed"),
        ({"bn1.bias": torch.zeros(4, dtype=torch.int64)}, "torch.int64"),
        ({"bn1.bias": torch.full((4,), float("nan"))}, "do not agree with the sha256"),
        ({"fc.weight": torch.zeros(3, 32)}, "lacks fc.bias"),
        ({"bn1.bias": torch.ones(4)}, "do not agree with the sha256"),
    ],
)
def test_tensors_must_fit(tmp_path, tensors, message):
    path = tmp_path / "encoder.safetensors"
    encoder_file(path)
    rewrite(path, tensors=tensors)
    with pytest.raises(UserError, match=message):
        read_weights(path)


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path):
    encoder = net()
    path = tmp_path / "encoder.safetensors"
    with torch.no_grad():
        encoder.layer1[0].conv1.weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(UserError, match=r"layer1.0.conv1.weight holds NaN or infinity"):
        save_encoder(path, encoder=encoder, preprocess=PREPROCESS, source={})
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_fit_are_a_bug_of_the_caller(tmp_path):
    encoder = net()
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(ValueError, match=r"fc.weight is 3x5"):
        save_encoder(
            path, encoder=encoder, preprocess=PREPROCESS, fc=torch.nn.Linear(5, 3), source={}
        )
    with pytest.raises(ValueError, match="2 class names for a classifier of 3 outputs"):
        save_encoder(
            path,
            encoder=encoder,
            preprocess=PREPROCESS,
            fc=torch.nn.Linear(encoder.out_dim, 3),
            classes=["a", "b"],
            source={},
        )
    with pytest.raises(ValueError, match="the head takes 64"):
        save_encoder(
            path, encoder=encoder, preprocess=PREPROCESS, head=head(net(width=0.125)), source={}
        )
    assert not list(tmp_path.iterdir())


def test_every_cut_and_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "encoder.safetensors"
    encoder_file(path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for size in [0, 1, 7, 8, 9, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(10))]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"encoder\.safetensors"):
            read_weights(path)
    missed = 0
    tensors = safetensors.torch.load(whole)
    for _ in range(60):
        changed = bytearray(whole)
        # Half of them in the header, where a flip can change a word of the metadata only.
        changed[rng.randrange(rng.choice([9000, len(changed)]))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            file = read_weights(path)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        missed += 1
        assert all(torch.equal(file.tensors[name], tensors[name]) for name in tensors)
    assert missed < 25


def test_a_full_disk_leaves_nothing(tmp_path):
    path = tmp_path / "encoder.safetensors"
    with small_disk(50_000), pytest.raises(UserError) as caught:
        save_encoder(path, encoder=net(), preprocess=PREPROCESS, source={})
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert os.strerror(27) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
