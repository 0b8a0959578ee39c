"""What of VISSL's checkpoints is refused, and what the user has to say himself."""

import pytest
import torch

from tests.oracles.checkpoints.comparing import agrees
from tests.oracles.checkpoints.frameworks import (
    classifier,
    state_of,
    vissl_converted,
    vissl_trained,
)
from tests.oracles.checkpoints.tf import simclr_port
from tests.oracles.encoders import stir
from visrep.errors import UserError
from visrep.weights import read_weights
from visrep.weights.foreign import Choice
from visrep.weights.reading import classifier_of, encoder_of

TRUNK = {"_feature_blocks.conv1.weight": torch.ones(4, 3, 7, 7)}


def classy(trunk: object) -> dict:
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {}}}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "shard_list", "shards": ["a", "b"]}, "one part of a VISSL checkpoint"),
        ({"type": "slice_list", **classy({"a": "b.torch"})}, "one part of a VISSL checkpoint"),
        ({"type": "shard", **classy(TRUNK)}, "one part of a VISSL checkpoint"),
        ({"classy_state_dict": {"base_model": {}}}, "has no trunk"),
        (classy({"_feature_blocks.block1.weight": torch.ones(2)}), "is no ResNet"),
        (classy({"blocks.0.attn.qkv.weight": torch.ones(2)}), "is no ResNet"),
        (classy({**TRUNK, "stranger": torch.ones(2)}), "trunk.stranger has no place in it"),
    ],
)
def test_what_is_no_resnet_in_one_file_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "model.torch")
    with pytest.raises(UserError, match=message) as caught:
        read_weights(tmp_path / "model.torch")
    assert "\n" not in str(caught.value)


def test_haikus_padding_on_request(tmp_path):
    case = vissl_converted("_feature_blocks.", None)
    torch.save(case.content, tmp_path / "converted_byol.torch")
    assert read_weights(tmp_path / "converted_byol.torch").backbone["padding"] == "torch"
    asked = read_weights(tmp_path / "converted_byol.torch", Choice(padding="haiku"))
    assert asked.backbone["padding"] == "haiku"


def test_heads_beside_one_another_are_no_projection_head(tmp_path):
    heads = classifier("0.clf.0.", 32) | classifier("1.clf.0.", 32)
    case = vissl_trained(heads)
    torch.save(case.content, tmp_path / "model.torch")
    file = read_weights(tmp_path / "model.torch")
    assert file.head is None
    assert file.dropped["linear probes and other heads"] == 4


@torch.inference_mode()
def test_one_linear_layer_is_a_classifier_unless_the_loss_remembers_features(tmp_path):
    case = vissl_trained(classifier("0.clf.0.", 32))
    torch.save(case.content, tmp_path / "moco.torch")
    file = read_weights(tmp_path / "moco.torch")
    assert (len(file.head["layers"]), file.part("fc")) == (1, {})
    classy = case.content["classy_state_dict"]
    plain = {**case.content, "loss": {}, "classy_state_dict": {**classy, "loss": {}}}
    torch.save(plain, tmp_path / "supervised.torch")
    file = read_weights(tmp_path / "supervised.torch")
    assert file.head is None and "taken for a classifier" in file.source["note"]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    linear = classifier("", 32)
    expected = torch.nn.functional.linear(case.net(images), linear["weight"], linear["bias"])
    assert agrees(classifier_of(file)(images), expected)


@torch.inference_mode()
def test_the_classifier_of_a_linear_evaluation_takes_its_batch_norm_in(tmp_path):
    norm, linear = stir(torch.nn.BatchNorm1d(32), 3).eval(), classifier("", 32)
    heads = state_of(norm, "0.channel_bn.") | classifier("0.clf.clf.0.", 32)
    case = vissl_trained(heads, trunk="base_model._feature_blocks.")
    torch.save(case.content, tmp_path / "model.torch")
    file = read_weights(tmp_path / "model.torch")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    features = norm(case.net(images))
    expected = torch.nn.functional.linear(features, linear["weight"], linear["bias"])
    assert agrees(classifier_of(file)(images), expected)
    assert file.dropped["of the classifier's batch norm, now in its weights"] == 4


def test_torchvisions_names_in_vissls_container_are_torchvisions(tmp_path):
    state = {k.removeprefix("x."): t for k, t in vissl_converted("x.", None).content.items()}
    torch.save({"model_state_dict": state}, tmp_path / "model.torch")
    file = read_weights(tmp_path / "model.torch")
    assert file.kind == "torchvision state dict"
    assert file.source["container"] == "model_state_dict"


@torch.inference_mode()
@pytest.mark.parametrize("sk", [False, True])
def test_the_trunk_with_selective_kernels_is_simclrs(tmp_path, sk):
    content, _ = simclr_port(sk=sk)
    trunk = {k: t for k, t in content["resnet"].items() if not k.startswith("fc.")}
    torch.save(classy(trunk), tmp_path / "converted_simclr_v2.torch")
    file = read_weights(tmp_path / "converted_simclr_v2.torch")
    assert (file.kind, file.backbone["sk"], file.backbone["padding"]) == ("VISSL", sk, "tf")
    assert (file.preprocess["mean"], file.preprocess["std"]) == ([0, 0, 0], [1, 1, 1])
    (tmp_path / "port").mkdir()
    torch.save(content, tmp_path / "port" / "r.pth")
    expected = encoder_of(read_weights(tmp_path / "port" / "r.pth"))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(encoder_of(file)(images), expected(images))
