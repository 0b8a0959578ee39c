"""The linear rule, in numbers and in the configuration."""

import pytest

from visrep.config import compose
from visrep.errors import ConfigError
from visrep.transfer.detection import detect
from visrep.transfer.detection.scaling import scaled

MOCO = {"lr": 0.02, "iterations": 24000, "warmup": 100}


def test_as_many_images_are_seen_at_a_rate_that_follows_the_batch():
    assert scaled("none", **MOCO, batch_size=4, of=16) == MOCO
    assert scaled("linear", **MOCO, batch_size=16, of=16) == MOCO
    quarter = scaled("linear", **MOCO, batch_size=4, of=16)
    assert quarter == {"lr": 0.005, "iterations": 96000, "warmup": 400}
    double = scaled("linear", **MOCO, batch_size=32, of=16)
    assert double == {"lr": 0.04, "iterations": 12000, "warmup": 50}
    with pytest.raises(ConfigError, match="scale=root: choose none or linear"):
        scaled("root", **MOCO, batch_size=4, of=16)


def test_the_configuration_states_what_runs(tmp_path):
    given = ["weights=x", f"out={tmp_path}", "task=voc0712_c4", "batch_size=4"]
    plain = detect.resolve(compose("detect", given)[0])
    assert (plain.lr, plain.iterations, plain.warmup) == (0.02, 24000, 100), "as stated"
    typed = compose("detect", [*given, "scale=linear"])[0]
    resolved = detect.resolve(typed)
    assert (resolved.lr, resolved.iterations, resolved.warmup) == (0.005, 96000, 400)
    assert typed.lr == 0.02, "what was typed is left alone, so it can be resolved again"
    own = detect.resolve(compose("detect", [*given, "scale=linear", "lr=0.04"])[0])
    assert own.lr == 0.01, "a rate that is given is one for the task's batch"
