"""Small data with a class for each pixel, in the layouts of the papers."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, ids: np.ndarray, seed: int = 0) -> None:
    """A photograph whose colours follow the ids, with noise."""
    rng = np.random.default_rng(seed)
    shown = (ids.astype(np.int64) * 53) % 200
    pixels = np.stack([shown, 255 - shown, (shown * 3) % 256], axis=-1)
    noisy = pixels + rng.integers(-8, 9, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)


def write_labels(path: Path, ids: np.ndarray, *, palette: bool = False) -> None:
    """A label image, grey or with a palette."""
    image = Image.fromarray(ids.astype(np.uint8))
    if palette:
        image = image.convert("P")
        image.putdata(ids.astype(np.uint8).flatten().tolist())
        image.putpalette([value % 256 for value in range(0, 768 * 7, 7)][:768])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def blocks(height: int, width: int, known: list[int], seed: int) -> np.ndarray:
    """Ids of `known` in four blocks, with a border of 255 between the left and the right ones."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((height, width), dtype=np.uint8)
    for rows in (slice(0, height // 2), slice(height // 2, height)):
        for columns in (slice(0, width // 2), slice(width // 2, width)):
            ids[rows, columns] = rng.choice(known)
    ids[:, width // 2] = 255
    return ids


def voc12(root: Path, *, train: int = 4, val: int = 2, side: int = 40) -> Path:
    """VOC2012 with train_aug and val; `side` is the short side of its images."""
    place = root / "VOC2012"
    lists: dict[str, list[str]] = {"train_aug": [], "val": []}
    for number in range(train + val):
        part = "train_aug" if number < train else "val"
        id_ = f"2007_{number:06d}"
        height, width = (side, side + 11) if number % 2 else (side + 11, side)
        ids = blocks(height, width, [0, 5, 15, 20], seed=number)
        write_image(place / f"JPEGImages/{id_}.jpg", ids, seed=number)
        write_labels(place / f"SegmentationClassAug/{id_}.png", ids)
        if part == "val":
            write_labels(place / f"SegmentationClass/{id_}.png", ids, palette=True)
        lists[part].append(id_)
    for part, names in lists.items():
        path = place / f"ImageSets/Segmentation/{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    return root


def cityscapes(root: Path, *, kind: str = "labelIds", side: int = 40) -> Path:
    """Two cities of one image for train, one for val."""
    known = [7, 11, 24, 33, 4] if kind == "labelIds" else [0, 2, 11, 18]
    for number, (split, city) in enumerate(
        [("train", "aachen"), ("train", "bochum"), ("val", "frankfurt")]
    ):
        ids = blocks(side, 2 * side, known, seed=number)
        name = f"{city}_000000_00001{number}"
        write_image(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", ids)
        write_labels(root / f"gtFine/{split}/{city}/{name}_gtFine_{kind}.png", ids)
    return root


def own(root: Path, *, train: int = 4, val: int = 2, classes: int = 3, side: int = 40) -> Path:
    """images/SPLIT, labels/SPLIT and classes.txt."""
    for number in range(train + val):
        split = "train" if number < train else "val"
        ids = blocks(side, side + 9, list(range(classes)), seed=number)
        write_image(root / f"images/{split}/{number:03d}.png", ids, seed=number)
        write_labels(root / f"labels/{split}/{number:03d}.png", ids)
    names = ("road", "wall", "sky", "tree")[:classes]
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return root
