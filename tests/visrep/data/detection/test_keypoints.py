"""Keypoints of a COCO file: read as they are meant, mirrored, and files that are wrong."""

import copy

import pytest

from tests.visrep.data.pictures import coco_content, write_coco
from visrep.data import identity
from visrep.data.detection import read_coco, trainable
from visrep.data.detection.keypoints import COCO_SIGMAS, check_mirror, check_same
from visrep.errors import ConfigError, UserError

NAMES = ["nose", "left_eye", "right_eye"]
ROW = [10, 5, 2, 3, 4, 1, 0, 0, 0]


def content(row=ROW, **category):
    """A dog with three keypoints, and cats that have none."""
    made = coco_content()
    made["categories"][0] |= {"keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]} | category
    made["annotations"][0]["keypoints"] = row
    return made


def read(root, made, **options):
    return read_coco(write_coco(root, made), root, keypoints=True, **options)


def test_a_keypoint_lies_in_the_middle_of_its_pixel(tmp_path):
    data = read(tmp_path, content())
    assert data.keypoints.names == tuple(NAMES) and data.keypoints.partners == (0, 2, 1)
    assert data.keypoints.skeleton == ((0, 1), (0, 2)) and data.skipped == []
    dog, cat = data.records[0].boxes
    assert dog.keypoints == (10.5, 5.5, 2, 3.5, 4.5, 1, 0, 0, 0) and cat.keypoints is None
    assert [r.id for r in trainable(data, masks=False, keypoints=True)] == ["7"]
    assert len(trainable(data, masks=False)) == 2
    without = read_coco(tmp_path / "set.json", tmp_path)
    assert without.keypoints is None and without.records[0].boxes[0].keypoints is None


def test_classes_may_have_keypoints_of_their_own(tmp_path):
    made = content()
    made["categories"][1] |= {"keypoints": ["tail", "nose"], "skeleton": [[1, 2]]}
    made["annotations"][2]["keypoints"] = [1, 1, 2, 2, 2, 1]
    data = read(tmp_path, made)
    assert data.keypoints.names == ("nose", "left_eye", "right_eye", "tail")
    assert data.keypoints.skeleton == ((0, 1), (0, 2), (3, 0))
    assert data.records[1].boxes[0].keypoints == (2.5, 2.5, 1, *[0.0] * 6, 1.5, 1.5, 2)
    assert read(tmp_path, made, classes=["cat"]).keypoints.names == ("tail", "nose")


def test_what_a_run_remembers_of_its_data(tmp_path):
    """Other keypoints are other data; what has none is remembered as it was before there were."""
    made = content()
    first = identity.of_detection(read(tmp_path, made))["fingerprint"]
    made["annotations"][0]["keypoints"][0] = 11
    assert identity.of_detection(read(tmp_path, made))["fingerprint"] != first
    box = read(tmp_path, coco_content()).records[0].boxes[0]
    assert repr(box) == (
        "Box(xyxy=(1.5, 2.0, 11.5, 22.25), category=1, difficult=False, crowd=False, mask=None, "
        "area=None, stated=None)"
    )


@pytest.mark.parametrize(
    ("names", "partners"),
    [
        (["left eye", "right eye"], (1, 0)),
        (["rightEye", "leftEye", "tip"], (1, 0, 2)),
        (["LEFT-1", "RIGHT-1"], (1, 0)),
        (["left_eye", "nose"], None),  # its partner is missing
        (["a", "b"], None),
        (["bright", "upright"], None),
    ],
)
def test_what_a_mirror_exchanges_is_told_by_names(tmp_path, names, partners):
    data = read(tmp_path, content([1, 1, 2] * len(names), keypoints=names, skeleton=[]))
    assert data.keypoints.partners == partners
    if partners is None:
        with pytest.raises(ConfigError, match=r"give pairs as detection\.keypoint_flips="):
            check_mirror(data)
    else:
        check_mirror(data)


def test_what_a_mirror_exchanges_may_be_stated(tmp_path):
    assert read(tmp_path, content(), keypoint_flips=[]).keypoints.partners == (0, 1, 2)
    stated = read(tmp_path, content(), keypoint_flips=[["nose", "left_eye"]])
    assert stated.keypoints.partners == (1, 0, 2)
    for flips, message in (
        ([["nose", "ear"]], "ear is no keypoint; choose from nose, left_eye, right_eye"),
        ([["nose"]], "is no pair"),
        ([["nose", "nose"]], "is no pair"),
        ("nose", "give pairs"),
        ([["nose", "left_eye"], ["nose", "right_eye"]], "nose is in two pairs"),
    ):
        with pytest.raises(ConfigError, match=f"keypoint_flips.*{message}"):
            read(tmp_path, content(), keypoint_flips=flips)


def test_sigmas_are_coco_s_stated_or_uniform(tmp_path):
    ours = read(tmp_path, content()).keypoints
    assert (ours.sigmas, ours.sigmas_of) == ((0.05,) * 3, "not stated")
    one = read(tmp_path, content(), keypoint_sigmas=0.1).keypoints
    assert (one.sigmas, one.sigmas_of) == ((0.1,) * 3, "stated")
    assert read(tmp_path, content(), keypoint_sigmas=[1, 2, 3]).keypoints.sigmas == (1, 2, 3)
    persons = content([1, 1, 1] * 17, keypoints=list(COCO_SIGMAS), skeleton=[])
    coco = read(tmp_path, persons).keypoints
    assert coco.sigmas_of == "COCO" and coco.sigmas == tuple(COCO_SIGMAS.values())
    for wrong in ([0.1, 0.2], 0, "much", [1, 2, -3], float("nan")):
        with pytest.raises(ConfigError, match="keypoint_sigmas=.*give 3 numbers above 0"):
            read(tmp_path, content(), keypoint_sigmas=wrong)


@pytest.mark.parametrize(
    ("keypoints", "line"),
    [
        ([1, 2, 2], "keypoints hold 3 values where 3 points have 9; left out"),
        ("nose", "keypoints hold 'nose' values where 3 points have 9; left out"),
        ([2, 10, 5, 1, 3, 4, 0, 0, 0], "have a flag 5, not 0, 1 or 2"),
        ([10, 5, 1.5, *[0] * 6], "have a flag 1.5, not 0, 1 or 2"),
    ],
)
def test_keypoints_that_are_none_are_left_out_and_told(tmp_path, keypoints, line):
    data = read(tmp_path, content(keypoints))
    assert line in data.skipped[0] and "annotation 1 (dog in a.png)" in data.skipped[0]
    assert data.records[0].boxes[0].keypoints is None
    with pytest.raises(UserError, match="no object has a labelled keypoint"):
        trainable(data, masks=False, keypoints=True)
    with pytest.raises(UserError, match="use on_bad=report"):
        read(tmp_path, content(keypoints), on_bad="raise")


def test_keypoints_outside_the_image_and_wrong_counts_are_told(tmp_path):
    made = content([60, 5, 2, 3, 4, 1, 0, 0, 0])
    made["annotations"][0]["num_keypoints"] = 3
    outside, count = read(tmp_path, made).skipped
    assert "keypoints outside the 50x40 image: nose; not learned" in outside
    assert "num_keypoints is 3 but 2 are labelled; these count" in count


def test_nothing_labelled_is_no_keypoint(tmp_path):
    data = read(tmp_path, content([0] * 9))
    assert data.records[0].boxes[0].keypoints is None and data.skipped == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": ["a", "a", "b"]}, "keypoints must be a list of different names"),
        ({"keypoints": "nose"}, "keypoints must be a list of different names"),
        ({"keypoints": ["a", "", "b"]}, "keypoints must be a list of different names"),
        ({"keypoints": []}, "its category names none; add their names"),
    ],
)
def test_categories_that_are_wrong_are_one_line(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, content(**change))


def test_values_that_are_no_number_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"annotation 1 \(dog in a.png\): keypoints 'x' is no numb"):
        read(tmp_path, content(["x", *ROW[1:]]))


def test_a_skeleton_that_joins_nothing_is_told(tmp_path):
    data = read(tmp_path, content(skeleton=[[1, 2], [1, 9], [0, 1], 3]))
    assert data.keypoints.skeleton == ((0, 1),)
    assert [line.split("category dog: ")[1].split(" is no")[0] for line in data.skipped] == [
        "skeleton [1, 9]",
        "skeleton [0, 1]",
        "skeleton 3",
    ]


def test_both_parts_must_have_the_same_keypoints(tmp_path):
    data = read(tmp_path, content())
    other = copy.deepcopy(content())
    other["categories"][0]["keypoints"] = NAMES[::-1]
    test = read(tmp_path, other)
    check_same(data, NAMES, "test")
    with pytest.raises(UserError, match="nose, left_eye, right_eye against right_eye, left_eye"):
        check_same(data, test.keypoints.names, test.name)
