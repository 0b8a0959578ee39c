"""Tiny detection data for the tests: bright squares and discs on dark noise."""

from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from visrep.d2.recipe import DetectionRecipe
from visrep.data.detection import Box, DetectionDataset, ImageRecord, Keypoints


def shapes(folder: Path, *, images: int, seed: int, name: str = "shapes/train") -> DetectionDataset:
    """`images` pictures of 48 to 64 px with one or two shapes each, written under `folder`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(images):
        height, width = (48, 64) if number % 2 else (64, 48)
        pixels = rng.integers(0, 60, (height, width, 3))
        boxes = []
        for column in range(rng.integers(1, 3)):
            side = int(rng.integers(14, 20))
            x = int(rng.integers(0, width // 2 - side + 1)) + column * width // 2
            y = int(rng.integers(0, height - side))
            category = int(rng.integers(2))
            v, u = np.mgrid[:height, :width]
            inside = (u >= x) & (u < x + side) & (v >= y) & (v < y + side)
            if category:
                radius = side / 2
                inside &= (u + 0.5 - x - radius) ** 2 + (v + 0.5 - y - radius) ** 2 <= radius**2
            pixels[inside] = 255 if category else (255, 200, 0)
            code = rle.encode(np.asfortranarray(inside.astype(np.uint8)))
            boxes.append(
                Box(
                    xyxy=(float(x), float(y), float(x + side), float(y + side)),
                    category=category,
                    mask={"size": code["size"], "counts": code["counts"].decode()},
                )
            )
        file = folder / f"{number:03d}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(file)
        records.append(
            ImageRecord(file=str(file), id=f"{number:03d}", height=height, width=width, boxes=boxes)
        )
    return DetectionDataset(name=name, classes=["square", "disc"], records=records, skipped=[])


CORNERS = Keypoints(
    names=("left_top", "right_top", "left_bottom", "right_bottom"),
    partners=(1, 0, 3, 2),
    skeleton=((0, 1), (2, 3)),
    sigmas=(0.1,) * 4,
    sigmas_of="stated",
)


def with_corners(data: DetectionDataset) -> DetectionDataset:
    """Objects have their corners as keypoints, the last of which is not labelled on discs."""
    data.keypoints = CORNERS
    for box in (box for record in data.records for box in record.boxes):
        x0, y0, x1, y1 = box.xyxy
        last = (0.0, 0.0, 0) if box.category else (x1 - 0.5, y1 - 0.5, 2)
        box.keypoints = (x0 + 0.5, y0 + 0.5, 2, x1 - 0.5, y0 + 0.5, 1, x0 + 0.5, y1 - 0.5, 2, *last)
    return data


def coco_json(data: DetectionDataset) -> dict:
    """`data` in COCO's form, its images numbered from 1 on."""
    points = {}
    if data.keypoints is not None:
        points = {"keypoints": list(data.keypoints.names), "skeleton": [[1, 2], [3, 4]]}
    annotations = []
    for number, record in enumerate(data.records, start=1):
        for box in record.boxes:
            x0, y0, x1, y1 = box.xyxy
            row = [
                value - 0.5 * (i % 3 != 2 and bool(box.keypoints[i - i % 3 + 2]))
                for i, value in enumerate(box.keypoints or [])
            ]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": box.category + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    **({"keypoints": row} if row else {}),
                }
            )
    return {
        "images": [
            {"id": n, "file_name": Path(r.file).name, "height": r.height, "width": r.width}
            for n, r in enumerate(data.records, start=1)
        ],
        "categories": [
            {"id": n, "name": name, **points} for n, name in enumerate(data.classes, start=1)
        ],
        "annotations": annotations,
    }


def small_recipe(**settings) -> DetectionRecipe:
    """A recipe for pictures of 48 to 64 px and nets of a few channels."""
    values = {
        "task": "small",
        "about": "Pictures of 48 to 64 px",
        "outputs": "boxes",
        "head": "fpn",
        "norm": "BN",
        "freeze_at": 0,
        "iterations": 4,
        "batch_size": 2,
        "lr": 0.02,
        "decay_at": [0.75],
        "warmup": 1,
        "warmup_factor": 0.001,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "train_sizes": [48],
        "test_size": 48,
        "max_size": 80,
        "flip": True,
        "extra_norm": True,
        "precise_bn": 0,
        "fpn_channels": 16,
        "fpn_norm": True,
        "fpn_first": 2,
        "box_width": 32,
        "mask_width": 8,
        "keypoint_width": 8,
        "box_pool": 7,
        "anchor_sizes": [4],
        "anchor_ratios": [0.5, 1.0, 2.0],
        "rpn_batch": 32,
        "rpn_pre_nms": [100, 50],
        "rpn_post_nms": [30, 20],
        "roi_batch": 16,
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "detections_per_image": 20,
        "detectron2": {},
    }
    return DetectionRecipe(**{**values, **settings})
