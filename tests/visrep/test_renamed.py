"""The successors of removed names: they are there, and who types the old ones is told."""

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

from visrep import config, renamed
from visrep.cli import COMMANDS
from visrep.errors import ConfigError


@pytest.mark.parametrize(("old", "new"), renamed.MODULES.items())
def test_every_successor_is_there(old, new):
    try:
        found = find_spec(new) is not None
    except ModuleNotFoundError:  # a name in a module
        module, _, name = new.rpartition(".")
        found = hasattr(importlib.import_module(module), name)
    assert found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("transfer.knn", "visrep.transfer.frozen.knn"),
        ("pretrain.methods.moco.MoCo", "visrep.pretrain.methods.moco.MoCo"),
        ("visrep.data.recipes.recipe", "visrep.data.views.spec.make_views"),
        ("visrep.pretrain.train", None),
        ("torch.nn", None),
    ],
)
def test_the_longest_that_fits_counts(old, new):
    assert renamed.module(old) == new


def test_an_import_of_0_1_0_names_its_successor(tmp_path):
    lines = "import visrep\ntry:\n    from {} import x\nexcept ImportError as e:\n    print(e)\n"
    script = "".join(map(lines.format, ("visrep.weights.canonical", "visrep.optim")))
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.stdout.splitlines() == [
        "visrep.weights.canonical is visrep.weights.encoder_file now",
        "visrep.optim is visrep.engine.optim now",
    ], shown.stderr
    with pytest.raises(ModuleNotFoundError, match=r"transfer is visrep\.transfer now"):
        renamed.Successors().find_spec("transfer")
    # A module of the user's own with an old name is not in the way.
    (tmp_path / "transfer.py").write_text("x = 1")
    own = "import visrep, transfer; print(transfer.x)"
    done = subprocess.run([sys.executable, "-c", own], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize(
    ("command", "key"),
    [(command, key) for command in renamed.KEYS for key in renamed.KEYS[command]],
)
def test_a_removed_key_names_its_successor(command, key):
    assert command in COMMANDS
    groups = {"detect": ["task=scenes"], "finetune": ["data=scenes"], "distill": ["data=scenes"]}
    with pytest.raises(ConfigError, match=f"unknown key {key}") as caught:
        config.compose(command, [*groups.get(command, []), f"{key}=1"])
    assert renamed.KEYS[command][key] in str(caught.value)


@pytest.mark.parametrize(
    ("command", "setting"),
    [(command, value) for command in renamed.VALUES for value in renamed.VALUES[command]],
)
def test_a_removed_value_names_its_successor(command, setting):
    with pytest.raises(ConfigError) as caught:
        config.compose(command, [setting])
    assert renamed.VALUES[command][setting] in str(caught.value)


def test_a_target_of_0_1_0_names_its_successor():
    with pytest.raises(ConfigError, match="it is visrep.pretrain.methods.byol.BYOL now"):
        config.instantiate({"_target_": "pretrain.methods.byol.BYOL"})
