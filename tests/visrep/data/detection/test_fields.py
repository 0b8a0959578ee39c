"""Values of annotations as numbers, text and floats."""

import math

import pytest

from visrep.data.detection.fields import flag, identity, number, side
from visrep.errors import UserError


@pytest.mark.parametrize("value", [7, 7.0, "7", "7.0", " 7 ", "007", "+7"])
def test_one_id_in_all_its_forms(value):
    assert identity({"id": value}, "id", "a.json") == 7


def test_ids_beyond_the_exact_floats_and_of_text():
    assert identity({"id": str(2**60 + 1)}, "id", "x") == 2**60 + 1
    assert identity({"id": "im_7"}, "id", "x") == "im_7"


@pytest.mark.parametrize("value", [7.5, True, math.nan, math.inf, "", " ", [7], {"a": 1}, None])
def test_what_is_no_id(value):
    with pytest.raises(UserError, match=r"a\.json.*id"):
        identity({"id": value}, "id", "a.json")


@pytest.mark.parametrize("value", [0, 0.0, "0", "false", "False", False, None, "", " 0 "])
def test_flags_that_are_not_set(value):
    assert flag(value, "iscrowd", "x") is False


@pytest.mark.parametrize("value", [1, 1.0, "1", "true", True])
def test_flags_that_are_set(value):
    assert flag(value, "iscrowd", "x") is True


@pytest.mark.parametrize("value", [2, -1, 0.5, "maybe", [0]])
def test_flags_that_say_nothing(value):
    with pytest.raises(UserError, match="x: iscrowd is"):
        flag(value, "iscrowd", "x")


def test_numbers_and_sizes():
    assert number("1.5e1", "area", "x") == 15 and side("40.0", "width", "x") == 40
    assert [side(value, "width", "x") for value in (None, 0, "", "0")] == [None] * 4
    for value in (math.nan, "wide", True, [1], None):
        with pytest.raises(UserError, match="x: area .* is no number"):
            number(value, "area", "x")
    for value in (-4, 40.5):
        with pytest.raises(UserError, match="x: width .* is no size"):
            side(value, "width", "x")
