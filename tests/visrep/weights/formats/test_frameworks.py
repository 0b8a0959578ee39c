"""Every checkpoint of the libraries: told by one format, with the right net and nothing lost."""

from dataclasses import replace

import pytest
import torch

from tests.oracles.checkpoints.comparing import agrees, formats_of, saved
from tests.oracles.checkpoints.frameworks import CASES
from visrep.errors import UserError
from visrep.nn.heads import MLP
from visrep.weights import read_weights
from visrep.weights.foreign import Choice
from visrep.weights.reading import classifier_of, encoder_of

SEVERAL = (
    "torchvision: references",
    "timm: train.py",
    "VISSL: SimCLR with an average",
    "mmselfsup 0.x: MoCo",
    "mmselfsup 1.x: MoCo",
    "OpenSelfSup: BYOL",
    "mmselfsup 1.x: BYOL",
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return saved(CASES, tmp_path_factory.mktemp("checkpoints"))


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_the_net_is_the_one_that_was_saved(cases, name):
    path, case = cases(name)
    file = read_weights(path)
    assert file.kind == case.format
    assert file.backbone == case.net.spec
    features = encoder_of(file)(images())
    assert agrees(features, case.net(images()))
    assert (file.encoder, set(file.alternatives)) == (case.encoder, set(case.others))
    assert {key: file.preprocess[key] for key in case.preprocess} == case.preprocess
    assert case.note in file.source.get("note", "")
    assert bool(case.note) == ("note" in file.source)


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_the_head_and_the_classifier_are_kept(cases, name):
    path, case = cases(name)
    file = read_weights(path)
    assert (file.head is None) == (case.head is None)
    assert len(file.tensors.get("fc.weight", ())) == case.classes
    if case.head is not None:
        assert file.head == case.head.spec
        features = encoder_of(file)(images())
        head = MLP(**file.head).eval()
        head.load_state_dict(file.part("head"))
        assert agrees(head(features), case.head(features))
    if case.classes:
        assert classifier_of(file)(images()).shape == (2, case.classes)


@pytest.mark.parametrize("name", SEVERAL)
@torch.inference_mode()
def test_the_other_encoders_on_request(cases, name):
    path, case = cases(name)
    assert case.others
    for other, net in case.others.items():
        file = read_weights(path, Choice(encoder=other))
        assert file.encoder == other
        assert case.encoder in file.alternatives
        assert agrees(encoder_of(file)(images()), net(images()))
    with pytest.raises(UserError, match=f"holds no encoder=student, but {case.encoder}, "):
        read_weights(path, Choice(encoder="student"))


@pytest.mark.parametrize("name", CASES)
def test_exactly_one_format_tells_it(cases, name):
    path, case = cases(name)
    assert formats_of(path) == [case.format]


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_out_is_counted(cases, name):
    path, case = cases(name)
    file = read_weights(path)
    dropped = {k: n for k, n in file.dropped.items() if k != "counters of batches"}
    assert dropped == case.dropped


@pytest.mark.parametrize("name", ["timm: resnet18d", "Hugging Face: basic", "VISSL: bare"])
def test_a_tensor_more_or_less_is_an_error(tmp_path, name):
    case = CASES[name]()
    prefix = {"VISSL: bare": "_feature_blocks.", "Hugging Face: basic": "resnet."}.get(name, "")
    last = next(k for k in reversed(case.content) if k.endswith("bias") and "classifier" not in k)
    for change, message in (
        ({**case.content, f"{prefix}stranger.weight": torch.ones(2)}, r"stranger\.weight"),
        ({k: t for k, t in case.content.items() if k != last}, "it lacks "),
    ):
        replace(case, content=change).save(tmp_path / "changed")
        with pytest.raises(UserError, match=message) as caught:
            read_weights(tmp_path / "changed")
        assert "\n" not in str(caught.value)
