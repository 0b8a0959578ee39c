"""A choice of classes, and two spellings of one name."""

import pytest

from visrep.data.detection.classes import choose, nearest, spellings
from visrep.errors import ConfigError, UserError

FOUND = ["cat", "dog", "traffic light"]


def test_all_or_some_in_the_order_that_is_asked():
    assert choose(FOUND, None, "set") == FOUND
    assert choose(FOUND, ["dog", "cat"], "set") == ["dog", "cat"]
    assert choose(FOUND, "dog", "set") == ["dog"], "one name without brackets"


def test_choices_that_are_none():
    with pytest.raises(ConfigError, match="is empty"):
        choose(FOUND, [], "set")
    with pytest.raises(ConfigError, match="has dog twice"):
        choose(FOUND, ["dog", "dog"], "set")
    with pytest.raises(UserError, match="set has none of the classes cow; it has cat, dog, traf"):
        choose(FOUND, ["cow"], "set")


def test_spellings_of_one_name(log_lines):
    assert spellings(["red", "Red", "blue", "traffic_light", "Traffic Light"]) == [
        ["Red", "red"],
        ["Traffic Light", "traffic_light"],
    ]
    choose(["Red", "red", "blue"], ["red"], "a/Annotations")
    assert log_lines == [
        "a/Annotations: Red and red are probably one class; give them one name, or choose with "
        "detection.classes"
    ]
    choose(FOUND, None, "set")
    assert len(log_lines) == 1


def test_the_nearest_name():
    assert nearest("perosn", ["person", "cat"]) == " (perhaps person)"
    assert nearest("DOG", ["dog"]) == " (perhaps dog)" and nearest("xyz", FOUND) == ""
