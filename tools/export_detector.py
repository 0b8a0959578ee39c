"""A detector as ONNX, with its proposals and its non-maximum suppression inside.

The graph takes one uint8 image, 3 x H x W, RGB, of any size; normalisation and padding are inside.
It gives `boxes` n x 4 in pixels of that image, `scores` n, `labels` n (positions in `classes`) and,
of a detector with masks, `masks` n x M x M: the probability of each cell of the box. An image is
resized before it is fed, as the description says: by 8-bit bilinear with antialias, as in training.

torch's TorchScript exporter writes the graph: region pooling and suppression have their ONNX
operators there (torchvision registers them), and RoiAlign of ONNX with half_pixel and a sampling
ratio of 0 is what the detector computes.
"""

import io
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visrep.d2.recipe import DetectionRecipe
from visrep.data.builtin import scenes
from visrep.data.detection import ImageRecord
from visrep.data.folders import image_names
from visrep.data.images import image_size
from visrep.errors import ConfigError, UserError
from visrep.transfer.detection import engine_tv, translation
from visrep.transfer.detection.batches import load
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.tv_detector import Detector

FORMAT = "visrep-onnx-detector/1"
OPSET = 17  # RoiAlign has half_pixel from 16 on
IMAGES = 4  # looked at, each at every size
SIZES = (1.0, 0.75, 1.3)  # of the size in testing, which the graph must not have frozen


class DeployedDetector(nn.Module):
    """`detector` as a function of one uint8 image: boxes, scores, labels from 0 on, masks."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.detector([image.float() / 255])[0]
        masks = (found["masks"],) if "masks" in found else ()
        return found["boxes"], found["scores"], found["labels"] - 1, *masks


def deployed(file: DetectorFile) -> DeployedDetector:
    """The net of `file` on the CPU, in eval mode.

    Raises:
        ConfigError: it is one that torchvision cannot run, or has outputs that ONNX cannot have.
    """
    outputs = file.recipe["outputs"]
    if outputs not in ("boxes", "masks"):
        raise ConfigError(
            f"a net of outputs={outputs} cannot be exported: only boxes and masks can"
        )
    if file.engine == "detectron2":
        file = translation.to_torchvision(file)
    net = engine_tv.load(file, torch.device("cpu"))
    assert isinstance(net, Detector)  # which finds boxes, as its outputs say
    return DeployedDetector(net).eval()


def outputs_of(file: DetectorFile) -> list[str]:
    """Names of what the graph gives, in order."""
    return ["boxes", "scores", "labels", *(["masks"] if file.recipe["outputs"] == "masks" else [])]


def to_onnx(net: DeployedDetector, example: Tensor, *, outputs: Sequence[str]) -> bytes:
    """The ONNX model of `net`, input `image`: uint8 3 x H x W, any size."""
    graph, noise = io.BytesIO(), io.StringIO()  # the exporter reports its own progress
    with warnings.catch_warnings(), redirect_stdout(noise), redirect_stderr(noise):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (example,),
            graph,  # type: ignore[arg-type]  # a stream is what this exporter also writes to
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_axes={"image": {1: "height", 2: "width"}, **{o: {0: "n"} for o in outputs}},
        )
    return graph.getvalue()


def images_to_check(folder: str | None, recipe: DetectionRecipe) -> list[Tensor]:
    """Real images, uint8 3 x H x W, each resized to several sizes as before a prediction.

    Args:
        folder: where they lie; None for the built-in scenes.

    Raises:
        UserError: there is no image in it, or the first ones cannot be read.
    """
    if folder is None:
        records = scenes.detection("test").records[:IMAGES]
    else:
        place = Path(folder)
        names = image_names(place, recursive=True) if place.is_dir() else []
        if not names:
            raise UserError(f"images={folder}: no folder with images; give one to check on")
        chosen = names[:: max(1, len(names) // IMAGES)][:IMAGES]
        records = [ImageRecord(str(place / n), n, *image_size(place / n)) for n in chosen]
    return [
        load(
            record,
            short=max(1, round(scale * recipe.test_size)),
            most=max(1, round(scale * recipe.max_size)),
        )
        for record in records
        for scale in SIZES
    ]


def difference(run: Any, net: nn.Module, images: Sequence[Tensor]) -> tuple[float, float, int]:
    """Largest differences between onnxruntime and torch, and how many detections were compared.

    Returns:
        of boxes in pixels; of scores and mask probabilities; the number. Infinite where one finds
        what the other does not.
    """
    worst_box = worst_rest = 0.0
    compared = 0
    for image in images:
        given = [torch.from_numpy(each) for each in run.run(None, {"image": image.numpy()})]
        with torch.inference_mode():
            expected = net(image)
        if given[0].shape != expected[0].shape:
            return float("inf"), float("inf"), compared
        for mine, other in _pairs(given, expected):
            if mine is None:
                return float("inf"), float("inf"), compared
            box = (given[0][mine] - expected[0][other]).abs().max()
            worst_box = max(worst_box, float(box))
            for a, b in zip((given[1], *given[3:]), (expected[1], *expected[3:]), strict=True):
                worst_rest = max(worst_rest, float((a[mine] - b[other]).abs().max()))
            compared += 1
    return worst_box, worst_rest, compared


def _pairs(given: Sequence[Tensor], expected: Sequence[Tensor]) -> Iterator[tuple[int | None, int]]:
    """For each expected detection the free given one of its class with the nearest box.

    The order is no guide: detections of one score have none.
    """
    free = np.ones(len(given[0]), dtype=bool)
    for other in range(len(expected[0])):
        away = (given[0] - expected[0][other]).abs().amax(dim=1).numpy()
        away = np.where(free & (given[2] == expected[2][other]).numpy(), away, np.inf)
        mine = int(away.argmin())
        if not np.isfinite(away[mine]):
            yield None, other
            continue
        free[mine] = False
        yield mine, other


def describe(file: DetectorFile) -> dict[str, Any]:
    """What a deployment must know: what to feed, what comes out, where it is from."""
    recipe = DetectionRecipe(**file.recipe)
    said = {
        "boxes": "n x 4, left, top, right, bottom in pixels of the image that is fed",
        "scores": f"n, falling, {recipe.score_threshold:g} or more",
        "labels": "n, positions in classes",
        "masks": "n x M x M, probability in each cell of the box; 0.5 or more is the object",
    }
    return {
        "format": FORMAT,
        "input": {
            "name": "image",
            "shape": [3, "height", "width"],
            "dtype": "uint8",
            "channel_order": "RGB",
        },
        "before": {
            "resize_short_side": recipe.test_size,
            "long_side_at_most": recipe.max_size,
            "interpolation": "bilinear",
            "antialias": True,
        },
        "inside": file.preprocess,
        "output": {name: said[name] for name in outputs_of(file)},
        "classes": list(file.classes),
        "weights": file.sha256,
        "source": {"task": recipe.task, "engine": file.engine, "encoder": file.encoder},
    }


def with_card(onnx: Any, graph: bytes, card: dict[str, Any]) -> bytes:
    """The model with `card` in its metadata."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.doc_string = ""  # stack traces with paths of this machine
    stored = {key: value if key == "format" else json.dumps(value) for key, value in card.items()}
    onnx.helper.set_model_props(model, stored)
    return model.SerializeToString()
