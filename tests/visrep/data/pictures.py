"""Writers of the small pictures and annotations that the tests of data readers read."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

# Real images that may lie beside the repository.
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def write_picture(path: Path, *, height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    """A noisy picture, written losslessly if `path` is a png; returns H x W x 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_voc(root: Path, images: dict[str, str], *, split: str = "train", **size: int) -> Path:
    """A VOC folder: `images` maps ids to the xml of their objects."""
    height, width = size.get("height", 40), size.get("width", 50)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for id_, objects in images.items():
        write_picture(root / f"JPEGImages/{id_}.jpg", height=height, width=width)
        head = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation>{head}{objects}</annotation>"
        (root / f"Annotations/{id_}.xml").write_text(text)
    (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{id_}\n" for id_ in images))
    return root


def voc_object(name: str, *corners: float | str, more: str = "") -> str:
    """One <object>: xmin, ymin, xmax, ymax."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    frame = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, corners, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{frame}</bndbox></object>"


def coco_content() -> dict:
    """Two pictures of 40 x 50, two categories, three annotations."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 50},
            {"id": 3, "file_name": "b.png", "height": 40, "width": 50},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1.5, 2, 10, 20.25]},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {"id": 3, "image_id": 3, "category_id": 4, "bbox": [10, 10, 5, 5]},
        ],
    }


def write_coco(root: Path, content: object) -> Path:
    """The json at `root/set.json` beside its two pictures."""
    for seed, name in enumerate(("a.png", "b.png")):
        write_picture(root / name, height=40, width=50, seed=seed)
    path = root / "set.json"
    path.write_text(json.dumps(content))
    return path
