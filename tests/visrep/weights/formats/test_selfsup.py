"""Every checkpoint of the PyTorch projects: told by one format, with the source's own features."""

import pytest
import torch

from tests.oracles.checkpoints.comparing import agrees, formats_of, saved
from tests.oracles.checkpoints.selfsup import CASES
from visrep.errors import UserError
from visrep.nn.heads import MLP
from visrep.weights import read_weights
from visrep.weights.foreign import Choice
from visrep.weights.reading import classifier_of, encoder_of


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return saved(CASES, tmp_path_factory.mktemp("checkpoints"))


def images(mean, std) -> torch.Tensor:
    """The same images, normalised: 2 x 3 x 64 x 64."""
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def ours(file) -> torch.Tensor:
    """Features of the images, normalised as the file says."""
    encoder = encoder_of(file)
    return encoder(images(encoder.preprocess.mean, encoder.preprocess.std))


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_features_are_the_sources(cases, name):
    path, case = cases(name)
    file = read_weights(path)
    assert file.kind == case.format
    assert agrees(ours(file), case.features(images(case.mean, case.std)))
    assert file.encoder == case.encoder
    assert set(file.alternatives) == set(case.others)
    assert file.backbone.items() >= case.expected.items()
    assert case.note in file.source.get("note", "")
    assert bool(case.note) == ("note" in file.source)


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_the_head_and_the_classifier_are_kept(cases, name):
    path, case = cases(name)
    file = read_weights(path)
    assert (file.head is None) == (case.head is None)
    assert bool(file.part("fc")) == (case.classifier is not None)
    features = ours(file)
    if case.head is not None:
        head = MLP(**file.head).eval()
        head.load_state_dict(file.part("head"), strict=False)
        assert agrees(head(features), case.head(features))
    if case.classifier is not None:
        logits = classifier_of(file)(images(case.mean, case.std))
        assert agrees(logits, case.classifier(features))


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_the_other_encoders_on_request(cases, name):
    path, case = cases(name)
    for other, features in case.others.items():
        file = read_weights(path, Choice(encoder=other))
        assert file.encoder == other
        assert case.encoder in file.alternatives
        assert agrees(ours(file), features(images(case.mean, case.std)))


@pytest.mark.parametrize("name", CASES)
def test_exactly_one_format_tells_it(cases, name):
    path, case = cases(name)
    assert formats_of(path) == [case.format]


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_is_accounted_for(cases, name):
    path, case = cases(name)
    file = read_weights(path)
    assert len(file.tensors) + sum(file.dropped.values()) == len(case.state) + case.beside


@pytest.mark.parametrize("name", CASES)
def test_a_tensor_more_or_less_is_an_error(cases, tmp_path, name):
    _, case = cases(name)
    state = dict(case.state)
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    path = tmp_path / "changed"
    torch.save(case.with_state({**state, f"{prefix}stranger.weight": torch.ones(2)}), path)
    with pytest.raises(UserError, match=r"stranger.weight|fits none") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    less = {k: t for k, t in state.items() if not k.endswith((".0.bn2.weight", "4.0.bn2.weight"))}
    assert len(less) < len(state)
    torch.save(case.with_state(less), path)
    with pytest.raises(UserError, match=r"it lacks layer1.0.bn2.weight and 3 more"):
        read_weights(path)


def test_a_linear_classifier_without_its_backbone_says_so(tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    state = {"module.linear.weight": torch.ones(10, 8), "module.linear.bias": torch.ones(10)}
    torch.save({"epoch": 1, "state_dict": state, "best_acc": 75.0}, path)
    with pytest.raises(UserError, match=r"SwAV's evaluation trained: give the file of its pre"):
        read_weights(path)


def test_an_encoder_that_is_not_there_is_refused_with_those_that_are(cases):
    path, _ = cases("MoCo v2")
    with pytest.raises(UserError, match="no encoder=target, but query, key"):
        read_weights(path, Choice(encoder="target"))


def test_the_input_of_another_data_set_on_request(cases):
    path, _ = cases("solo-learn, CIFAR")
    file = read_weights(path, Choice(input="cifar100"))
    assert file.preprocess["mean"] == [0.5071, 0.4865, 0.4409]
    assert "note" not in file.source


def test_the_stem_of_another_code_on_request(cases):
    path, _ = cases("solo-learn, CIFAR")
    assert read_weights(path, Choice(stem="small")).backbone["stem"] == "small"
