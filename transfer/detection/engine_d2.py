"""Detection by Detectron2: its own model, data mapping, losses and training loop.

Its yacs config is filled from the recipe (`visrep.d2.settings`), its `SimpleTrainer` runs with
hooks of ours, and the evaluation is ours, from memory. A net that its ResNet holds runs in it;
others run in the backbone of `visrep.d2.backbone`. Detectron2 is imported inside functions only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visrep import dist, signals
from visrep.d2 import heads, semantic, training
from visrep.d2 import opts as own
from visrep.d2.backbone import add_visrep_config
from visrep.d2.data import dataset_dict, mapper, register
from visrep.d2.loader import TrainingLoader
from visrep.d2.log import diverged, logged_to
from visrep.d2.recipe import DetectionRecipe
from visrep.d2.settings import detection_settings, merge, norm_in_words, norm_name
from visrep.d2.verify import place_verified
from visrep.data.detection import DetectionDataset, ImageRecord, Keypoints, trainable
from visrep.data.preprocess import Preprocess
from visrep.engine import snapshot
from visrep.engine.precise_bn import buffers_kept
from visrep.engine.run import Run
from visrep.engine.writers import Meter
from visrep.errors import ConfigError, UserError
from visrep.nn.resnet import ResNet
from visrep.seeds import derive_seed
from visrep.transfer.detection import detector_file, foreseen, prediction
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.masks import to_rle
from visrep.transfer.detection.prediction import Prediction
from visrep.transfer.detection.validation import Validation
from visrep.weights.encoder_file import EncoderFile


class Detector:
    """A trained Detectron2 model.

    Attributes:
        model: in eval mode.
        config: Detectron2's config.
        out: the run folder.
    """

    def __init__(self, model: nn.Module, config: Any) -> None:
        self.model = model.eval()
        self.config = config
        self.out = Path(config.OUTPUT_DIR)

    def state(self) -> dict[str, Tensor]:
        """All that a file must keep."""
        return self.model.state_dict()

    @torch.no_grad()
    def predict_all(self, dataset: DetectionDataset) -> dict[str, Prediction]:
        """Detections in every image of `dataset`, by image id."""
        with logged_to(self.out):
            read = mapper(self.config, training=False)
            return prediction.each(dataset, lambda r: self._prediction(read(dataset_dict(r))))

    @torch.no_grad()
    def segment(self, record: ImageRecord) -> Tensor:
        """The class of each pixel of an image in its own size, uint8 H x W (outputs=semantic)."""
        with logged_to(self.out):
            image = mapper(self.config, training=False)(dataset_dict(record))
            return self.model([image])[0]["sem_seg"].argmax(dim=0).to(torch.uint8).cpu()

    def _prediction(self, image: dict[str, Any]) -> Prediction:
        found = self.model([image])[0]["instances"].to("cpu")
        return Prediction(
            boxes=found.pred_boxes.tensor,
            scores=found.scores,
            labels=found.pred_classes,
            masks=to_rle(found.pred_masks) if found.has("pred_masks") else None,
            keypoints=found.pred_keypoints if found.has("pred_keypoints") else None,
        )


def train(
    *,
    encoder: ResNet,
    preprocess: Preprocess,
    dataset: DetectionDataset,
    recipe: DetectionRecipe,
    run: Run,
    workers: int,
    precision: str,
    snapshot_every: int,
    log_every: int,
    opts: Sequence[Any] = (),
    validation: Validation | None = None,
) -> Detector:
    """Train Detectron2's R-CNN on `dataset`, all layers of `encoder` included.

    `opts` are its own settings, [KEY, value, ...], and win over the recipe. `validation` measures
    the model on the way, which changes nothing of the training.

    Raises:
        ConfigError: a setting that Detectron2 does not know or does not read in this training, or
            a precision it cannot do here.
        CheckFailed: the model does not compute the encoder's features, or its config has a known
            mistake.
        Diverged: the loss, or a proposal, is not finite.
    """
    from detectron2.engine.hooks import LRScheduler
    from detectron2.modeling import build_model
    from detectron2.solver import build_lr_scheduler

    if recipe.outputs != "semantic":
        trainable(dataset, masks=recipe.masks, keypoints=recipe.keypoints)
    cfg, read = own.watched(
        configure(encoder, preprocess, dataset, recipe, run=run, workers=workers, opts=opts)
    )
    must = run.config.get("resume") == "must"
    found = snapshot.latest(run.out / "snapshots", required=must)
    start, state = found or (0, {})
    if run.data is not None and "data" in state:
        run.data.changed_since(state["data"], run.out)
    with logged_to(run.out), diverged():
        _seed(run, "weights")
        model = build_model(cfg)
        run.log.info("norm: %s", norm_in_words(cfg.MODEL.RESNETS.NORM))
        for line in place_verified(model, cfg, encoder, preprocess):
            run.log.info("%s", line)
        optimizer = _optimizer(cfg, model)
        order, parts = derive_seed(run.seed, "order"), recipe.accumulate

        def loader_from(step: int) -> TrainingLoader:
            first = step * parts
            return TrainingLoader(
                cfg, seed=order, start=first, broken=dataset.broken, accumulate=parts
            )

        trainer = training.trainer(
            _distributed(model),
            loader_from(start),
            optimizer,
            dtype=training.dtype(precision, run.device),
            accumulate=parts,
        )
        schedule = build_lr_scheduler(cfg, optimizer)
        mapper(cfg, training=False)  # reads how an image is tested
        own.check_read(opts, recipe, read)
        if found:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            if "scaler" in state:
                trainer.grad_scaler.load_state_dict(state["scaler"])
            run.log.info("resumed from iteration %d", start)
            before = state.get("total_steps", recipe.iterations)
            if before != recipe.iterations:
                run.log.info(
                    "the run has %d iterations instead of %d: its learning rate goes on by the "
                    "schedule of the longer one",
                    recipe.iterations,
                    before,
                )

        def save(step: int) -> None:
            kept = {"model": model, "optimizer": optimizer, "schedule": schedule}
            state: dict[str, Any] = {name: dict(part.state_dict()) for name, part in kept.items()}
            state |= {"total_steps": recipe.iterations, "meter": meter.state()}
            if trainer.grad_scaler.is_enabled():
                state["scaler"] = trainer.grad_scaler.state_dict()
            if run.data is not None:
                state["data"] = run.data.digest
            snapshot.save(run.out / "snapshots", step, state)
            dist.barrier()

        # Detectron2 brings the losses together itself, on the main process only.
        meter = Meter(start=start, total=recipe.iterations, shared=False)
        if "meter" in state:  # not before 0.3
            meter.load(state["meter"])
        if foreseen.wanted(run, recipe):
            _foresee(model, cfg, dataset, recipe, run, next(iter(loader_from(start))))
        writers = run.writers(total=recipe.iterations, label="detect")
        report = training.report(
            writers, meter, start=start, images=recipe.batch_size, every=log_every
        )

        def precise(step: int) -> None:
            """Statistics from as many images as in `precise_bn` batches, those that come next."""
            _seed(run, step)
            training.precise(trainer.model, loader_from(step), recipe.precise_bn * parts)

        def validate(step: int) -> None:
            assert validation is not None
            with buffers_kept(model):
                if recipe.precise_bn:
                    precise(step)
                metrics = validation.measure(Detector(model, cfg), step)
            for writer in writers:
                writer.write(step, metrics)

        with signals.held() as held:
            hooks: list[Any] = [training.seeded(lambda step: _seed(run, step))]
            hooks += [LRScheduler(optimizer, schedule), report]
            if validation is not None:
                hooks += [training.measured(validate, every=validation.every)]
            hooks += [training.keep(save, held, every=snapshot_every)]
            trainer.register_hooks(hooks)
            try:
                trainer.train(start, cfg.SOLVER.MAX_ITER)
            finally:
                for writer in writers:
                    writer.close()
        if recipe.precise_bn:
            run.log.info("precise batch norm: statistics from %d batches", recipe.precise_bn)
            precise(cfg.SOLVER.MAX_ITER)
    return Detector(model, cfg)


def _foresee(
    model: nn.Module,
    cfg: Any,
    dataset: DetectionDataset,
    recipe: DetectionRecipe,
    run: Run,
    ordinary: list[dict[str, Any]],
) -> None:
    """Log what the training will need. Raises UserError where memory does not suffice."""
    from detectron2.utils.events import EventStorage

    single = cfg.clone()
    single.defrost()
    single.INPUT.MIN_SIZE_TRAIN = (max(cfg.INPUT.MIN_SIZE_TRAIN),)
    read = mapper(single, training=True)
    records = trainable(dataset, masks=recipe.masks, keypoints=recipe.keypoints)
    batch = foreseen.largest(
        records, recipe, count=len(ordinary), read=lambda record: read(dataset_dict(record))
    )

    def loss(images: list[dict[str, Any]]) -> Tensor:
        precision = training.dtype(str(run.config.get("precision", "fp32")), run.device)
        with torch.autocast("cuda", dtype=precision, enabled=precision is not None):
            return torch.stack(list(model(images).values())).sum()

    with EventStorage():  # the model's losses are noted there, by Detectron2's design
        foreseen.announce(
            run, model, recipe, loss=loss, largest=batch or ordinary, ordinary=ordinary
        )


def load(file: DetectorFile, run: Run) -> Detector:
    """The model of a file of this engine, in eval mode, as the config in it says.

    Raises:
        UserError: its config is none of this Detectron2, or its tensors are those of another net.
    """
    from detectron2.config import CfgNode, get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    add_visrep_config(cfg)
    heads.register()
    try:
        cfg.merge_from_other_cfg(CfgNode.load_cfg(file.config))
    except (KeyError, AssertionError, ValueError) as error:
        raise UserError(f"the detector's config: {error}: is it of another Detectron2?") from error
    cfg.merge_from_list(["MODEL.DEVICE", str(run.device), "OUTPUT_DIR", str(run.out)])
    _alone(cfg)
    cfg.freeze()
    with logged_to(run.out):
        model = build_model(cfg)
        detector_file.fill(model, file)
    return Detector(model, cfg)


def config_of(file: DetectorFile, run: Run) -> str:
    """The config of a detector that the other engine has trained, as yaml.

    Raises:
        ConfigError: Detectron2 cannot run the net.
    """
    made = configure(
        ResNet(**file.backbone),
        Preprocess.from_dict(file.preprocess),
        DetectionDataset(
            name="measured",
            classes=file.classes,
            records=[],
            keypoints=Keypoints.from_dict(file.keypoints),
        ),
        DetectionRecipe(**file.recipe),
        run=run,
        workers=0,
    )
    return made.dump()


def _alone(node: Any) -> None:
    """Norms that share statistics over processes as plain ones: the same net in eval mode."""
    for key, value in node.items():
        if isinstance(value, dict):
            _alone(value)
        elif key == "NORM" and value in ("SyncBN", "naiveSyncBN"):
            node[key] = "BN"


def configure(
    encoder: ResNet,
    preprocess: Preprocess,
    dataset: DetectionDataset,
    recipe: DetectionRecipe,
    *,
    run: Run,
    workers: int,
    opts: Sequence[Any] = (),
) -> Any:
    """Detectron2's config for this run, with `dataset` registered as what to train on."""
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    file = EncoderFile(
        backbone=encoder.spec, preprocess=preprocess.to_dict(), tensors=encoder.state_dict()
    )
    nested = detection_settings(file, recipe, norm=norm_name(recipe.norm, run.device))
    ours = {
        "MODEL": {"DEVICE": str(run.device), "ROI_HEADS": {"NUM_CLASSES": len(dataset.classes)}},
        "INPUT": {"MASK_FORMAT": "bitmask"},
        "DATASETS": {"TRAIN": [register(dataset)], "TEST": []},
        "DATALOADER": {"NUM_WORKERS": workers},
        "OUTPUT_DIR": str(run.out),
        "SEED": run.seed,
    }
    merge(nested, ours)
    if recipe.keypoints:
        count = {"NUM_KEYPOINTS": dataset.keypoint_count}
        merge(nested, {"MODEL": {"ROI_KEYPOINT_HEAD": count}})
    if recipe.outputs == "semantic":
        merge(nested, {"MODEL": {"SEM_SEG_HEAD": {"NUM_CLASSES": len(dataset.classes)}}})
    if "VISREP" in nested["MODEL"] or semantic.needs_own_keys(nested):
        add_visrep_config(cfg)
    heads.register()
    try:
        cfg.merge_from_other_cfg(CfgNode(nested))
    except (KeyError, AssertionError, ValueError) as error:
        raise ConfigError(f"task={recipe.task}: its detectron2 settings: {error}") from error
    own.merge_into(cfg, opts)
    cfg.freeze()
    return cfg


def _optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    from detectron2.solver import build_optimizer

    return build_optimizer(cfg, model)


def _distributed(model: nn.Module) -> nn.Module:
    """The model over all processes that torchrun started; Detectron2 needs their local group."""
    if dist.world_size() == 1:
        return model
    import os

    from detectron2.engine.defaults import create_ddp_model
    from detectron2.utils import comm

    if comm._LOCAL_PROCESS_GROUP is None:
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    on_gpu = next(model.parameters()).is_cuda
    devices = {} if on_gpu else {"device_ids": None}
    return create_ddp_model(model, broadcast_buffers=False, **devices)


def _seed(run: Run, of: int | str) -> None:
    """Torch's draws, of fresh weights and of anchors and regions, from now on."""
    torch.manual_seed(derive_seed(run.seed, "detectron2", of, dist.rank()))
