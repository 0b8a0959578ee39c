"""The input of an encoder, as the settings of views."""

import pytest

from visrep.data.preprocess import Preprocess
from visrep.engine.evaluation import input_of
from visrep.errors import ConfigError

PLAIN = {"size": 8, "resize": None, "mean": (0, 0, 0), "std": (1, 1, 1)}


def test_an_antialiased_encoder_leaves_the_resize_to_the_views():
    assert set(input_of(Preprocess(**PLAIN))) == {"size", "mean", "std"}


def test_an_encoder_without_antialiasing_is_trained_without():
    """Finetuning, distillation and augmented probes cut their crops as its source did."""
    given = input_of(Preprocess(**PLAIN, interpolation="bicubic_tf1", antialias=False))
    assert (given["interpolation"], given["antialias"]) == ("bicubic_tf1", False)


def test_bgr_is_refused():
    with pytest.raises(ConfigError, match="visrep convert"):
        input_of(Preprocess(**PLAIN, channel_order="BGR"))
