"""The file of predictions: exact, and refused when it is none."""

import dataclasses
import json

import pytest
import torch

from tests.transfer.detection.shapes import shapes, with_corners
from visrep.data.detection import Keypoints
from visrep.errors import UserError
from visrep.transfer.detection import prediction
from visrep.transfer.detection.masks import to_rle
from visrep.transfer.detection.prediction import Prediction


def test_predictions_survive_the_file_exactly(tmp_path):
    data = shapes(tmp_path / "images", images=3, seed=0)
    torch.manual_seed(0)
    written = {
        record.id: Prediction(
            boxes=torch.rand(5, 4) * 40,
            scores=torch.rand(5).sort(descending=True).values,
            labels=torch.randint(2, (5,)),
            masks=to_rle(torch.rand(5, record.height, record.width) > 0.5),
        )
        for record in data.records[:2]
    }
    prediction.save(tmp_path / "predictions.json", dataset=data, predictions=written)
    found = prediction.load(tmp_path / "predictions.json")
    assert list(found) == ["000", "001"]  # an image without an entry has none in the file
    for name, one in written.items():
        assert torch.equal(found[name].boxes, one.boxes)
        assert torch.equal(found[name].scores, one.scores)
        assert torch.equal(found[name].labels, one.labels)
        assert found[name].masks == one.masks


def test_keypoints_survive_the_file_in_the_order_of_their_objects(tmp_path):
    data = with_corners(shapes(tmp_path / "images", images=2, seed=0))
    written = {
        "000": Prediction(
            boxes=torch.rand(2, 4),
            scores=torch.tensor([0.25, 0.75]),
            labels=torch.tensor([0, 1]),
            keypoints=torch.rand(2, 4, 3) * 40,
        ),
        "001": Prediction(
            boxes=torch.zeros(0, 4),
            scores=torch.zeros(0),
            labels=torch.zeros(0, dtype=torch.int64),
            keypoints=torch.zeros(0, 4, 3),
        ),
    }
    prediction.save(tmp_path / "p.json", dataset=data, predictions=written)
    found = prediction.load(tmp_path / "p.json")
    assert torch.equal(found["000"].keypoints, written["000"].keypoints.flip(0))
    assert found["001"].keypoints.shape == (0, 4, 3)
    content = json.loads((tmp_path / "p.json").read_text())
    assert Keypoints.from_dict(content["keypoints"]) == data.keypoints
    truth = content["images"][0]["truth"]["keypoints"]
    assert [tuple(row) for row in truth] == [box.keypoints for box in data.records[0].boxes]


def test_the_truth_is_kept_with_its_flags(tmp_path):
    data = shapes(tmp_path / "images", images=1, seed=1)
    (box, *rest) = data.records[0].boxes
    data.records[0].boxes = [dataclasses.replace(box, difficult=True, crowd=True), *rest]
    none = Prediction(boxes=torch.empty(0, 4), scores=torch.empty(0), labels=torch.empty(0).long())
    prediction.save(tmp_path / "p.json", dataset=data, predictions={"000": none})
    truth = json.loads((tmp_path / "p.json").read_text())["images"][0]["truth"]
    assert truth["boxes"][0] == list(box.xyxy) and truth["labels"][0] == box.category
    assert truth["difficult"] == truth["crowd"] == [True] + [False] * len(rest)


def test_detections_are_sorted_by_score(tmp_path):
    data = shapes(tmp_path / "images", images=1, seed=0)
    one = Prediction(
        boxes=torch.arange(8.0).reshape(2, 4),
        scores=torch.tensor([0.25, 0.75]),
        labels=torch.tensor([0, 1]),
    )
    prediction.save(tmp_path / "p.json", dataset=data, predictions={"000": one})
    found = prediction.load(tmp_path / "p.json")["000"]
    assert found.scores.tolist() == [0.75, 0.25] and found.labels.tolist() == [1, 0]
    assert found.boxes[0].tolist() == [4, 5, 6, 7] and found.masks is None


@pytest.mark.parametrize("content", ["", "[]", '{"images": [{"id": "a"}]}', "not json"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"p\.json: not a file of predictions"):
        prediction.load(path)
    with pytest.raises(UserError, match="not a file of predictions"):
        prediction.load(tmp_path / "absent.json")
