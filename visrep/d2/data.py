"""Our data in Detectron2's catalogues, formats and loaders; it is imported inside functions."""

import copy
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from PIL import Image

from visrep import dist
from visrep.d2.recipe import check_batch
from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.images import BrokenImage, BrokenImages, UnknownRange
from visrep.data.workers import Fetched

_TRIES = 100  # broken images in a row


def register(dataset: DetectionDataset) -> str:
    """Register `dataset` in Detectron2's catalogues and return its name there; repeatable."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    name = f"visrep/{dataset.name}"
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: [dataset_dict(record) for record in dataset.records])
    MetadataCatalog.get(name).set(thing_classes=list(dataset.classes))
    return name


def dataset_dict(record: ImageRecord) -> dict[str, Any]:
    """An image in Detectron2's format."""
    from detectron2.structures import BoxMode

    annotations = []
    for box in record.boxes:
        annotation: dict[str, Any] = {
            "bbox": list(box.xyxy),
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": box.category,
            "iscrowd": int(box.crowd),
        }
        if box.mask is not None:
            annotation["segmentation"] = box.mask
        annotations.append(annotation)
    return {
        "file_name": str(record.file),
        "image_id": record.id,
        "height": record.height,
        "width": record.width,
        "depth": record.depth,
        "annotations": annotations,
    }


def mapper(cfg: Any, *, training: bool) -> Any:
    """What Detectron2's mapper does with an image of `dataset_dict`, on the pixels that we read.

    It would read the file by itself, which is another picture where the file is deep or rotated.

    Raises (from the function that is returned):
        UserError: the file cannot be read, or has another size than annotated.
    """
    from detectron2.data import DatasetMapper
    from detectron2.data.detection_utils import convert_PIL_to_numpy
    from detectron2.data.transforms import AugInput

    given = DatasetMapper.from_config(cfg, is_train=training)["augmentations"]
    original = DatasetMapper(cfg, is_train=training, augmentations=_leaving_a_pixel(given))

    def read(entry: dict[str, Any]) -> dict[str, Any]:
        entry = copy.deepcopy(entry)
        file, size, depth = entry["file_name"], (entry["height"], entry["width"]), entry["depth"]
        record = ImageRecord(file, entry["image_id"], *size, depth=depth)
        picture = Image.fromarray(record.image().permute(1, 2, 0).numpy())
        seen = AugInput(convert_PIL_to_numpy(picture, cfg.INPUT.FORMAT))
        transforms = original.augmentations(seen)
        pixels = np.ascontiguousarray(seen.image.transpose(2, 0, 1))
        entry["image"] = torch.as_tensor(pixels)
        if training:
            original._transform_annotations(entry, transforms, pixels.shape[1:])
        else:
            entry.pop("annotations")
        return entry

    return read


def _leaving_a_pixel(augmentations: list[Any]) -> list[Any]:
    """Detectron2's resize at the short side would leave no pixel of a strip of 3000 x 8."""
    from detectron2.data.transforms import Augmentation, ResizeShortestEdge, ResizeTransform

    class Resize(Augmentation):
        def __init__(self, original: ResizeShortestEdge) -> None:
            super().__init__()
            self.original = original

        def get_transform(self, image: np.ndarray) -> Any:
            made = self.original.get_transform(image)
            if isinstance(made, ResizeTransform):
                made.new_h, made.new_w = max(1, made.new_h), max(1, made.new_w)
            return made

    return [Resize(a) if isinstance(a, ResizeShortestEdge) else a for a in augmentations]


def passing_over(read: Any, images: int) -> Any:
    """`read` for Detectron2's `MapDataset` of `images`, which takes another where there is None.

    What was passed over goes with the next image, as its "broken", to the process that counts.
    """
    waiting: list[tuple[str, str]] = []

    def taken(entry: dict[str, Any]) -> dict[str, Any] | None:
        try:
            image = read(entry)
        except BrokenImage as error:
            waiting.append((error.file, error.reason))
            if isinstance(error, UnknownRange) or len(waiting) >= min(images, _TRIES):
                raise
            return None
        image["broken"] = list(waiting)
        waiting.clear()
        return image

    return taken


class _Counted:
    """The images of `dataset`, once the broken ones before them are counted."""

    def __init__(self, dataset: Iterable[dict[str, Any]], broken: BrokenImages) -> None:
        self.dataset = dataset
        self.broken = broken

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for image in self.dataset:
            for file, reason in image.pop("broken"):
                self.broken.record(file, reason)
            yield image


def training_loader(cfg: Any, *, seed: int, broken: BrokenImages) -> Any:
    """Detectron2's endless batches of DATASETS.TRAIN, in an order that follows `seed`.

    Images without a box are left out, and a batch holds images of one orientation. Its own
    `build_detection_train_loader`, but for how processes are started and fail (`Fetched`).

    Raises:
        ConfigError: the batch does not divide over the processes.
        UserError: more images are broken than `broken` tolerates (while it is iterated).
    """
    from detectron2.data import DatasetFromList, MapDataset, get_detection_dataset_dicts
    from detectron2.data.build import worker_init_reset_seed
    from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
    from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

    check_batch(cfg.SOLVER.IMS_PER_BATCH)
    entries = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=True)
    sampler = TrainingSampler(len(entries), seed=seed)
    if cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":  # LVIS, arXiv 1908.03195
        repeats = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            entries, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        sampler = RepeatFactorTrainingSampler(repeats, seed=seed)
    share = cfg.SOLVER.IMS_PER_BATCH // dist.world_size()
    images = MapDataset(
        DatasetFromList(entries, copy=False), passing_over(mapper(cfg, training=True), len(entries))
    )
    short, most = max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN
    stream = Fetched(
        ToIterableDataset(images, sampler, shard_chunk_size=share),
        workers=cfg.DATALOADER.NUM_WORKERS,
        item_bytes=3 * min(short, most) * most,  # an image
        collate_fn=itemgetter(0),
        begin=worker_init_reset_seed,
    )
    return AspectRatioGroupedDataset(_Counted(stream, broken), share)
