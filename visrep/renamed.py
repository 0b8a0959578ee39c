"""What users of earlier versions type, and its successor: one line for each removed name.

`visrep.config` looks a refused key or value up here before it guesses at the nearest.
"""

# command -> key -> what to type now; the command "" stands for all.
KEYS: dict[str, dict[str, str]] = {
    "": {},
    "convert": {
        "d2_task": "task=NAME",
    },
    "detect": {
        "protocol": "task=NAME is the recipe now",
    },
}
# command -> "key=value" -> what to type now.
VALUES: dict[str, dict[str, str]] = {
    "detect": {
        "protocol=short": "task=scenes",
        "protocol=lvis05_fpn": "task=lvis05_fpn_1x",
        "task=detection": "outputs=boxes; task=NAME is the recipe now",
        "task=instance": "outputs=masks; task=NAME is the recipe now",
    },
}
