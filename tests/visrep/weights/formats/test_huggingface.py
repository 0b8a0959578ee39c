"""Hugging Face's ResNets, compared with transformers' own classes where it is installed."""

import pytest
import torch
from safetensors.torch import save_file

from tests.oracles.encoders import stir
from visrep.errors import UserError
from visrep.weights import load_classifier, load_encoder, read_weights

KINDS = {
    "18": ("basic", [2, 2, 2, 2], [8, 16, 32, 64]),
    "34": ("basic", [3, 4, 6, 3], [8, 16, 32, 64]),
    "26": ("bottleneck", [2, 2, 2, 2], [32, 64, 128, 256]),
    "50": ("bottleneck", [3, 4, 6, 3], [32, 64, 128, 256]),
    "101": ("bottleneck", [3, 4, 23, 3], [16, 32, 64, 128]),
    "152": ("bottleneck", [3, 8, 36, 3], [16, 32, 64, 128]),
}


def theirs(name: str, kind: str = "ResNetForImageClassification", **more: object):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    block, depths, widths = KINDS[name]
    first = widths[0] if block == "basic" else widths[0] // 4
    config = transformers.ResNetConfig(
        embedding_size=first,
        layer_type=block,
        depths=depths,
        hidden_sizes=widths,
        num_labels=5,
        **more,
    )
    return stir(getattr(transformers, kind)(config)).eval()


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_features_and_logits_are_theirs(tmp_path, name):
    model = theirs(name)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, metadata={"format": "pt"})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    output = model.resnet(images)
    expected = output.pooler_output.flatten(1)
    given = load_encoder(path)(images)
    assert float((given - expected).abs().max() / expected.abs().max()) <= 1e-5
    logits = model(images).logits
    assert float((load_classifier(path)(images) - logits).abs().max() / logits.abs().max()) <= 1e-5
    assert read_weights(path).backbone["depth"] == int(name)


@torch.inference_mode()
def test_the_bare_model_and_the_older_container(tmp_path):
    model = theirs("50", "ResNetModel")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    file = read_weights(tmp_path / "pytorch_model.bin")
    assert file.kind == "Hugging Face ResNet"
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = model(images).pooler_output.flatten(1)
    given = load_encoder(tmp_path / "pytorch_model.bin")(images)
    assert float((given - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_a_regnet_with_similar_names_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.RegNetConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])
    model = transformers.RegNetModel(config)
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"looks like Hugging Face ResNet, but .*has no place in it"
    ):
        read_weights(tmp_path / "model.safetensors")
