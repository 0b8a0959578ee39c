"""Small VOC, COCO, LVIS and Cityscapes data in their usual layouts, for tests of whole tasks.

`write_voc`, `write_coco`, `write_lvis` and `write_cityscapes` each write what DIR holds of theirs
where `detection.root=DIR` is given: VOC2007/ VOC2012/, coco/, lvis/ and cityscapes/. Every picture
is dark noise with a bright square (a person) on its left and a bright disc (a car) on its right.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

NAMES = ("person", "car")  # of a square and of a disc
VOC_NUMBERS = (15, 7)  # theirs in VOC's label images, where 0 is the background and 255 a border
CITYSCAPES_IDS = (24, 26)  # theirs in Cityscapes' labelIds; 7 is road, 3 is out of evaluation
COCO_IDS = (1, 3)  # with a gap, as COCO's
STUFF = (21, 42)  # COCO's stuff of the upper and the lower half; 0 stands for all things
KEYPOINTS = 17


@dataclass
class Shape:
    """One object: kind 0 is the square, 1 the disc; its pixels; its box x0, y0, x1, y1."""

    kind: int
    inside: NDArray[np.bool_]
    box: tuple[int, int, int, int]


def scene(seed: int, *, height: int = 64, width: int = 80) -> tuple[NDArray[np.uint8], list[Shape]]:
    """height x width x 3 pixels, and the square and the disc on them."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
    v, u = np.mgrid[:height, :width]
    shapes = []
    for kind in (0, 1):
        side = int(rng.integers(height // 3, height // 2))
        x = int(rng.integers(0, width // 2 - side + 1)) + kind * width // 2
        y = int(rng.integers(0, height - side + 1))
        inside = (u >= x) & (u < x + side) & (v >= y) & (v < y + side)
        if kind:
            radius = side / 2
            inside &= (u + 0.5 - x - radius) ** 2 + (v + 0.5 - y - radius) ** 2 <= radius**2
        pixels[inside] = 255 if kind else (255, 200, 0)
        shapes.append(Shape(kind, inside, (x, y, x + side, y + side)))
    return pixels, shapes


def write_voc(root: Path, *, train: int = 4, test: int = 3) -> Path:
    """root/VOC2007 and root/VOC2012: boxes, and label images of the segmentation lists."""
    for year in ("2007", "2012"):
        place = root / f"VOC{year}"
        parts = {"train": train, "val": test} | ({"test": test} if year == "2007" else {})
        ids = {
            part: [f"{year}_{part}_{number:04d}" for number in range(count)]
            for part, count in parts.items()
        }
        names = [name for part in ids.values() for name in part]
        for seed, name in enumerate(names, start=int(year)):
            _voc_image(place, name, seed)
        lists = {**ids, "trainval": ids["train"] + ids["val"], "train_aug": ids["train"]}
        for part, names in lists.items():
            for kind in ("Main", "Segmentation"):
                _text(place / "ImageSets" / kind / f"{part}.txt", "\n".join(names) + "\n")
    return root


def _voc_image(place: Path, name: str, seed: int) -> None:
    pixels, shapes = scene(seed)
    height, width = pixels.shape[:2]
    _picture(place / "JPEGImages" / f"{name}.jpg", pixels)
    objects = "".join(
        f"<object><name>{NAMES[s.kind]}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox><xmin>{s.box[0] + 1}</xmin><ymin>{s.box[1] + 1}</ymin>"
        f"<xmax>{s.box[2]}</xmax><ymax>{s.box[3]}</ymax></bndbox></object>"
        for s in shapes
    )
    _text(
        place / "Annotations" / f"{name}.xml",
        f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>",
    )
    labels = np.zeros((height, width), dtype=np.uint8)
    for shape in shapes:
        labels[shape.inside] = VOC_NUMBERS[shape.kind]
        labels[_border(shape.inside)] = 255
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        picture = Image.fromarray(labels)
        picture.putpalette([value for index in range(256) for value in (index, 255 - index, index)])
        _save(place / folder / f"{name}.png", picture)


def write_coco(root: Path, *, train: int = 4, test: int = 3) -> Path:
    """root/coco: instances, keypoints of persons, and label images of stuff."""
    place = root / "coco"
    for part, count, first in (("train2017", train, 0), ("val2017", test, 1000)):
        images, instances, persons = [], [], []
        for number in range(first + 1, first + 1 + count):
            pixels, shapes = scene(number)
            height, width = pixels.shape[:2]
            name = f"{number:012d}"
            _picture(place / part / f"{name}.jpg", pixels)
            images.append(
                {"id": number, "file_name": f"{name}.jpg", "height": height, "width": width}
            )
            for shape in shapes:
                entry = _instance(shape, number, COCO_IDS[shape.kind], id_=len(instances) + 1)
                instances.append(entry)
                if shape.kind == 0:
                    points = keypoints(shape, seed=number)
                    seen = sum(flag > 0 for flag in points[2::3])
                    persons.append({**entry, "keypoints": points, "num_keypoints": seen})
            stuff = np.full((height, width), STUFF[0], dtype=np.uint8)
            stuff[height // 2 :] = STUFF[1]
            stuff[:2] = 255
            for shape in shapes:
                stuff[shape.inside] = 0
            _picture(place / f"panoptic_stuff_{part}" / f"{name}.png", stuff)
        categories = [{"id": id_, "name": name} for id_, name in zip(COCO_IDS, NAMES, strict=True)]
        person = {**categories[0], "keypoints": keypoint_names(), "skeleton": []}
        for kind, entries, known in (
            ("instances", instances, categories),
            ("person_keypoints", persons, [person]),
        ):
            content = {"images": images, "annotations": entries, "categories": known}
            _text(place / "annotations" / f"{kind}_{part}.json", json.dumps(content))
    return root


def keypoint_names() -> list[str]:
    """COCO's seventeen, in its order."""
    sided = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    return ["nose", *(f"{side}_{part}" for part in sided for side in ("left", "right"))]


def keypoints(shape: Shape, *, seed: int) -> list[int]:
    """x, y and flag (0 not labelled, 1 hidden, 2 seen) of seventeen points in the box."""
    rng = np.random.default_rng(seed)
    x0, y0, x1, y1 = shape.box
    points: list[int] = []
    for number in range(KEYPOINTS):
        flag = (2, 2, 1, 0)[number % 4]
        place = [int(rng.integers(x0, x1)), int(rng.integers(y0, y1))] if flag else [0, 0]
        points += [*place, flag]
    return points


# Of LVIS: the square is frequent, the disc common, and the disc of the first image a rare bus.
LVIS = (
    {"id": 1, "name": "baby", "synset": "baby.n.01", "frequency": "f"},
    {"id": 2, "name": "car_(automobile)", "synset": "car.n.01", "frequency": "c"},
    {"id": 3, "name": "bus_(vehicle)", "synset": "bus.n.01", "frequency": "r"},
)


def write_lvis(root: Path, *, train: int = 4, test: int = 3) -> Path:
    """root/lvis with the files of v0.5 and v1, and root/coco with the images that they name."""
    if not (root / "coco").is_dir():
        write_coco(root, train=train, test=test)
    for version in ("v0.5", "v1"):
        for part, folder in (("train", "train2017"), ("val", "val2017")):
            content = lvis_content(root / "coco", folder, version)
            _text(root / "lvis" / f"lvis_{version}_{part}.json", json.dumps(content))
    return root


def lvis_content(coco: Path, folder: str, version: str) -> dict[str, Any]:
    """LVIS' json of the images in coco/FOLDER; v0.5 has file names of 2014, v1 addresses alone."""
    images, annotations = [], []
    files = sorted((coco / folder).glob("*.jpg"))
    for position, file in enumerate(files):
        number = int(file.stem)
        pixels, shapes = scene(number)
        image: dict[str, Any] = {
            "id": number,
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "coco_url": f"http://images.cocodataset.org/{folder}/{file.name}",
            "neg_category_ids": [] if position == 0 else [3],
            "not_exhaustive_category_ids": [2] if position == 0 else [],
        }
        if version == "v0.5":
            image["file_name"] = f"COCO_{folder.replace('2017', '2014')}_{file.name}"
        images.append(image)
        for shape in shapes:
            category = 3 if shape.kind and position == 0 else shape.kind + 1
            entry = _instance(shape, number, category, id_=len(annotations) + 1)
            del entry["iscrowd"]  # LVIS has no crowds
            annotations.append(entry)
    counts = {
        c["id"]: {a["image_id"] for a in annotations if a["category_id"] == c["id"]} for c in LVIS
    }
    categories = [{**c, "image_count": len(counts[c["id"]])} for c in LVIS]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_cityscapes(root: Path, *, train: int = 4, test: int = 3) -> Path:
    """root/cityscapes: leftImg8bit and gtFine of two towns, with instances and label images."""
    place = root / "cityscapes"
    for part, count, towns, first in (
        ("train", train, ("aachen", "bochum"), 5000),
        ("val", test, ("frankfurt",), 6000),
    ):
        for number in range(count):
            town = towns[number % len(towns)]
            stem = f"{part}/{town}/{town}_{number:06d}_000019"
            pixels, shapes = scene(first + number, height=64, width=128)
            _picture(place / "leftImg8bit" / f"{stem}_leftImg8bit.png", pixels)
            labels = np.full(pixels.shape[:2], 7, dtype=np.uint16)
            labels[:3] = 3
            labels[-4:, :40] = 26  # a group of cars, whose members are not told apart
            instances = labels.copy()
            for position, shape in enumerate(shapes):
                labels[shape.inside] = CITYSCAPES_IDS[shape.kind]
                instances[shape.inside] = CITYSCAPES_IDS[shape.kind] * 1000 + position
            truth = place / "gtFine"
            _picture(truth / f"{stem}_gtFine_labelIds.png", labels.astype(np.uint8))
            _picture(truth / f"{stem}_gtFine_instanceIds.png", instances)
    return root


def _instance(shape: Shape, image: int, category: int, *, id_: int) -> dict[str, Any]:
    x0, y0, x1, y1 = shape.box
    code = rle.encode(np.asfortranarray(shape.inside.astype(np.uint8)))
    return {
        "id": id_,
        "image_id": image,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(shape.inside.sum()),
        "iscrowd": 0,
        "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
    }


def _border(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a shape that touch one outside it, from the left or from above."""
    left, above = np.zeros_like(inside), np.zeros_like(inside)
    left[:, 1:], above[1:] = inside[:, :-1], inside[:-1]
    return inside & ~(left & above)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _picture(path: Path, pixels: NDArray[Any]) -> None:
    _save(path, Image.fromarray(pixels))


def _save(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
