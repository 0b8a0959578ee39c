"""Paths are what was typed, the rest is Hydra's; nothing typed ends in a traceback."""

import random
import shlex

import pytest

from visrep import config
from visrep.cli import COMMANDS, main
from visrep.engine import run
from visrep.errors import ConfigError, UserError
from visrep.overrides import first_of, parse, quoted

NAMES = [
    "epoch=99-step=1000.ckpt", "photos (1)", "it's", "Müller", "写真", "a,b", "#1", "$HOME", "{}",
    "~", " a ", "[x]", "2024_02", "1e3", "0x10", "true", "nan", "a\\b", "a: b", "'a' b", '"', "${x",
    "a:b@c", "*?", "-", "=", "%20", "x" * 300, "\\${", "a\\",
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NAMES if name != "\\${"])
def test_a_path_is_what_was_typed(name):
    typed = [f"out={name}", f"weights={name}", "data=imagefolder", f"data.root={name}"]
    cfg, _ = config.compose("finetune", [*typed, f"data.train.names={name}"])
    assert [cfg.out, cfg.weights, cfg.data.train.root, cfg.data.train.names] == [name] * 4


@pytest.mark.parametrize("name", NAMES)
def test_a_quoted_path_is_what_the_quotes_hold(name):
    assert parse([f"out={quoted(name)}"])[0].value() == name


def test_shares_of_labels_stay_numbers():
    values = [
        override.value() for override in parse(["labels=0.1", "labels=1e-2", "labels=2024_02"])
    ]
    assert values == [0.1, 0.01, "2024_02"]
    assert parse(["labels=[0.01,0.1]"])[0].value() == [0.01, 0.1]


def test_null_is_none_where_the_key_can_do_without():
    cfg, _ = config.compose("knn", ["data=scenes", "weights=null", "out=null"])
    assert cfg.weights is None and cfg.out == "null"


def test_an_interpolation_in_a_path_is_followed_or_refused():
    typed = ["data=scenes", "weights=w"]
    assert config.compose("knn", [*typed, "out=runs/${seed}"])[0].out == "runs/0"
    with pytest.raises(ConfigError, match="nosuch"):
        config.compose("knn", [*typed, "out=${nosuch}"])
    with pytest.raises(ConfigError, match="out= has no value"):
        parse(["out="])


def test_the_first_value_of_a_sweep():
    firsts = [first_of(line) for line in ("a=1,2", "a=choice(x,y)", "a=[1,2],[3]", "a=range(2,5)")]
    assert firsts == ["a=1", "a=x", "a=[1,2]", "a=2"]
    assert first_of("out='a,b'") == "out=a,b"
    with pytest.raises(ConfigError, match="a list of values"):
        first_of("a=interval(0,1)")


def test_the_command_of_each_run_of_a_sweep_can_be_typed_again(tmp_path):
    seen = []
    typed = ["data=scenes", "weights='w x.pth'", "k=1,2"]
    typed += ["out=2024_02", "seed=3"]

    def job(cfg, alone):
        run.set_command_line(["knn", *alone])
        again = shlex.split(run.command_line())[2:]
        seen.append((cfg.k, cfg.weights, cfg.out))
        assert config.compose("knn", again)[0] == cfg

    config.sweep("knn", typed, job)
    assert seen == [(1, "w x.pth", "2024_02"), (2, "w x.pth", "2024_02")]


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        (["finetune", "weights=w", "data=scenes", "out=o", "selektor=1"], "selector"),
        (["finetune", "weights=w", "lable=0.1"], "labels"),
        (["detect", "weights=w", "itrations=3"], "iterations"),
        (["detect", "task=scenes", "detection=scenes", "weights=w", "itrations=3"], "iterations"),
        (["knn", "data.rot=x"], "data.root"),
    ],
)
def test_a_mistyped_key_names_the_nearest_before_what_is_missing(capsys, typed, nearest):
    with pytest.raises(SystemExit) as caught:
        main(typed)
    assert caught.value.code == 2
    assert f"did you mean {nearest}?" in capsys.readouterr().err


def test_a_key_of_a_choice_that_is_not_made_asks_for_the_choice(capsys):
    for typed, asked in (("detection.root=x", "detection"), ("iterations=3", "task")):
        with pytest.raises(SystemExit) as caught:
            main(["detect", "weights=w", "out=o", typed])
        assert caught.value.code == 2
        assert f"is of a {asked}: give {asked}=..., one of" in capsys.readouterr().err


class Picky:
    def __init__(self, *, size):
        raise ValueError(f"size {size} is wrong:\n  it must be even,\n  and positive")


def test_the_message_of_a_failing_constructor_is_whole(monkeypatch):
    monkeypatch.setattr(config.plugins, "trusted", lambda target: True)
    target = f"{__name__}.Picky"
    with pytest.raises(ConfigError, match="size 3 is wrong.*it must be even.*and positive"):
        config.instantiate({"_target_": target, "size": 3})
    with pytest.raises(UserError, match="siz.*Picky|Picky.*siz"):
        config.instantiate({"_target_": target, "siz": 3})


KEYS = [
    *("", "out", "weights", "data", "data.root", "a", "optim.lr", "seed", "backbone", "method"),
    *("labels", "plugins", "config_dir", "hydra.x", "+x", "++out", "~data", "~out", "~", "+", "@"),
    *("data@x", "optim", "a.b.c", "by_share.0.01", "optim.", "..", ".out", "by_share", "defaults"),
    *("teacher", "hydra/launcher", "_target_", "data._target_", "optim._target_", "task"),
]
VALUES = [
    *(*NAMES, "", "=", "a==b", "'", "{", "}", "[", "]", "${", "${x}", "${out}", "(1)", "'a", "a'"),
    *("null", "sgd", "[1,2]", "{a:1}", "*", "[" * 300, "x" * 5000, "\t", "\n", "choice(1,2)"),
    *("glob(*)", "${oc.env:}", "int(x)", "\\"),
]


@pytest.mark.parametrize("seed", range(3))
def test_no_argument_list_ends_in_a_traceback(capsys, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(seed)
    for _ in range(12):
        arguments = [rng.choice(sorted({*COMMANDS} - {"doctor"}))]
        for _ in range(rng.randrange(1, 4)):
            assigned = f"={rng.choice(VALUES)}" if rng.random() < 0.7 else ""
            arguments.append(
                rng.choice(KEYS) + assigned if rng.random() < 0.9 else rng.choice(VALUES)
            )
        arguments += ["--help" if rng.random() < 0.2 else "--dry-run"]
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        err = capsys.readouterr().err.splitlines()
        assert not caught.value.code or len(err) == 1, arguments
