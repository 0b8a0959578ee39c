"""DensePose, by Detectron2's project of that name, where it is installed.

The net, the reading of surface points, the training loop and the evaluation (GPS and its masked
form) are the project's own; the recipe, the encoder and the records are ours. Nothing else of
DensePose is in this project, and both are imported inside functions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visrep import dist
from visrep.d2.backbone import add_visrep_config
from visrep.d2.log import logged_to
from visrep.d2.recipe import DetectionRecipe
from visrep.d2.settings import detection_settings, merge, norm_name
from visrep.d2.weights import place
from visrep.data.preprocess import Preprocess
from visrep.engine.run import Run
from visrep.errors import ConfigError, UserError
from visrep.files import write_text
from visrep.nn.resnet import ResNet
from visrep.weights.encoder_file import EncoderFile

INSTALL = "https://github.com/facebookresearch/detectron2/tree/main/projects/DensePose"
# Parts of the project's results -> the prefix of the metrics in our records.
PREFIXES = {
    "bbox": "coco_",
    "densepose_gps": "densepose_",
    "densepose_gpsm": "densepose_gpsm_",
    "densepose_segm": "densepose_segm_",
}


def problem() -> str | None:
    """Why the project cannot be used, as a clause; None if it can."""
    try:
        import densepose  # noqa: F401
    except Exception as error:  # a broken installation raises anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return (
            f"it needs Detectron2's project DensePose, which cannot be imported ({first}); "
            f"install it as {INSTALL} says"
        )
    return None


def extend(cfg: Any) -> None:
    """Add the project's settings to Detectron2's `cfg`."""
    from densepose import add_densepose_config

    add_densepose_config(cfg)


def register(root: str | Path, names: list[str]) -> None:
    """Register the project's data sets `names` under the folder `root`, which holds `coco/`.

    Raises:
        ConfigError: a name that the project does not have.
        UserError: their files are not there.
    """
    from densepose.data.datasets.coco import DATASETS, register_dataset
    from detectron2.data import DatasetCatalog, MetadataCatalog

    known = {dataset.name: dataset for dataset in DATASETS}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{name} is no data set of DensePose; choose from {', '.join(sorted(known))}"
            )
        for part in (known[name].annotations_fpath, known[name].images_root):
            place = Path(root).expanduser() / part
            if not place.exists():
                raise UserError(
                    f"{place} is not there; give the folder that holds coco/ as detection.root=PATH"
                )
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)
        register_dataset(known[name], str(Path(root).expanduser()))


def configure(
    file: EncoderFile, recipe: DetectionRecipe, *, run: Run, workers: int, snapshot_every: int
) -> Any:
    """Detectron2's complete config of the run, with the project's settings, frozen.

    Raises:
        ConfigError: a setting of the task that this Detectron2 or this DensePose does not have.
    """
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    add_visrep_config(cfg)
    extend(cfg)
    nested = detection_settings(file, recipe, norm=norm_name(recipe.norm, run.device))
    own = {
        "MODEL": {
            "DEVICE": str(run.device),
            "WEIGHTS": "",
            # Its head reads what its decoder makes of the pyramid, and expects the pyramid's width.
            "ROI_DENSEPOSE_HEAD": {"DECODER_NUM_CLASSES": recipe.fpn_channels},
        },
        "DATALOADER": {"NUM_WORKERS": workers},
        "SOLVER": {"CHECKPOINT_PERIOD": snapshot_every or recipe.iterations},
        "OUTPUT_DIR": str(run.out),
        "SEED": run.seed,
    }
    merge(nested, own)
    try:
        cfg.merge_from_other_cfg(CfgNode(nested))
    except (KeyError, AssertionError, ValueError) as error:
        raise ConfigError(f"task={recipe.task}: its detectron2 settings: {error}") from error
    cfg.freeze()
    return cfg


def train_and_measure(
    encoder: ResNet,
    preprocess: Preprocess,
    recipe: DetectionRecipe,
    *,
    run: Run,
    root: str | Path,
    workers: int,
    snapshot_every: int,
) -> dict[str, float]:
    """Train the project's model from `encoder`, and its results as metric -> percent.

    An interrupted run goes on from its last checkpoint (resume=auto or must); the images that
    follow are drawn anew, as in all programs of Detectron2.

    Raises:
        ConfigError, UserError: see `configure` and `register`; resume=must without a checkpoint.
    """
    file = EncoderFile(
        backbone=encoder.spec, preprocess=preprocess.to_dict(), tensors=encoder.state_dict()
    )
    cfg = configure(file, recipe, run=run, workers=workers, snapshot_every=snapshot_every)
    register(root, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    if dist.is_main():
        kept = cfg.clone()
        kept.defrost()
        kept.MODEL.WEIGHTS = str((run.out / "model_final.pth").absolute())
        write_text(run.out / "detectron2.yaml", kept.dump())
    _know_neighbours()
    from densepose.engine import Trainer

    with logged_to(run.out):
        trainer = Trainer(cfg)
        resume = str(run.config.get("resume", "never"))
        found = trainer.checkpointer.has_checkpoint()
        if resume == "must" and not found:
            raise UserError(f"{run.out} has no checkpoint to go on from; use resume=auto")
        if resume != "never" and found:
            trainer.resume_or_load(resume=True)
        else:
            run.log.info("placed %d tensors", place(_bare(trainer.model), encoder))
        trainer.train()
        results = trainer._last_eval_results if dist.is_main() else {}
    return named(results)


def named(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The project's results, by part and metric, under the names of our records."""
    return {
        f"{prefix}{metric}": float(value)
        for part, prefix in PREFIXES.items()
        for metric, value in results.get(part, {}).items()
        if value == value and value >= 0  # NaN or -1: no ground truth of that size
    }


def _know_neighbours() -> None:
    """Detectron2 asks for the processes of this machine, which torchrun's group does not tell."""
    if dist.world_size() > 1:
        import os

        from detectron2.utils import comm

        if comm._LOCAL_PROCESS_GROUP is None:
            comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))


def _bare(model: Any) -> Any:
    return getattr(model, "module", model)
