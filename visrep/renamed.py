"""What users of earlier versions type, and its successor: one line for each removed name.

A refused key, value, `_target_` or import is looked up here before the nearest is guessed at.
"""

from importlib.abc import MetaPathFinder

# command -> key -> what to type now.
KEYS: dict[str, dict[str, str]] = {
    "convert": {"d2_task": "it is task=NAME now"},
    "demo": {"recipe": "it is pretraining= now"},
    "finetune": {"finetune_recipe": "it is finetune_for=NAME now"},
    "distill": {"distill_recipe": "it is distill_for=NAME now"},
    "detect": {
        "protocol": "the recipe is task=NAME now",
    },
    "benchmark": {
        "passes": "the method's class says it now",
    },
    "rehearse": {
        "recipes": "it is shares.METHOD=NUMBER now; passes are what the method's class says",
    },
}
# command -> "key=value" -> what to type now.
VALUES: dict[str, dict[str, str]] = {
    "detect": {
        "protocol=short": "it is task=scenes now",
        "protocol=lvis05_fpn": "it is task=lvis05_fpn_1x now",
        "task=detection": "it is outputs=boxes now, and task=NAME is the recipe",
        "task=instance": "it is outputs=masks now, and task=NAME is the recipe",
    },
}


def _each(names: str, old: str, new: str) -> dict[str, str]:
    return {f"{old}.{name}": f"{new}.{name}" for name in names.split()}


# Modules and names of 0.1.0 -> where they are now; the longest that fits counts.
MODULES: dict[str, str] = {
    "pretrain": "visrep.pretrain",
    "transfer": "visrep.transfer",
    **_each("features knn linear_svm low_shot outputs svm", "transfer", "visrep.transfer.frozen"),
    "transfer.linear_probe": "visrep.transfer.frozen.linear",
    **_each(
        "detect prediction tv_detector tv_heads tv_proposals",
        "transfer",
        "visrep.transfer.detection",
    ),
    "transfer.detect_d2": "visrep.transfer.detection.engine_d2",
    "transfer.detect_tv": "visrep.transfer.detection.engine_tv",
    "transfer.detection_batches": "visrep.transfer.detection.batches",
    "transfer.segment": "visrep.transfer.detection.masks",
    "transfer.evaluate_boxes": "visrep.transfer.detection.evaluation.voc",
    "transfer.coco_eval": "visrep.transfer.detection.evaluation.coco",
    "transfer.d2_backbone": "visrep.d2.backbone",
    "transfer.d2_heads": "visrep.d2.heads",
    "transfer.d2_tasks": "visrep.d2.tasks",
    "transfer.d2_verify": "visrep.d2.verify",
    "transfer.precise_bn": "visrep.engine.precise_bn",
    "distill": "visrep.distill",
    "distill.train": "visrep.distill.distil",
    "distill.recipe": "visrep.distill.classifier_training",
    "visrep.data.datasets": "visrep.data.dataset",
    "visrep.data.datasets.cifar10": "visrep.data.cifar10.cifar10",
    "visrep.data.datasets.folder": "visrep.data.folders.folder",
    "visrep.data.datasets.image_folder": "visrep.data.folders.image_folder",
    "visrep.data.recipes": "visrep.data.views.spec",
    "visrep.data.recipes.recipe": "visrep.data.views.spec.make_views",
    "visrep.data.view_params": "visrep.data.views.params",
    "visrep.data.image_ops": "visrep.data.views.image_ops",
    **_each("digits scene_files scenes", "visrep.data", "visrep.data.builtin"),
    **_each("boxes coco voc", "visrep.data", "visrep.data.detection"),
    "visrep.data.exemplar": "visrep.data.exemplar.surrogate_classes",
    "visrep.engine.features": "visrep.engine.extraction",
    "visrep.nn.levels": "visrep.pretrain.method",
    "visrep.nn.plan": "visrep.pretrain.method",
    **_each("optim schedules", "visrep", "visrep.engine"),
    "visrep.weights.canonical": "visrep.weights.encoder_file",
    "visrep.weights.detectron2": "visrep.d2.pkl",
    "visrep.weights.names": "visrep.weights.naming",
    "visrep.weights.snapshot": "visrep.engine.snapshot",
    "visrep.weights.state": "visrep.weights.foreign",
    "visrep.weights.torch_files": "visrep.weights.containers.weights_files",
    **_each(
        "pickle_machine pickle_records safetensors_files stored tf_bundle tree",
        "visrep.weights",
        "visrep.weights.containers",
    ),
}


def key(command: str, name: str) -> str | None:
    """The successor of the key `name` of `command`, or of the key that it lies in, in words."""
    known = KEYS.get(command, {})
    return known.get(name) or known.get(name.partition(".")[0])


def value(command: str, setting: str) -> str | None:
    """The successor of `setting`, "key=value", in words."""
    return VALUES.get(command, {}).get(setting)


def module(dotted: str) -> str | None:
    """Where the module or name `dotted` of 0.1.0 is now."""
    for old in sorted(MODULES, key=len, reverse=True):
        # What has its present name may begin like an old one.
        here = dotted.startswith(MODULES[old])
        if not here and (dotted == old or dotted.startswith(f"{old}.")):
            return MODULES[old] + dotted[len(old) :]
    return None


class Successors(MetaPathFinder):
    """Last of the finders: the import of a module of 0.1.0 fails with the name of its successor."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        now = module(fullname)
        if now is not None:
            raise ModuleNotFoundError(f"{fullname} is {now} now", name=fullname)
