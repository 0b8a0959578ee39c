"""The surrogate loss, dropout as a function of the step, and whole runs of the command."""

import math
from pathlib import Path

import pytest
import torch

from tests.pretrain.methods.steps import assert_same, batch_of, tiny_encoder, train
from tests.processes import run_on_two
from visrep.cli import main
from visrep.data.builtin.scenes import draw_crops
from visrep.data.dataset import MemoryImages
from visrep.data.exemplar.surrogate_classes import ExemplarLoader, Exemplars
from visrep.engine import snapshot
from visrep.engine.hooks import Hook
from visrep.engine.optim import multistep
from visrep.engine.trainer import Trainer
from visrep.errors import ConfigError
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.pretrain.methods.exemplar import Exemplar, surrogate_loss
from visrep.results import read
from visrep.weights import load_encoder
from visrep.weights.exemplar_file import read_exemplar

ONE = (16,)


def make() -> Exemplar:
    return Exemplar(encoder=tiny_encoder(), classes=20, dropout=0.5)


def test_loss_and_gradient_equal_plain_loops() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([6, 0, 3, 3])
    want = torch.zeros(())
    for row, own in zip(logits, index.tolist(), strict=True):
        want = want - torch.log(row[own].exp() / sum(value.exp() for value in row)) / 4
    got = surrogate_loss(logits, index)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, logits), torch.autograd.grad(want, logits))


@pytest.mark.parametrize(("classes", "want"), [(8000, 8.9872), (16000, 9.6803)])
def test_the_first_loss_is_ln_n(classes: int, want: float) -> None:
    torch.manual_seed(0)
    task = Exemplar(encoder=ExemplarNet(net="small"), classes=classes).train()
    index = torch.randint(classes, (16,))
    out = task({"views": [torch.randn(16, 3, 32, 32)], "index": index, "seed": 0})
    assert out["loss"].item() == pytest.approx(want, abs=0.15)  # the logits are small
    assert surrogate_loss(torch.zeros(3, classes), index[:3]).item() == pytest.approx(
        want, abs=5e-5
    )
    levels = task.reference_levels(16)
    assert levels.loss_collapsed == pytest.approx(want, abs=5e-5)
    assert levels.others["accuracy_chance"] == 1 / classes


def test_the_forward_is_encoder_dropout_softmax() -> None:
    task = make().double().train()
    batch = batch_of(0, sizes=ONE)
    out = task(batch)
    f = task.encoder(batch["views"][0])
    dropped = task._dropped(f, batch["seed"])
    zero = dropped == 0
    assert 0.3 < zero.double().mean() < 0.7
    torch.testing.assert_close(dropped[~zero], 2 * f[~zero])
    weight, bias = task.head.layers[0].linear.weight, task.head.layers[0].linear.bias
    logits = dropped @ weight.T + bias  # neither normalised nor divided by a temperature
    torch.testing.assert_close(out["loss"], surrogate_loss(logits, batch["index"]))
    hit = (logits.argmax(dim=1) == batch["index"]).double().mean()
    assert out["accuracy"].item() == pytest.approx(hit.item())


def test_dropout_is_a_function_of_the_step_and_rests_in_evaluation() -> None:
    task = make().double().train()
    f = torch.ones(2000, 5, dtype=torch.float64)
    first = task._dropped(f, 7)
    torch.rand(3)  # the global generator has no say
    assert torch.equal(task._dropped(f, 7), first)
    assert not torch.equal(task._dropped(f, 8), first)
    assert first.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(task.eval()._dropped(f, 7), f)
    assert torch.equal(
        Exemplar(encoder=tiny_encoder(), classes=3, dropout=0).train()._dropped(f, 7), f
    )


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="views= makes 2"):
        make().double()(batch_of(0))
    with pytest.raises(ConfigError, match="dropout=1"):
        Exemplar(encoder=tiny_encoder(), dropout=1.0)


def work() -> dict[str, torch.Tensor]:
    return train(make, batchnorm="local", sizes=ONE, lr=0.02)


def test_two_processes_equal_one_with_split_statistics() -> None:
    one = train(make, batchnorm="split", groups=2, sizes=ONE, lr=0.02)
    for other in run_on_two(work):
        assert_same(one, other)


def test_micro_batches_are_a_larger_batch() -> None:
    whole, parts = (
        Exemplar(encoder=tiny_encoder(), classes=20, dropout=0).double().eval() for _ in "ab"
    )
    parts.load_state_dict(whole.state_dict())
    batch = batch_of(0, sizes=ONE)
    whole(batch)["loss"].backward()
    for half in (slice(0, 4), slice(4, 8)):
        part = {**batch, "views": [batch["views"][0][half]], "index": batch["index"][half]}
        (parts(part)["loss"] / 2).backward()
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


# Training, the loader and all


class Stop(Hook):
    """Ends a run in the middle, as a kill would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step == self.at:
            raise KeyboardInterrupt


def fit(
    out: Path | None, *, steps: int, samples: int = 20, hooks: tuple = (), dropout: float = 0.5
) -> dict[str, float]:
    torch.manual_seed(0)
    views = Exemplars(
        classes=8, samples=samples, size=16, side=(0.6, 1.0), mean=(0.5,) * 3, std=(0.25,) * 3
    )
    crops = draw_crops("train", count=30, seed=3).images
    loader = ExemplarLoader(
        MemoryImages(name="crops", images=crops), views=views, batch_size=8, seed=1
    )
    task = Exemplar(encoder=tiny_encoder(), classes=8, dropout=dropout)
    optimizer = torch.optim.SGD(task.parameters(), 0.05, momentum=0.9)
    trainer = Trainer(
        task=task,
        optimizer=optimizer,
        schedule=multistep(steps, [], 1 / 3),
        batches=loader,
        total_steps=steps,
        out=out,
        precision="fp32",
        snapshot_every=4 if out else 0,
        hooks=hooks,
    )
    return trainer.fit()


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path: Path) -> None:
    fit(tmp_path / "straight", steps=10)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", steps=10, hooks=(Stop(7),))
    assert snapshot.latest(tmp_path / "cut" / "snapshots")[0] == 4
    fit(tmp_path / "cut", steps=10)
    (_, one), (_, other) = (
        snapshot.latest(tmp_path / name / "snapshots") for name in ("straight", "cut")
    )
    for name, value in one["task"].items():
        assert torch.equal(value, other["task"][name]), name


def test_it_learns() -> None:
    metrics = fit(None, steps=80, samples=2, dropout=0.0)
    assert metrics["loss"] < 0.5 * math.log(8) and metrics["accuracy"] > 0.7


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    assert caught.value.code == 0


RUN = (
    *("pretrain", "data=scenes", "method=exemplar_small", "threads=1", "knn.times=0", "steps=2"),
    *("views.classes=12", "views.samples=3", "batch_size=8"),
)


def test_the_command_with_the_papers_net_and_a_resnet(tmp_path: Path) -> None:
    call(*RUN[:2], "method=exemplar", *RUN[3:], "backbone.net=small", f"out={tmp_path / 'cnn'}")
    net = read_exemplar(tmp_path / "cnn" / "encoder.safetensors")
    assert net is not None and net.spec == {"net": "small"} and net.preprocess.size == 32
    records = read(tmp_path / "cnn" / "results.jsonl")
    assert {r.metric for r in records} >= {"loss"} and {r.weights for r in records} == {net.sha256}
    assert records[0].config["method"]["classes"] == 12  # one key sets both
    loss = next(r.value for r in records if r.metric == "loss")
    assert loss == pytest.approx(math.log(12), abs=0.1)

    call(*RUN, "backbone=resnet18_small", "backbone.width=0.0625", f"out={tmp_path / 'resnet'}")
    encoder = load_encoder(tmp_path / "resnet" / "encoder.safetensors")
    assert encoder.spec["stem"] == "small" and encoder.preprocess.mean == (0.5, 0.5, 0.5)
    assert "12 surrogate classes of 3 samples" in (tmp_path / "resnet" / "log.txt").read_text()
