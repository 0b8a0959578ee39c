"""The files of Cityscapes (arXiv 1604.01685): where they lie, and what the numbers in them are.

DIR/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png
DIR/gtFine/SPLIT/CITY/NAME_gtFine_KIND.png
"""

from pathlib import Path

from visrep.data.detection.boxes import inside
from visrep.data.detection.places import located, present
from visrep.errors import ConfigError, UserError

# Its id -> class, those nineteen that it trains and tests on.
CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
# Those whose objects are told apart.
INSTANCES = {id_: name for id_, name in CLASSES.items() if id_ >= 24}
# Ids of what counts for nothing: the border, what is unlabelled, parking, bridges, caravans ...
VOID = tuple(id_ for id_ in range(max(CLASSES) + 1) if id_ not in CLASSES)
IMAGE = "_leftImg8bit.png"


def folders(root: str | Path | None, split: str) -> tuple[Path, Path]:
    """The folders of the images and of the label images of `split`, absolute.

    `root` holds cityscapes, or is that folder.

    Raises:
        ConfigError: `root` is None. UserError: one is missing, or `split` leads out of it.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    place = located(Path(root).expanduser() / "cityscapes/leftImg8bit", root).parent.absolute()
    images, labels = (
        inside(place / folder, split, f"split {split}") for folder in ("leftImg8bit", "gtFine")
    )
    return present(images, root, kind="folder"), present(labels, root, kind="folder")


def pairs(images: Path, labels: Path, ending: str) -> list[tuple[str, Path, Path]]:
    """CITY/NAME, image and label image NAME + `ending`, sorted by town and name.

    Raises:
        UserError: a folder has none, an image has no labels or labels have no image.
    """
    pictures, drawn = (
        {
            f"{path.parent.name}/{path.name.removesuffix(end)}": path
            for path in sorted(folder.glob(f"*/*{end}"))
            if not path.name.startswith(".")
        }
        for folder, end in ((images, IMAGE), (labels, ending))
    )
    for found, folder, end in ((pictures, images, IMAGE), (drawn, labels, ending)):
        if not found:
            raise UserError(f"{folder} has no CITY/NAME{end}; unpack Cityscapes there")
    for name, path in pictures.items():
        if name not in drawn:
            raise UserError(f"{path} has no labels {labels / (name + ending)}; add them")
    for name, path in drawn.items():
        if name not in pictures:
            raise UserError(f"{path} has no image {images / (name + IMAGE)}; add it")
    return [(name, path, drawn[name]) for name, path in pictures.items()]
