"""KEY VALUE after a command, as Detectron2's users type them."""

import pytest

from visrep.d2.opts import _pairs
from visrep.d2.typed import translated
from visrep.errors import ConfigError
from visrep.overrides import parse


def opts(words):
    """d2_opts as the command gets them."""
    (line,) = [word for word in translated(words) if word.startswith("d2_opts=")]
    return _pairs(parse([line])[0].value())


def test_settings_of_detectron2_become_d2_opts():
    words = ["weights=x", "MODEL.RPN.NMS_THRESH", "0.6", "out=y", "INPUT.FORMAT", "RGB", "-m"]
    assert [word for word in translated(words) if "d2_opts" not in word] == [
        *("weights=x", "out=y", "-m")
    ]
    assert opts(words) == [("MODEL.RPN.NMS_THRESH", 0.6), ("INPUT.FORMAT", "RGB")]
    assert opts(["SOLVER.STEPS", "(60, 80)"]) == [("SOLVER.STEPS", (60, 80))]
    assert opts(["A.B", "it's [a] {c}, d"]) == [("A.B", "it's [a] {c}, d")]
    assert opts(["A.B", "-1"]) == [("A.B", -1)]


def test_what_visrep_calls_otherwise_is_its_own_setting():
    words = ["SOLVER.MAX_ITER", "100", "task=x", "SEED", "3", "OUTPUT_DIR", "runs/a"]
    assert translated(words) == ["iterations=100", "task=x", "seed=3", "out=runs/a"]
    assert translated(["task=x", "--dry-run", "~detectron2"]) == [
        *("task=x", "--dry-run", "~detectron2")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL.MASK_ON"], "MODEL.MASK_ON has no value"),
        (["MODEL.MASK_ON", "SOLVER.GAMMA", "0.5"], "MODEL.MASK_ON has no value"),
        (["MODEL.MASK_ON", "out=x"], "MODEL.MASK_ON has no value"),
        (["MODEL.MASK_ON", "--dry-run"], "MODEL.MASK_ON has no value"),
        (["d2_opts=[A.B,1]", "SOLVER.GAMMA", "0.5"], "give SOLVER.GAMMA in d2_opts="),
    ],
)
def test_half_a_setting_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        translated(words)
