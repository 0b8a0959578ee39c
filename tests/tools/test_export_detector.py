"""`visrep export` of a detector: onnxruntime finds what torch finds, whatever the image's size."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.transfer.detection.shapes import shapes
from tests.transfer.detection.test_pictures import keep
from visrep import results
from visrep.config import compose
from visrep.errors import CheckFailed, ConfigError, UserError
from visrep.tools import export, export_detector
from visrep.transfer.detection import detector_file, translation

runtime: Any = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
onnx: Any = pytest.importorskip("onnx", reason="the extra `export` is not installed")


def run(weights: Path, out: Path, *overrides: str) -> None:
    cfg, _ = compose("export", [f"weights={weights}", f"out={out}", "repeats=3", *overrides])
    export.main(cfg)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    shapes(tmp_path / "photos", images=4, seed=0)
    return tmp_path / "photos"


@pytest.mark.parametrize(("head", "outputs"), [("fpn", "masks"), ("fpn", "boxes"), ("c4", "masks")])
def test_onnx_gives_torchs_detections(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture, head: str, outputs: str
) -> None:
    kept = keep(tmp_path / "kept", outputs=outputs, head=head)
    out = tmp_path / "made" / "detector.onnx"
    run(tmp_path / "kept", out, f"images={photos}")
    assert "differ by at most" in capsys.readouterr().out

    file = detector_file.read(kept)
    net = export_detector.deployed(file)
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == export_detector.outputs_of(file)
    assert session.get_inputs()[0].type == "tensor(uint8)"
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for size in ((48, 64), (64, 48), (37, 91), (120, 50))
    ]
    boxes, rest, compared = export_detector.difference(session, net, images)
    assert compared > 4 and boxes < 1e-3 and rest < 1e-4
    # What torch's own way of predicting says of an image at its size.
    (given, scores, labels, *_) = session.run(None, {"image": images[0].numpy()})
    found = net.detector.predict(images[0], height=48, width=64)
    assert torch.allclose(torch.from_numpy(given), found.boxes, atol=1e-3)
    assert torch.equal(torch.from_numpy(labels), found.labels)
    assert torch.allclose(torch.from_numpy(scores), found.scores, atol=1e-5)

    card = json.loads(out.with_suffix(".json").read_text())
    stored = session.get_modelmeta().custom_metadata_map
    assert stored.pop("format") == card.pop("format") == "visrep-onnx-detector/1"
    assert {key: json.loads(value) for key, value in stored.items()} == card
    assert card["classes"] == ["square", "disc"] and card["before"]["resize_short_side"] == 48
    onnx.checker.check_model(str(out), full_check=True)
    assert str(Path(export.__file__).parent.parent).encode() not in out.read_bytes()
    fast, slow = results.read(out.parent / "results.jsonl")
    assert (fast.task, fast.engine, slow.engine) == ("export", "onnxruntime", "torch")
    assert fast.weights == file.sha256 and fast.extra["max_difference"] < 1e-3


def test_an_image_without_detections_has_none(tmp_path: Path, photos: Path) -> None:
    kept = keep(tmp_path / "kept", score_threshold=0.999)
    run(kept, tmp_path / "detector.onnx", f"images={photos}")
    session = runtime.InferenceSession(str(tmp_path / "detector.onnx"))
    image = torch.zeros(3, 50, 70, dtype=torch.uint8)
    boxes, scores, labels, masks = session.run(None, {"image": image.numpy()})
    assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,) and len(masks) == 0


def test_a_wrong_graph_is_not_kept(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, out = keep(tmp_path / "kept"), tmp_path / "made" / "detector.onnx"
    honest = export_detector.to_onnx

    def broken(net: Any, example: torch.Tensor, **kwargs: Any) -> bytes:
        bias = net.detector.roi_heads.box_predictor.bbox_pred.bias
        with torch.no_grad():
            bias.add_(0.1)
            model = honest(net, example, **kwargs)
            bias.sub_(0.1)
        return model

    monkeypatch.setattr(export_detector, "to_onnx", broken)
    with pytest.raises(CheckFailed, match="no file was kept"):
        run(kept, out, f"images={photos}")
    assert list(out.parent.iterdir()) == []


@pytest.mark.detectron2
def test_a_detector_of_detectron2_is_translated(tmp_path: Path, photos: Path) -> None:
    ours = detector_file.read(keep(tmp_path / "kept"))
    theirs = translation.to_detectron2(ours)
    (tmp_path / "d2").mkdir()
    kept = detector_file.save(tmp_path / "d2", theirs)
    assert kept.name == "model_final.pth"
    run(tmp_path / "d2", tmp_path / "d2.onnx", f"images={photos}")
    assert results.read(tmp_path / "results.jsonl")[0].weights == theirs.sha256
    own = dataclasses.replace(theirs, opts=["MODEL.RPN.NMS_THRESH", 0.6])
    detector_file.save(tmp_path / "d2", own)
    with pytest.raises(ConfigError, match=r"only Detectron2 knows \(MODEL.RPN.NMS_THRESH\)"):
        run(tmp_path / "d2", tmp_path / "own.onnx", f"images={photos}")


def test_refusals(tmp_path: Path, photos: Path) -> None:
    kept, out = keep(tmp_path / "kept"), tmp_path / "detector.onnx"
    with pytest.raises(ConfigError, match="batches= and prefix= are of encoders"):
        run(kept, out, "batches=[1]")
    with pytest.raises(UserError, match="no folder with images"):
        run(kept, out, f"images={tmp_path / 'absent'}")
    with pytest.raises(ConfigError, match="a net of outputs=keypoints cannot be exported"):
        file = detector_file.read(kept)
        file.recipe["outputs"] = "keypoints"
        export_detector.deployed(file)
    assert not out.exists()
    assert not detector_file.is_one(photos) and not detector_file.is_one(photos / "000.png")
    assert detector_file.is_one(kept) and detector_file.is_one(kept.parent)
