"""Settings as Detectron2's users type them after a command: KEY VALUE KEY VALUE.

What is a setting of visrep's under another name becomes that; all else is one of `d2_opts=`.
Nothing here imports Detectron2.
"""

import re
from collections.abc import Sequence

from visrep.errors import ConfigError
from visrep.overrides import quoted

_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")
OURS = {
    "MODEL.DEVICE": "device",
    "MODEL.WEIGHTS": "weights",
    "OUTPUT_DIR": "out",
    "SEED": "seed",
    "SOLVER.BASE_LR": "lr",
    "SOLVER.CHECKPOINT_PERIOD": "snapshot_every",
    "SOLVER.IMS_PER_BATCH": "batch_size",
    "SOLVER.MAX_ITER": "iterations",
}


def translated(words: Sequence[str]) -> list[str]:
    """`words` of a command line with every KEY VALUE as a setting of visrep's, key=value.

    Raises:
        ConfigError: a key without a value, or beside it `d2_opts=`, which says the same.
    """
    settings: list[str] = []
    pairs: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not _KEY.fullmatch(word):
            settings.append(word)
            continue
        if not left or _no_value(left[0]):
            raise ConfigError(
                f"{word} has no value: settings of Detectron2 are KEY VALUE, such as "
                "SOLVER.GAMMA 0.5"
            )
        value = left.pop(0)
        if word in OURS:
            settings.append(f"{OURS[word]}={value}")
        else:
            pairs += [word, value]
    if pairs and any(setting.startswith("d2_opts=") for setting in settings):
        raise ConfigError(f"give {pairs[0]} in d2_opts=, or all of these settings as KEY VALUE")
    return settings + ([f"d2_opts=[{','.join(map(quoted, pairs))}]"] if pairs else [])


def _no_value(word: str) -> bool:
    """Whether `word` is what comes after a value: an option, key=value, SECTION.KEY."""
    option = word.startswith("-") and not word[1:2].isdigit()
    key = "." in word and bool(_KEY.fullmatch(word))
    return option or bool(re.match(r"[\w.]+=", word)) or key
