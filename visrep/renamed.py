"""What users of earlier versions type, and its successor: one line for each removed name.

A refused key, value or `_target_` is looked up here before the nearest is guessed at.
"""

# command -> key -> what to type now.
KEYS: dict[str, dict[str, str]] = {
    "finetune": {"finetune_recipe": "finetune_for=NAME is its name now"},
    "distill": {"distill_recipe": "distill_for=NAME is its name now"},
    "detect": {
        "protocol": "task=NAME is the recipe now",
    },
    "benchmark": {
        "passes": "it is what the method's class says now",
    },
    "rehearse": {
        "recipes": "shares.METHOD=NUMBER now; passes are what the method's class says",
    },
}
# command -> "key=value" -> what to type now.
VALUES: dict[str, dict[str, str]] = {
    "detect": {
        "task=detection": "outputs=boxes; task=NAME is the recipe now",
        "task=instance": "outputs=masks; task=NAME is the recipe now",
    },
}
# Modules of 0.1.0 -> where they are now; the longest that fits counts.
MODULES: dict[str, str] = {
    "pretrain": "visrep.pretrain",
    "transfer": "visrep.transfer",
    "distill": "visrep.distill",
    "visrep.weights.canonical": "visrep.weights.encoder_file",
    "visrep.data.datasets": "visrep.data.dataset",
    "visrep.data.datasets.cifar10": "visrep.data.cifar10.cifar10",
    "visrep.data.datasets.folder": "visrep.data.folders.folder",
    "visrep.data.datasets.image_folder": "visrep.data.folders.image_folder",
    "visrep.data.recipes.recipe": "visrep.data.views.spec.make_views",
    "visrep.data.scenes": "visrep.data.builtin.scenes",
    "visrep.data.exemplar": "visrep.data.exemplar.surrogate_classes",
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
