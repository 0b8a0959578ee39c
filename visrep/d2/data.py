"""Our data in Detectron2's catalogues, formats and loaders; it is imported inside functions."""

from operator import itemgetter
from typing import Any

from visrep import dist
from visrep.d2.recipe import check_batch
from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.workers import Fetched
from visrep.errors import UserError


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
        "annotations": annotations,
    }


def mapper(cfg: Any, *, training: bool) -> Any:
    """Detectron2's mapper, whose complaints about a file become one line that names it."""
    from detectron2.data import DatasetMapper
    from detectron2.data.detection_utils import SizeMismatchError

    original = DatasetMapper(cfg, is_train=training)

    def read(entry: dict[str, Any]) -> dict[str, Any]:
        try:
            return original(entry)
        except (OSError, SyntaxError, SizeMismatchError) as error:
            first = str(error).splitlines()[0]
            raise UserError(
                f"cannot read image {entry['file_name']}: {first}; repair or remove the file"
            ) from error

    return read


def training_loader(cfg: Any, *, seed: int) -> Any:
    """Detectron2's endless batches of DATASETS.TRAIN, in an order that follows `seed`.

    Images without a box are left out, and a batch holds images of one orientation. Its own
    `build_detection_train_loader`, but for how processes are started and fail (`Fetched`).

    Raises:
        ConfigError: the batch does not divide over the processes.
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
    images = MapDataset(DatasetFromList(entries, copy=False), mapper(cfg, training=True))
    short, most = max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN
    stream = Fetched(
        ToIterableDataset(images, sampler, shard_chunk_size=share),
        workers=cfg.DATALOADER.NUM_WORKERS,
        item_bytes=3 * min(short, most) * most,  # an image
        collate_fn=itemgetter(0),
        begin=worker_init_reset_seed,
    )
    return AspectRatioGroupedDataset(stream, share)
