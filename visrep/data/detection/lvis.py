"""LVIS v0.5 and v1 (arXiv 1908.03195): COCO's form and images, and what is known of the labels.

Not every class is labelled in every image: of each image the file says which classes are not there
(`neg_category_ids`) and of which not every object is labelled (`not_exhaustive_category_ids`), and
of each class how frequent it is. The measure needs all three.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visrep.data.detection import coco
from visrep.data.detection.boxes import DetectionDataset, Federated, existing_folder
from visrep.data.detection.fields import field, identity
from visrep.data.detection.places import located, present
from visrep.errors import ConfigError, UserError

FREQUENCIES = ("r", "c", "f")  # rare, common, frequent
FOLDERS = ("train2017", "val2017", "test2017")
_OTHERS = "data of COCO's form that lack it are read by detection=coco"


def read_lvis(
    annotations: str | Path | None,
    image_root: str | Path | None,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    on_bad: str = "report",
    depth: Any = "auto",
    root: str | Path | None = None,
) -> DetectionDataset:
    """Read a json of LVIS, whose images are in COCO's train2017/ and val2017/ under `image_root`.

    Which of the two is said by an image's `coco_url`, since an image of LVIS' val may be one of
    COCO's train. v0.5 names files as COCO of 2014 did; without `coco_url` their number is looked
    for in both folders. A class is called by its name, and by its synset too where two share it.

    Args and errors are those of `visrep.data.detection.coco.read_coco`.

    Raises:
        UserError: also where a category has no frequency, or an image lacks one of its two lists.
    """
    if annotations is None or image_root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    path = present(located(annotations, root), root)
    content = coco.load(path)
    above = _images_folder(Path(image_root).expanduser(), root)
    content["categories"] = _told_apart(path, content["categories"])
    names = {
        identity(entry, "id", f"{path}: category {i}"): (entry["name"], _frequency(path, entry, i))
        for i, entry in enumerate(content["categories"])
    }
    content["images"] = [
        {**_known(entry, f"{path}: image {i}"), "file_name": _file(entry, above, path, i)}
        for i, entry in enumerate(content["images"])
    ]
    dataset = coco.from_content(
        path, content, above, classes=classes, masks=masks, on_bad=on_bad, depth=depth
    )
    absent, incomplete = (
        {
            record.id: _listed(entry, key, names, f"{path}: image {record.id}")
            for record, entry in zip(dataset.records, content["images"], strict=True)
        }
        for key in ("neg_category_ids", "not_exhaustive_category_ids")
    )
    dataset.federated = Federated(
        frequency=dict(names.values()), absent=absent, incomplete=incomplete
    )
    return dataset


def _images_folder(given: Path, root: str | Path | None) -> Path:
    """The folder that holds one of COCO's; `given`, or without its last part under `root`."""
    for name in FOLDERS:
        place = located(given / name, root)
        if place.is_dir():
            return existing_folder(place.parent, "detection.root")
    return present(given / FOLDERS[0], root, kind="folder").parent


def _told_apart(path: Path, entries: list[Any]) -> list[dict[str, Any]]:
    """The categories, with the synset in the names that two of them share."""
    for i, entry in enumerate(entries):
        field(entry, "name", f"{path}: category {i}")
    shared = Counter(entry["name"] for entry in entries)
    return [
        {**entry, "name": f"{entry['name']} ({field(entry, 'synset', f'{path}: category {i}')})"}
        if shared[entry["name"]] > 1
        else entry
        for i, entry in enumerate(entries)
    ]


def _frequency(path: Path, entry: dict[str, Any], i: int) -> str:
    where = f"{path}: category {i} ({entry['name']})"
    frequency = entry.get("frequency")
    if frequency not in FREQUENCIES:
        said = "has no 'frequency'" if frequency is None else f"has the frequency {frequency!r}"
        raise UserError(
            f"{where} {said}; LVIS says r, c or f of each: take its own file ({_OTHERS})"
        )
    return str(frequency)


def _known(entry: Any, where: str) -> dict[str, Any]:
    """The image, which has both of its lists."""
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        if not isinstance(entry, dict) or not isinstance(entry.get(key), list):
            raise UserError(f"{where} has no list {key!r}; take LVIS' own file ({_OTHERS})")
    return entry


def _file(entry: dict[str, Any], above: Path, path: Path, i: int) -> str:
    """Where an image is under the folder `above` of COCO's: FOLDER/NUMBER.jpg."""
    address = entry.get("coco_url")
    if isinstance(address, str) and address.count("/"):
        return "/".join(address.rsplit("/", 2)[-2:])
    name = str(field(entry, "file_name", f"{path}: image {i}, which has no 'coco_url',"))
    name = name.rsplit("/", 1)[-1].rsplit("_", 1)[-1]  # COCO_val2014_000000001268.jpg
    found = [folder for folder in FOLDERS if (above / folder / name).is_file()]
    return f"{(found or FOLDERS)[0]}/{name}"


def _listed(
    entry: dict[str, Any], key: str, names: dict[int | str, tuple[str, str]], where: str
) -> frozenset[str]:
    ids = [identity({key: value}, key, where) for value in entry[key]]
    unknown = next((id_ for id_ in ids if id_ not in names), None)
    if unknown is not None:
        raise UserError(f"{where}: {key!r} names category {unknown}, which is not in the file")
    return frozenset(names[id_][0] for id_ in ids)
