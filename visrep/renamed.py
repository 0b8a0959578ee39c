"""What users of earlier versions type, and its successor: one line for each removed name.

`visrep.config` looks a refused key or value up here before it guesses at the nearest.
"""

# command -> key -> what to type now; the command "" stands for all.
KEYS: dict[str, dict[str, str]] = {
    "": {},
    "finetune": {"finetune_recipe": "finetune_for=NAME is its name now"},
    "distill": {"distill_recipe": "distill_for=NAME is its name now"},
    "detect": {
        "protocol": "task=NAME is the recipe now",
    },
}
# command -> "key=value" -> what to type now.
VALUES: dict[str, dict[str, str]] = {
    "detect": {
        "task=detection": "outputs=boxes; task=NAME is the recipe now",
        "task=instance": "outputs=masks; task=NAME is the recipe now",
    },
}
# How a `_target_` began in the run folders of 0.1.0 -> how it begins now.
TARGETS = {
    "pretrain.": "visrep.pretrain.",
    "visrep.data.recipes.": "visrep.data.views.spec.",
    "visrep.data.scenes.": "visrep.data.builtin.scenes.",
    "visrep.data.exemplar.Exemplars": "visrep.data.exemplar.surrogate_classes.Exemplars",
}


def present_target(target: str) -> str:
    """What the dotted name `target` of an earlier version is called now."""
    for before, now in TARGETS.items():
        if target.startswith(before):
            return now + target.removeprefix(before)
    return target
