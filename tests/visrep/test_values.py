"""Settings of another kind than their key wants are refused before anything is built."""

from typing import Optional

import pytest

from visrep import config, values
from visrep.cli import main
from visrep.config import compose
from visrep.errors import ConfigError

PRETRAIN = ("data=scenes", "method=simclr_small", "out=x")
OF = {
    "pretrain": PRETRAIN,
    "knn": ("data=scenes", "weights=x", "out=x"),
    "linear": ("data=scenes", "weights=x", "out=x"),
    "svm": ("data=scenes", "weights=x", "out=x"),
    "low_shot": ("data=scenes", "weights=x", "out=x"),
    "finetune": ("data=scenes", "weights=x", "out=x"),
    "distill": ("data=scenes", "teacher=x", "student=resnet18_small_w8", "out=x"),
    "detect": ("detection=scenes", "task=scenes", "weights=x", "out=x"),
    "splits": ("out=x",),
    "views": ("out=x.png",),
    "export": ("weights=x", "out=x.onnx"),
}
WRONG = {
    "pretrain": "epochs=abc workers=-1 workers=1.5 workers=null batch_size=0 batch_size=7.5 "
    "batch_size=x batch_size=null batch_size=true seed=x seed=-1 seed=4294967296 steps=x steps=-1 "
    "log_every=0 log_every=null snapshot_every=x snapshot_every=-1 threads=0 accumulate=0 "
    "max_broken=x max_broken=null max_broken=1 knn.times=x knn.k=0 knn.bank=0 optim.lr=nan "
    "optim.lr=inf optim.momentum=2 overwrite=maybe extend=5 deterministic=x continuous=1 "
    "optim.warmup_epochs=x optim.weight_decay=-1 seed=[1] batch_size=1e3",
    "knn": "k=x k=[1,x] k=1.5 k=0 temperature=x temperature=0 size=x size=0 batch_size=-1",
    "linear": "lrs=3 lrs=[x] lrs=[nan] held_out=0 held_out=1 held_out=x augment=5 momentum=x",
    "svm": "costs=3 costs=[x] costs=[0] folds=x max_iter=0 tolerance=0 positive_weight=x",
    "low_shot": "shots=3 shots=[1.5] draws=x cost=x",
    "finetune": "draw=-1 selector=x train_head=x",
    "distill": "temperature=x alpha=2 tau_squared=x",
    "detect": "draw=-1 iterations=0 iterations=1.5 warmup=x score_threshold=2 lr=nan flip=x "
    "train_sizes=5 decay_at=x decay_at=[5]",
    "splits": "fraction=x fraction=0 fraction=null",
    "views": "rows=x columns=0",
    "export": "batches=[0] batches=[] batches=x tolerance=x repeats=0",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_value_of_the_wrong_kind_is_named(command):
    compose(command, OF[command])
    for setting in WRONG[command].split():
        key, _, value = setting.partition("=")
        with pytest.raises(ConfigError) as refused:
            compose(command, [*OF[command], setting])
        assert str(refused.value).startswith(f"{key}={value}"[:9]), setting
        assert "give " in str(refused.value)


def test_numbers_whose_default_is_computed_may_be_null():
    cfg = compose("pretrain", [*PRETRAIN, "steps=null", "threads=null", "snapshot_every=null"])[0]
    assert cfg.steps is None and cfg.threads is None


@pytest.mark.parametrize("word", ["device", "precision", "resume", "health", "batchnorm"])
def test_a_word_may_not_be_null(word):
    with pytest.raises(ConfigError, match=f"^{word}=null: give a value"):
        compose("pretrain", [*PRETRAIN, f"{word}=null"])
    with pytest.raises(ConfigError, match="^labels=null: give a value"):
        compose("finetune", [*OF["finetune"], "labels=null"])


def test_a_number_from_the_environment_is_a_number(monkeypatch):
    monkeypatch.setenv("VISREP_TASK", "3")
    assert compose("pretrain", [*PRETRAIN, "seed=${oc.env:VISREP_TASK}"])[0].seed == 3


@pytest.mark.parametrize(
    "part",
    ["knn=null", "optim=null", "views=null", "method=null", "data.train=null", "~knn", "knn=5"],
)
def test_a_part_that_holds_settings_cannot_be_left_out(part):
    with pytest.raises(ConfigError, match=part.strip("~").partition("=")[0]):
        compose("pretrain", [*PRETRAIN, part])


def test_a_sweep_is_checked_value_by_value(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Hydra writes its multirun.yaml there
    with pytest.raises(SystemExit) as end:
        main(
            ["views", "data=scenes", "rows=1,0", "columns=1", f"out={tmp_path}/${{rows}}.png", "-m"]
        )
    assert end.value.code == 2 and "rows=0: give a whole number" in capsys.readouterr().err
    assert (tmp_path / "1.png").exists()


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("method.temperature=x", "a number"),
        ("method.memory_size=1.5", "a whole number"),
        ("method.out_dim=null", "a whole number"),
        ("method.out_dim=true", "a whole number"),
    ],
)
def test_an_argument_has_the_type_that_its_constructor_says(setting, wanted):
    with pytest.raises(ConfigError, match=f"{setting}: give {wanted}"):
        compose("pretrain", ["method=simclr", "data=scenes", setting])


def test_a_whole_number_is_a_number():
    cfg, _ = compose("pretrain", ["method=simclr", "data=scenes", "out=x", "method.temperature=1"])
    assert cfg.method.temperature == 1


def test_classes_are_a_list():
    given = ["weights=x", "out=y", "task=scenes", "detection=voc", "detection.root=z"]
    with pytest.raises(ConfigError, match=r"detection\.classes=5: give a list of names"):
        compose("detect", [*given, "detection.classes=5"])


def mine(heat, share: Optional[float] = None, rows: [1, 2] = None, many: "no type" = None):  # noqa
    """A constructor with types of every kind."""


@pytest.mark.parametrize(
    ("key", "value"),
    [("heat", "Absent"), ("share", None), ("share", 1e-3), ("rows", "x"), ("many", "x")],
)
def test_an_argument_of_an_unusual_type_takes_what_it_is_given(monkeypatch, key, value):
    monkeypatch.setattr(config.plugins, "trusted", lambda target: True)
    monkeypatch.setitem(mine.__annotations__, "heat", "Absent")  # of a type checker's import
    known = config._parameters(f"{__name__}.mine")
    assert list(known) == ["heat", "share", "rows", "many"]
    values.check_argument(key, value, known[key])


def test_an_optional_number_is_a_number():
    with pytest.raises(ConfigError, match="share=x: give a number"):
        values.check_argument("share", "x", Optional[float])  # noqa: UP045
