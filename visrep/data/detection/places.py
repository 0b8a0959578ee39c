"""Where the usual data sets lie under one folder, as Detectron2's users keep them.

DIR/VOC2007/  DIR/VOC2012/    Annotations, ImageSets, JPEGImages
DIR/coco/                     annotations, train2017, val2017
DIR/lvis/                     lvis_v1_train.json ...; its images are those of coco/
DIR/cityscapes/               leftImg8bit, gtFine

`detection.root=DIR` is that folder; without it, `$DETECTRON2_DATASETS`, and where that is not set
`datasets/`. It may also be the folder of the one data set itself: coco, cityscapes, or VOC2007
where no other year is read.
"""

from pathlib import Path

from visrep.errors import UserError


def located(path: str | Path, root: str | Path | None) -> Path:
    """`path`, which a yaml states as `root/coco/...`; without `coco` where `root` is that folder.

    A path that is there is taken as it is, and so is one outside `root`.
    """
    path = Path(path).expanduser()
    if path.exists() or root is None:
        return path
    base = Path(root).expanduser()
    if not path.is_relative_to(base):
        return path
    inner = base.joinpath(*path.relative_to(base).parts[1:])
    return inner if inner != base and inner.exists() else path


def home(root: str | Path, name: str) -> Path:
    """The folder `name` of a data set in `root`; `root` where there is none, or it is that one."""
    inner = Path(root).expanduser() / name
    return inner if inner.is_dir() else Path(root).expanduser()


def present(path: Path, root: str | Path | None, *, kind: str = "file") -> Path:
    """`path`, a file or a folder that is there.

    Raises:
        UserError: it is not; the message names the first folder on its way that is absent, and what
            is expected in that.
    """
    if path.is_dir() if kind == "folder" else path.is_file():
        return path
    absent = next((above for above in reversed(path.parents) if not above.is_dir()), None)
    expected = "" if absent is None else f" with {path.relative_to(absent)} in it"
    advice = "correct the path" if root is None else "give the folder of the data: detection.root="
    raise UserError(
        f"cannot read {path}: there is no {'folder' if absent else kind} {absent or path}"
        f"{expected}; {advice}"
    )
