"""Finetuning: what it starts from, what it trains, what it writes."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.small_data import (
    CLASSES,
    composed,
    count_reads,
    preprocess,
    tiny_net,
    write_encoder,
    write_folder,
)
from visrep import results
from visrep.config import compose
from visrep.data.folders import image_folder
from visrep.distill import finetune
from visrep.distill.finetune import Finetune, labelled, settle, starting_point
from visrep.engine import optim
from visrep.errors import ConfigError, UserError
from visrep.nn.classifier import Classifier
from visrep.nn.heads import MLP, simclr_head
from visrep.weights import load_classifier, read_weights

QUICK = ["batch_size=16", "epochs=4", "views.scale=[0.5,1.0]", "snapshot_every=0"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, seed=3)
    return path


def batch(n: int = 8) -> dict[str, list[Tensor] | Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {"views": [torch.rand(n, 3, 16, 16, generator=draw)], "label": torch.arange(n) % 3}


@pytest.mark.parametrize("selector", [0, 1, 2, 3])
def test_selector_k_is_the_output_of_k_layers(weights: Path, selector: int) -> None:
    file = read_weights(weights)
    net = starting_point(file, classes=3, selector=selector, init="pretrained", seed=0).eval()
    encoder, head = tiny_net(), MLP(**file.head)
    encoder.load_state_dict(file.part(""))
    head.load_state_dict(file.part("head"))
    (x,) = batch()["views"]
    expected = head.eval()(encoder.eval()(x), depth=selector)
    assert torch.equal(net.features(x), expected)
    if selector == 1:
        assert expected.min() == 0  # after the ReLU, not before it
    assert not net(x).any()


def test_start_is_random_by_seed_and_has_the_same_shapes(weights: Path) -> None:
    file = read_weights(weights)

    def start(init: str, seed: int) -> dict[str, Tensor]:
        return starting_point(file, classes=3, selector=1, init=init, seed=seed).state_dict()

    trained, fresh, again, other = (
        start("pretrained", 0),
        start("random", 0),
        start("random", 0),
        start("random", 1),
    )
    name = "encoder.conv1.weight"
    assert trained.keys() == fresh.keys()
    assert torch.equal(fresh[name], again[name])
    assert not torch.equal(fresh[name], other[name])
    assert not torch.equal(fresh[name], trained[name])


def test_selector_beyond_the_head_is_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ConfigError, match="has 3 layers; choose 0 to 3"):
        starting_point(read_weights(weights), classes=3, selector=4, init="pretrained", seed=0)
    write_encoder(tmp_path / "bare.safetensors", head=False)
    bare = read_weights(tmp_path / "bare.safetensors")
    with pytest.raises(ConfigError, match="holds no projection head; add selector=0"):
        starting_point(bare, classes=3, selector=1, init="pretrained", seed=0)
    with pytest.raises(ConfigError, match="choose pretrained or random"):
        starting_point(bare, classes=3, selector=0, init="imagenet", seed=0)


def classifier() -> Classifier:
    encoder = tiny_net()
    head = MLP(in_dim=32, layers=simclr_head(hidden=32, out_dim=8, depth=3))
    return Classifier(encoder=encoder, classes=3, head=head, layers=1)


@pytest.mark.parametrize("train_head", [True, False])
def test_everything_moves_but_a_kept_head(train_head: bool) -> None:
    net = classifier()
    task = Finetune(classifier=net, train_head=train_head).train()
    optimizer, _ = optim.build(
        net,
        name="lars",
        lr=0.005,
        lr_rule="sqrt",
        batch_size=1024,
        steps_per_epoch=1,
        total_steps=3,
        exclude=["norm", "bias", "fc"],
    )
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(3):
        outputs = task(batch())
        optimizer.zero_grad()
        outputs["loss"].backward()
        if step == 0:  # a zero classifier sends nothing back
            assert outputs["loss"].item() == pytest.approx(torch.tensor(3.0).log().item())
            assert not any(p.grad.any() for p in net.encoder.parameters())
        optimizer.step()
    moved = {
        name for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    head_weights = {"head.layers.0.linear.weight", "head.layers.0.norm.weight"}
    assert "encoder.conv1.weight" in moved
    assert "encoder.bn1.running_mean" in moved  # batch statistics
    assert "head.layers.0.norm.running_mean" in moved
    assert "fc.weight" in moved
    assert head_weights <= moved if train_head else not head_weights & moved


def test_64_images_are_learnt_by_heart() -> None:
    """A scale check without ImageNet, with the recipe's optimizer at a rate for so small a net."""
    net = classifier()
    task = Finetune(classifier=net).train()
    optimizer, schedule = optim.build(
        net,
        name="sgd",
        lr=0.1,
        lr_rule="none",
        batch_size=64,
        steps_per_epoch=1,
        total_steps=60,
    )
    data = batch(64)
    for step in range(60):
        optim.set_learning_rate(optimizer, schedule(step / 60))
        optimizer.zero_grad()
        outputs = task(data)
        outputs["loss"].backward()
        optimizer.step()
    assert outputs["loss"].item() < 0.1
    assert outputs["train_top1"].item() == 100


def test_labels_are_a_balanced_share_all_or_a_list(tmp_path: Path) -> None:
    train = image_folder(str(write_folder(tmp_path)), split="train")
    share = labelled(train, 0.2, draw=0)
    assert torch.bincount(train.labels[share]).tolist() == [4, 4, 4]
    assert torch.equal(share, labelled(train, 0.2, draw=0))
    assert not torch.equal(share, labelled(train, 0.2, draw=1))
    assert labelled(train, 1.0, draw=0).tolist() == list(range(60))
    (tmp_path / "list.txt").write_text("".join(f"{train.file(i)}\n" for i in (7, 3)))
    assert labelled(train, str(tmp_path / "list.txt"), draw=0).tolist() == [7, 3]
    with pytest.raises(UserError, match="none.txt"):
        labelled(train, str(tmp_path / "none.txt"), draw=0)


@pytest.mark.parametrize(
    ("share", "epochs", "selector"),
    [
        (0.001, 60, 1),
        (12811 / 1281167, 60, 1),
        (0.05, 60, 1),
        (128116 / 1281167, 30, 1),
        (1, 30, 0),
    ],
)
def test_imagenets_epochs_and_selector_follow_the_share(
    share: float, epochs: int, selector: int
) -> None:
    required = ["weights=x", "out=x", "data=imagenet", "data.root=x"]
    cfg, _ = compose("finetune", required)
    settle(cfg, share=share)
    assert (cfg.epochs, cfg.selector, cfg.optim.lr) == (epochs, selector, 0.005)
    typed, _ = compose("finetune", [*required, "epochs=7", "selector=2"])
    settle(typed, share=share)
    assert (typed.epochs, typed.selector) == (7, 2)
    scratch, _ = compose("finetune", [*required, "init=random"])
    settle(scratch, share=share)
    assert scratch.selector == 0


def test_setting_without_a_value_is_refused() -> None:
    cfg, _ = compose("finetune", ["data=scenes", "weights=x", "out=x"])
    cfg.by_share = {0.1: {"epochs": 3, "selector": 1}}
    with pytest.raises(ConfigError, match=r"add optim\.lr="):
        settle(cfg, share=0.1)
    cfg, _ = compose("finetune", ["data=scenes", "weights=x", "out=x"])
    cfg.by_share = {}
    with pytest.raises(ConfigError, match="selector has no value"):
        settle(cfg, share=0.1)


def test_command_writes_a_classifier_and_what_it_used(tmp_path: Path, weights: Path) -> None:
    root = write_folder(tmp_path / "data")
    out = tmp_path / "out"
    settings = [f"weights={weights}", "labels=0.2", "optim.name=sgd", "optim.lr=0.05", *QUICK]
    settings += ["optim.lr_rule=none", "epochs=60"]
    finetune.main(composed("finetune", root, f"out={out}", *settings))

    (record,) = results.read(out / "results.jsonl")
    assert (record.task, record.metric, record.init) == ("finetune", "top1", "pretrained")
    assert record.weights == read_weights(weights).sha256
    assert record.extra["images"] == 12
    assert (record.extra["labels"], record.extra["draw"], record.extra["selector"]) == (0.2, 0, 1)
    names = (out / "labels.txt").read_text().splitlines()
    assert len(names) == 12
    assert record.value > 50  # of three classes, with 12 labels

    net = load_classifier(out / "encoder.safetensors")
    assert net.classes == CLASSES
    assert net.sha256 == record.extra["finetuned"]
    assert len(net.head.layers) == 1
    test = image_folder(str(root), split="test")
    images = torch.stack([test[i] for i in range(len(test))])
    with torch.no_grad():
        hit = net(preprocess()(images)).argmax(dim=1) == test.labels
    assert 100 * hit.double().mean().item() == pytest.approx(record.value)

    again = tmp_path / "again"
    settings[1] = f"labels={out / 'labels.txt'}"
    finetune.main(composed("finetune", root, f"out={again}", *settings))
    (listed,) = results.read(again / "results.jsonl")
    assert (again / "labels.txt").read_text().splitlines() == names
    assert listed.extra["images"] == 12
    assert listed.extra["list_list"] == "labels.txt"


def test_config_states_what_ran_and_the_file_is_read_once(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_folder(tmp_path / "data", train=30, test=6), tmp_path / "out"
    settings = [f"weights={weights}", "labels=0.2", "batch_size=8", "views.scale=[0.5,1.0]"]
    settings += ["resume=auto", f"out={out}", "by_share={0.1: {epochs: 3, optim.lr: 0.2}}"]
    settings += ["init=random", "snapshot_every=1"]
    reads = count_reads(monkeypatch)
    finetune.main(composed("finetune", root, *settings))
    assert reads == [weights.name]
    stored = OmegaConf.load(out / "config.yaml")
    (record,) = results.read(out / "results.jsonl")
    for config in (stored, OmegaConf.create(record.config)):
        assert (config.epochs, config.selector, config.optim.lr) == (3, 0, 0.2)
    resolved = finetune.resolve(composed("finetune", root, *settings))
    assert OmegaConf.to_container(resolved, resolve=True) == stored

    # The same command goes on, also in a folder of a version that left nulls and had other names.
    sha256 = load_classifier(out / "encoder.safetensors").sha256
    last = sorted((out / "snapshots").iterdir())[-1]
    last.unlink()
    old = OmegaConf.merge(stored, {"epochs": None, "selector": None, "optim": {"lr": None}})
    old.views._target_ = "visrep.data.recipes.recipe"
    OmegaConf.save(old, out / "config.yaml")
    finetune.main(composed("finetune", root, *settings))
    assert "resumed from the snapshot of step 2/3" in (out / "log.txt").read_text()
    assert load_classifier(out / "encoder.safetensors").sha256 == sha256
    assert OmegaConf.load(out / "config.yaml") == stored
    with pytest.raises(ConfigError, match=r"\(epochs\)"):
        finetune.main(composed("finetune", root, *settings, "epochs=4"))


def test_data_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="data"):
        compose("finetune", ["weights=x", "out=x"])


def test_all_labels_start_from_the_encoder_and_random_from_scratch(
    tmp_path: Path, weights: Path
) -> None:
    root = write_folder(tmp_path / "data", train=12, test=6)
    out = tmp_path / "out"
    settings = [f"weights={weights}", "labels=1.0", "init=random", *QUICK]
    finetune.main(composed("finetune", root, f"out={out}", *settings))
    (record,) = results.read(out / "results.jsonl")
    assert (record.init, record.extra["selector"], record.extra["images"]) == ("random", 0, 12)
    assert load_classifier(out / "encoder.safetensors").head is None
    assert "larger than the 12 labelled images" in (out / "log.txt").read_text()
