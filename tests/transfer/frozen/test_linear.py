"""The linear probe: its maths, its choice of the learning rate, the command."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.small_data import composed, tiny_net, write_encoder, write_folder
from visrep import results
from visrep.engine import optim
from visrep.errors import ConfigError
from visrep.transfer.frozen import linear
from visrep.transfer.frozen.linear import FeatureBatches, LinearProbe


def blobs(n: int = 90, d: int = 6, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = torch.randn(n, d, generator=draw)
    x[torch.arange(n), labels] += 3
    return x, labels


def probe_of(x: torch.Tensor, rates: list[float]) -> LinearProbe:
    return LinearProbe(rates=rates, classes=3, mean=x.mean(dim=0), std=x.std(dim=0))


def test_heads_trained_together_equal_heads_trained_alone() -> None:
    x, labels = blobs()
    rates = [0.01, 0.1, 1.0]

    def trained(rates: list[float]) -> LinearProbe:
        probe = probe_of(x, rates)
        optimizer, _ = optim.build(
            probe,
            **probe.optim(momentum=0.9, weight_decay=1e-3),
            batch_size=32,
            steps_per_epoch=2,
            total_steps=12,
        )
        assert {group["lr"] for group in optimizer.param_groups} == set(rates)
        stream = FeatureBatches(x, labels, batch_size=32, seed=0).iterate(0)
        for _ in range(12):
            optimizer.zero_grad()
            probe(next(stream))["loss"].backward()
            optimizer.step()
        return probe

    together = trained(rates).logits(x)
    assert together.shape == (3, 90, 3)
    for rate, logits in zip(rates, together, strict=True):
        torch.testing.assert_close(logits, trained([rate]).logits(x)[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_loss_is_the_sum_of_mean_cross_entropies() -> None:
    x, labels = blobs()
    probe = probe_of(x, [0.1, 1.0])
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(int(parameter.numel())))
        probe.weights[1].mul_(2)
    given = probe({"views": [x], "label": labels})
    standard = (x - x.mean(dim=0)) / x.std(dim=0)
    losses = [
        F.cross_entropy(standard @ weight.T + bias, labels)
        for weight, bias in zip(probe.weights, probe.biases, strict=True)
    ]
    torch.testing.assert_close(given["loss"], sum(losses))
    torch.testing.assert_close(given["best_loss"], min(losses))


def test_scale_of_the_features_does_not_matter_and_dead_ones_stay_silent() -> None:
    x, _ = blobs()
    dead = torch.cat([x, torch.full((90, 1), 7.0)], dim=1)
    plain, scaled = probe_of(dead, [0.1]), probe_of(1000 * dead + 5, [0.1])
    with torch.no_grad():
        for probe in (plain, scaled):
            probe.weights[0].fill_(1.0)
    torch.testing.assert_close(
        plain.logits(dead), scaled.logits(1000 * dead + 5), atol=1e-3, rtol=0
    )
    other = dead.clone()
    other[:, -1] = 8.0
    assert torch.equal(plain.logits(other), plain.logits(dead))


def test_batches_are_a_function_of_the_step_and_cover_an_epoch() -> None:
    x, labels = blobs()
    source = FeatureBatches(x, labels, batch_size=30, seed=4)
    assert source.steps_per_epoch == 3
    first = source.iterate(0)
    batches = [next(first) for _ in range(6)]
    later = next(source.iterate(4))
    assert torch.equal(later["views"][0], batches[4]["views"][0])
    rows = torch.cat([batch["views"][0] for batch in batches[:3]])
    assert torch.equal(rows.sort(dim=0).values, x.sort(dim=0).values)
    assert not torch.equal(batches[0]["views"][0], batches[3]["views"][0])


def test_frozen_encoder_is_no_state_and_stays_in_eval_mode() -> None:
    net = tiny_net().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    probe = LinearProbe(
        rates=[0.1], classes=3, mean=torch.zeros(32), std=torch.ones(32), encoder=net
    ).train()
    values = probe({"views": [torch.rand(4, 3, 16, 16)], "label": torch.tensor([0, 1, 2, 0])})
    values["loss"].backward()
    assert not net.training
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not [name for name in probe.state_dict() if "conv" in name]


@pytest.mark.parametrize("augment", [False, True])
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: bool) -> None:
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "cache"))
    root = write_folder(tmp_path / "data")
    sha256 = write_encoder(tmp_path / "encoder.safetensors")
    settings = [
        f"weights={tmp_path / 'encoder.safetensors'}",
        f"augment={str(augment).lower()}",
        "views.scale=[0.5,1.0]",
        "epochs=30",
        "batch_size=32",
        "lrs=[0.0001,0.01,0.1]",
    ]
    linear.main(composed("linear", root, f"out={tmp_path / 'a'}", *settings))
    (record,) = results.read(tmp_path / "a" / "results.jsonl")
    assert (record.task, record.metric, record.dataset) == ("linear", "top1", "data/test")
    assert (record.weights, record.init) == (sha256, "pretrained")
    assert record.value > 60  # an untrained net tells three colours apart; chance is 33
    assert record.extra["lr"] in (0.0001, 0.01, 0.1)
    assert record.extra["augment"] is augment
    if not augment:
        linear.main(composed("linear", root, f"out={tmp_path / 'b'}", *settings))
        (again,) = results.read(tmp_path / "b" / "results.jsonl")
        assert again.value == record.value
        fresh = composed("linear", root, f"out={tmp_path / 'c'}", "init=random", *settings)
        linear.main(fresh)
        (other,) = results.read(tmp_path / "c" / "results.jsonl")
        assert other.weights != sha256
        head = composed("linear", root, f"out={tmp_path / 'd'}", "output=head", *settings)
        linear.main(head)
        (of_head,) = results.read(tmp_path / "d" / "results.jsonl")
        assert (of_head.extra["output"], record.extra["output"]) == ("head", "pooled")
        assert of_head.value != record.value and of_head.weights == sha256


@pytest.mark.parametrize("wrong", ["held_out=0", "lrs=[]", "lrs=[-1.0]", "epochs=0"])
def test_wrong_settings_are_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.split("=")[0]):
        linear.main(composed("linear", tmp_path, f"out={tmp_path / 'out'}", "weights=x", wrong))
    assert not (tmp_path / "out").exists()
