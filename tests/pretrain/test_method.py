"""The contract: its defaults, and one line that names the member and the class that break it."""

import pytest
import torch
from torch import nn

from tests.pretrain.methods.steps import tiny_encoder
from visrep.errors import ConfigError
from visrep.pretrain.method import Levels, Method, Plan, require_contract
from visrep.pretrain.methods.byol import BYOL
from visrep.pretrain.methods.moco import MoCo
from visrep.pretrain.methods.npid import NPID
from visrep.pretrain.methods.simclr import SimCLR
from visrep.pretrain.methods.swav import SwAV


class Smallest(Method):
    """What a method cannot do without."""

    title = "Smallest"

    def __init__(self, *, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch):
        z = self.encoder(batch["views"][0])
        return {"loss": z.square().mean(), "embeddings": z.detach()}

    def reference_levels(self, batch_size):
        return Levels(loss_collapsed=1.0, knob="optim.lr")


def broken(**members) -> Method:
    """A method whose class has `members`."""
    return type("Broken", (Smallest,), members)(encoder=tiny_encoder())


def test_a_method_of_a_few_lines_keeps_the_contract() -> None:
    method = Smallest(encoder=tiny_encoder())
    require_contract(method, batch_size=8)
    assert method.batchnorm == "sync" and method.coupled and method.head is None
    assert method.check(Plan(batch_size=8, views=2, images=100, steps=10)) == []
    assert method.measures() == {} and method.passes([1.0, 1.0]) == 6
    assert list(method.state_dict()) == [f"encoder.{name}" for name in tiny_encoder().state_dict()]


def test_a_head_that_is_set_is_a_part_of_the_net() -> None:
    method = SimCLR(encoder=tiny_encoder())
    assert dict(method.named_children()).keys() == {"encoder", "head"}
    assert any(name.startswith("head.") for name, _ in method.named_parameters())


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"title": ""}, "Broken.title must be a name for reports, not ''"),
        (
            {"batchnorm": "global"},
            "Broken.batchnorm must be local or sync or shuffle, not 'global'",
        ),
        ({"coupled": "yes"}, "Broken.coupled must be true or false, not 'yes'"),
        ({"views": "two"}, "Broken.views must be a number of views, or None for any, not 'two'"),
        ({"judge": "eye"}, "Broken.judge must be knn or svm, not 'eye'"),
        ({"root_rule_below": None}, "Broken.root_rule_below must be a batch size, or 0, not None"),
        ({"__init__": lambda self, encoder: Method.__init__(self)}, "Broken.encoder must be a net"),
        ({"forward": Method.forward}, "Broken.forward is missing: it must return a dict with loss"),
        (
            {"reference_levels": Method.reference_levels},
            "Broken.reference_levels is missing: it must return visrep.pretrain.method.Levels",
        ),
        (
            {"reference_levels": lambda self, batch_size: {"loss": 1.0}},
            "Broken.reference_levels must return visrep.pretrain.method.Levels",
        ),
    ],
)
def test_what_breaks_it_is_named(members, match) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        require_contract(broken(**members), batch_size=8)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"method: {__name__}.")


def test_a_head_that_cannot_be_kept_and_a_module_that_is_no_method() -> None:
    method = Smallest(encoder=tiny_encoder())
    method.head = nn.Linear(32, 8)
    with pytest.raises(ConfigError, match="Smallest.head must be a visrep.nn.heads.MLP, or None"):
        require_contract(method, batch_size=8)
    with pytest.raises(ConfigError, match="Linear must derive from visrep.pretrain.method.Method"):
        require_contract(nn.Linear(2, 2), batch_size=8)


def test_another_number_of_views_is_refused() -> None:
    plan = Plan(batch_size=8, views=2, images=100, steps=10)
    plan.require_views(2)
    with pytest.raises(ConfigError, match="takes 1 view of an image, but views= makes 2"):
        plan.require_views(1)
    broken(views=None).check(plan)
    with pytest.raises(ConfigError, match="takes 3 views of an image, but views= makes 2"):
        broken(views=3).check(plan)


def test_titles_of_the_two_versions() -> None:
    titles = {
        MoCo(encoder=tiny_encoder(), mlp=mlp, queue_size=8).title for mlp in (False, True)
    } | {SimCLR(encoder=tiny_encoder(), head_layers=layers).title for layers in (2, 3)}
    assert titles == {"MoCo v1", "MoCo v2", "SimCLR", "SimCLR v2"}


class Counted(nn.Module):
    """Counts the passes of an encoder: 3 for images that are trained on, 1 for others."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.out_dim, self.spec = tiny_encoder(), 32, {}

    def forward(self, x):
        areas.append((3 if torch.is_grad_enabled() else 1) * len(x) * x.shape[-1] ** 2 / 16**2)
        return self.net(x)


areas: list[float] = []


PASSES = [
    (lambda e: MoCo(encoder=e, queue_size=8), (16, 16)),
    (lambda e: MoCo(encoder=e, queue_size=8, symmetric=True), (16, 16)),
    (lambda e: SimCLR(encoder=e), (16, 16)),
    (lambda e: SimCLR(encoder=e, memory_size=8), (16, 16)),
    (lambda e: BYOL(encoder=e, hidden_dim=8, out_dim=8), (16, 16)),
    (lambda e: SwAV(encoder=e, hidden_dim=8, out_dim=8, prototypes=4), (16, 16, 8, 8)),
    (lambda e: NPID(encoder=e, images=8, negatives=4), (16,)),
]


@pytest.mark.parametrize(("make", "sizes"), PASSES)
def test_passes_are_those_of_a_step(make, sizes) -> None:
    method = make(Counted()).train()
    areas.clear()
    views = [torch.rand(4, 3, size, size) for size in sizes]
    method({"views": views, "seed": 0, "index": torch.arange(4)})
    assert method.passes([(size / 16) ** 2 for size in sizes]) == sum(areas) / 4
