"""InfoNCE against its plain form and published values; the order of a step, the queue, the keys."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.oracles import contrastive
from tests.pretrain.methods.steps import Now, assert_same, batch_of, tiny_encoder, train
from tests.processes import run_on_two
from visrep.cli import main
from visrep.errors import ConfigError
from visrep.nn import ema
from visrep.nn.batchnorm import BatchNorm, set_batchnorm
from visrep.nn.embeddings import unit
from visrep.pretrain.methods.moco import MoCo, info_nce
from visrep.weights import load_encoder


def make() -> MoCo:
    return MoCo(encoder=tiny_encoder(), out_dim=16, queue_size=24, momentum=0.9)


def make_symmetric() -> MoCo:
    return MoCo(
        encoder=tiny_encoder(), out_dim=16, queue_size=24, momentum=0.9, symmetric=True, mlp=False
    )


def test_loss_and_gradient_equal_the_oracle() -> None:
    torch.manual_seed(0)
    q = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    k = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    queue = torch.randn(5, 4, dtype=torch.float64)
    want = contrastive.info_nce(q, k, queue, 0.3)
    (want_gradient,) = torch.autograd.grad(want, q)
    got, _ = info_nce(unit(q), unit(k), unit(queue), temperature=0.3)
    gradient, to_key = torch.autograd.grad(got, (q, k), allow_unused=True)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradient, want_gradient)
    assert to_key is None


def loss_of(cosine: float, queue: torch.Tensor, temperature: float) -> float:
    """The loss of one query whose key is at `cosine`, in the plane of the first two axes."""
    q, k = torch.zeros(2, 1, queue.shape[1], dtype=queue.dtype)
    q[0, 0] = 1
    k[0, 0], k[0, 1] = cosine, math.sqrt(1 - cosine**2)
    return info_nce(q, k, queue, temperature=temperature)[0].item()


@pytest.mark.parametrize(
    ("size", "temperature", "want"),
    [(65536, 0.07, 0.040135), (65536, 0.2, 6.092617), (4096, 0.1, 0.170551)],
)
def test_known_values_of_an_orthogonal_queue(size: int, temperature: float, want: float) -> None:
    queue = torch.zeros(size, 4, dtype=torch.float64)
    queue[:, 3] = 1
    assert loss_of(1.0, queue, temperature) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(("size", "want"), [(65536, 11.0904), (4096, 8.3180)])
def test_known_values_of_collapsed_features(size: int, want: float) -> None:
    queue = torch.zeros(size, 4, dtype=torch.float64)
    queue[:, 0] = 1
    assert loss_of(1.0, queue, 0.07) == pytest.approx(want, abs=5e-5)
    task = MoCo(encoder=tiny_encoder(), queue_size=size)
    assert task.reference_levels(256).loss_collapsed == pytest.approx(want, abs=5e-5)


@pytest.mark.parametrize(
    ("cosine", "temperature", "want"),
    [(1.0, 0.07, 0.0870), (1.0, 0.2, 6.19), (0.0, 0.07, 11.888), (0.0, 0.2, 11.188)],
)
def test_known_values_of_a_random_queue(cosine: float, temperature: float, want: float) -> None:
    torch.manual_seed(0)
    queue = unit(torch.randn(65536, 128))
    assert loss_of(cosine, queue, temperature) == pytest.approx(want, rel=0.02)


def test_a_key_that_is_already_in_the_queue_costs_ln_2() -> None:
    # The trap of enqueuing before the logits: the positive is a negative, too.
    queue = torch.zeros(8, 4, dtype=torch.float64)
    queue[:, 3] = 1
    assert loss_of(1.0, queue, 0.05) < 0.01
    queue[0] = torch.tensor([1.0, 0, 0, 0])
    assert loss_of(1.0, queue, 0.05) >= math.log(2)


def test_the_published_order_of_operations() -> None:
    """Four steps against a transcription of algorithm 1, with the enqueue inside the step."""
    task = make().double().train()
    f_q = nn.ModuleList([copy.deepcopy(task.encoder), copy.deepcopy(task.head)])
    f_k = copy.deepcopy(f_q).requires_grad_(False)
    task.queue.keys.copy_(unit(task.queue.keys))  # unit in float64, too
    queue, pointer = task.queue.keys.clone(), 0
    for step in range(4):
        batch = batch_of(step)
        out = task(batch)
        task.zero_grad()
        out["loss"].backward()
        task.before_update(Now(step, 4))
        with torch.no_grad():
            for p in task.parameters():
                if p.requires_grad:
                    p -= 0.1 * p.grad
        task.after_update(Now(step + 1, 4))

        x_q, x_k = batch["views"]
        q = f_q[1](f_q[0](x_q))
        with torch.no_grad():
            for p_k, p_q in zip(f_k.parameters(), f_q.parameters(), strict=True):
                p_k.copy_(0.9 * p_k + 0.1 * p_q)
            k = unit(f_k[1](f_k[0](x_k)))
        loss = contrastive.info_nce(q, k, queue, 0.2)
        queue = queue.clone()
        queue[pointer : pointer + 8] = k
        pointer = (pointer + 8) % 24
        f_q.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in f_q.parameters():
                p -= 0.1 * p.grad

        torch.testing.assert_close(out["loss"], loss)
        torch.testing.assert_close(task.queue.keys, queue)
        assert task.queue.pointer.item() == pointer
        for p, want in zip(task.encoder.parameters(), f_q[0].parameters(), strict=True):
            torch.testing.assert_close(p, want)
    # The keys' running statistics are those of their own batches.
    torch.testing.assert_close(
        task.key_encoder.bn1.running_var, f_k[0].bn1.running_var, rtol=0, atol=1e-12
    )
    assert not torch.equal(task.key_encoder.bn1.running_var, task.encoder.bn1.running_var)


def test_the_key_network_gets_no_gradient_and_starts_as_a_copy() -> None:
    task = make().double()
    for name, p in task.encoder.named_parameters():
        assert torch.equal(p, task.key_encoder.get_parameter(name))
    task.train()(batch_of(0))["loss"].backward()
    assert all(p.grad is not None for p in [*task.encoder.parameters(), *task.head.parameters()])
    for net in (task.key_encoder, task.key_head):
        assert all(p.grad is None and not p.requires_grad for p in net.parameters())


def test_the_direction_and_speed_of_the_moving_average() -> None:
    task = MoCo(encoder=tiny_encoder(), out_dim=16, queue_size=24, momentum=0.999)
    with torch.no_grad():
        for net, value in ((task.encoder, 1.0), (task.key_encoder, 0.0)):
            for p in net.parameters():
                p.fill_(value)
    task.after_update(Now(1, 1000))
    assert task.key_encoder.conv1.weight.max().item() == pytest.approx(0.001)
    for _ in range(999):
        ema.update(task.key_encoder, task.encoder, momentum=task.momentum)
    assert task.key_encoder.conv1.weight.min().item() == pytest.approx(0.6323, abs=1e-4)
    assert task.encoder.conv1.weight.min().item() == 1.0


def test_the_keys_come_home_in_the_order_of_their_queries() -> None:
    task = make().double().train()
    batch = batch_of(0)
    task(batch)
    (keys,) = task.new_keys
    # With one set of statistics the shuffle changes nothing but rounding.
    torch.testing.assert_close(keys, unit(task.key_head(task.key_encoder(batch["views"][1]))))


def test_the_shuffle_changes_who_shares_statistics() -> None:
    task = make().double().train()
    set_batchnorm(task, mode="split", groups=2)
    batch = batch_of(0)
    task(batch)
    (keys,) = task.new_keys
    unshuffled = unit(task.key_head(task.key_encoder(batch["views"][1])))
    assert (keys - unshuffled).abs().max() > 1e-3
    task(batch)
    torch.testing.assert_close(task.new_keys[1], keys)  # a function of the seed
    task({**batch, "seed": batch["seed"] + 1})
    assert (task.new_keys[2] - keys).abs().max() > 1e-3
    task.shuffle = False  # plain batch norm: the groups of the queries
    task(batch)
    torch.testing.assert_close(task.new_keys[3], unshuffled)
    assert not task.new_keys[3].requires_grad


def test_one_process_splits_the_batch_and_says_so(tmp_path: Path) -> None:
    """The paper's statistics are those of 32 of 256 samples; the choices of the engine differ."""
    hashes = set()
    for name, settings in (
        ("auto", ["bn_splits=4"]),
        ("shuffle", ["batchnorm=shuffle", "bn_splits=4"]),
        ("split", ["batchnorm=split", "bn_splits=2"]),
        ("local", ["batchnorm=local", "method.shuffle=false"]),
    ):
        run_for_two_steps(tmp_path / name, *settings)
        said = "batch is split into 4 groups" in (tmp_path / name / "log.txt").read_text()
        assert said == (name in ("auto", "shuffle"))
        hashes.add(load_encoder(tmp_path / name / "encoder.safetensors").sha256)
    assert len(hashes) == 3  # auto is shuffle


def run_for_two_steps(out: Path, *settings: str) -> None:
    tiny = ["backbone=resnet18_small", "backbone.width=0.0625", "threads=1", "knn.times=0"]
    with pytest.raises(SystemExit) as caught:
        main(
            ["pretrain", "data=scenes", "method=moco_small", *tiny, "batch_size=32", "steps=2",
             "method.queue_size=128", "precision=fp32", "device=cpu", f"out={out}", *settings]
        )  # fmt: skip
    assert caught.value.code == 0


def test_the_heads_of_v1_and_v2() -> None:
    v1, v2 = (MoCo(encoder=tiny_encoder(), mlp=mlp).head for mlp in (False, True))
    assert [layer["out"] for layer in v1.spec["layers"]] == [128]
    assert [layer["out"] for layer in v2.spec["layers"]] == [32, 128]
    for head in (v1, v2):
        assert all(layer.linear.bias is not None for layer in head.layers)
        assert not any(isinstance(m, BatchNorm) for m in head.modules())
        assert head(torch.randn(4, 32)).min() < 0


def test_the_queue_starts_with_unit_vectors() -> None:
    task = make()
    torch.testing.assert_close(task.queue.keys.norm(dim=1), torch.ones(24))


def test_a_queue_that_the_batch_does_not_divide_is_refused() -> None:
    task = MoCo(encoder=tiny_encoder(), queue_size=20).double()
    with pytest.raises(ConfigError, match=r"20.*8"):
        task(batch_of(0))


def test_symmetric_is_the_mean_of_both_directions_and_enqueues_both() -> None:
    task, once = make_symmetric().double().train(), make_symmetric().double().train()
    once.symmetric = False
    for net in (task, once):  # statistics of half the batch: the shuffle counts
        set_batchnorm(net, mode="split", groups=2)
    batch = batch_of(0)
    there = once(batch)
    back = once({**batch, "views": batch["views"][::-1], "seed": batch["seed"] + 1})
    both = task(batch)
    torch.testing.assert_close(both["loss"], (there["loss"] + back["loss"]) / 2)
    keys = torch.cat(once.new_keys)
    task.after_update(Now(1, 2))
    torch.testing.assert_close(task.queue.keys[:16], keys)
    assert task.queue.pointer == 16


def test_evaluating_leaves_no_keys_behind() -> None:
    task = make().double().eval()
    before = task.queue.keys.clone()
    task(batch_of(0))
    task.after_update(Now(1, 2))
    assert torch.equal(task.queue.keys, before)


def test_the_loss_stays_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    q, k, queue = unit(torch.randn(4, 128)), unit(torch.randn(4, 128)), unit(torch.randn(64, 128))
    want, _ = info_nce(q, k, queue, temperature=0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = info_nce(q, k, queue, temperature=0.07)
    assert got.dtype == torch.float32 and torch.equal(got, want)


def work(maker: object) -> dict[str, torch.Tensor]:
    return train(maker, batchnorm="local", steps=4)


@pytest.mark.parametrize("maker", [make, make_symmetric])
def test_two_processes_equal_one_with_split_statistics(maker: object) -> None:
    one = train(maker, batchnorm="split", groups=2, steps=4)
    first, second = run_on_two(work, maker)
    assert_same(one, first)
    assert_same(one, second)
    assert torch.equal(first["state queue.keys"], second["state queue.keys"])


def test_it_learns() -> None:
    task = MoCo(encoder=tiny_encoder(), queue_size=32, momentum=0.9).double().train()
    set_batchnorm(task, mode="split", groups=2)
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], 0.03, 0.9)
    losses, accuracies = [], []
    for step in range(40):
        out = task(batch_of(step % 8))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        task.after_update(Now(step + 1, 40))
        losses.append(out["loss"].item())
        accuracies.append(out["accuracy"].item())
    assert losses[0] < losses[10]  # the queue is random at first, which is easy
    assert sum(losses[-10:]) / 10 < math.log(33) - 0.4
    assert sum(accuracies[-10:]) / 10 > 0.3  # chance: 0.03
