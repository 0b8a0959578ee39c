"""Checks of a Detectron2 config: how much of its backbone would the weights fill?"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from visrep.d2.lint.config import Config
from visrep.d2.lint.finding import FATAL, NOTE, WARNING, Finding, lines
from visrep.d2.lint.net import Load, is_own, is_resnet, load, model_shapes
from visrep.d2.lint.weights import CONVERT, Weights, published, words_of
from visrep.errors import UserError


def split_weights(config: Config) -> tuple[str, bool]:
    """The file in MODEL.WEIGHTS, and whether the name asks for matching the ends of names."""
    name, _, option = str(config["MODEL.WEIGHTS"]).partition("?")
    return name, option == "matching_heuristics=True" and not name.endswith(".pkl")


def check_weights(config: Config, weights: Weights | None) -> Iterator[Finding]:
    """MODEL.WEIGHTS, and how much of the backbone the file fills."""
    url, key = str(config["MODEL.WEIGHTS"]), "MODEL.WEIGHTS"
    if published(url):
        yield Finding(
            NOTE if weights is None else WARNING,
            "supervised-weights",
            config.shown(key),
            "these are supervised ImageNet weights: unless the command line names others, they "
            "are what is measured",
            lines({key: str(weights.path if weights else "x.pkl")}),
        )
    elif weights is None:
        yield Finding(
            NOTE if url else WARNING,
            "no-weights",
            config.shown(key),
            "no such file is here, so the weights are not checked; unless the command line gives "
            "MODEL.WEIGHTS, " + ("Detectron2 fails on it" if url else "the backbone is random"),
            f"visrep lint-d2 {config.path.name} x.pkl checks both together",
        )
    if weights is None:
        return
    name = Path(split_weights(config)[0]).name
    if name.endswith((".pkl", ".pth")) and name != weights.path.name and not published(url):
        yield Finding(
            NOTE,
            "other-weights",
            f"{config.shown(key)}, and {weights.path.name} is what was looked at",
            "Detectron2 takes the one that the config names",
            lines({key: str(weights.path)}),
        )
    yield from weights.findings
    if weights.caffe2 or not is_resnet(config):
        return
    if not weights.tensors:
        if not weights.findings:
            what = f"{weights.path.name} ({weights.kind}) holds no tensor"
            yield Finding(FATAL, "empty", what, "the backbone stays random")
        return
    try:
        model = model_shapes(config)
    except UserError as error:
        yield Finding(FATAL, "net", str(error), "Detectron2 cannot build it")
        return
    yield from _check_load(
        config, weights, load(model, weights.tensors, heuristics=weights.heuristics)
    )


def _check_load(config: Config, weights: Weights, loaded: Load) -> Iterator[Finding]:
    if len(loaded.filled) == loaded.total:
        yield Finding(
            NOTE,
            "loaded",
            f"{weights.path.name} is {weights.kind}",
            f"all {loaded.total} tensors of the backbone are set",
        )
        return
    filled, convolutions = loaded.convolutions()
    said = (
        f"{len(loaded.filled)} of {loaded.total} tensors of the backbone are set "
        f"({filled} of {convolutions} convolutions); Detectron2 only warns of it"
    )
    words = words_of(weights) or {} if is_own(config) else {}
    other = {f"MODEL.RESNETS.{k}": v for k, v in words.items() if config[f"MODEL.RESNETS.{k}"] != v}
    for check in ("depth", "width"):
        keys = [key for key in other if key.endswith("DEPTH") == (check == "depth")]
        if keys:
            yield Finding(
                FATAL,
                check,
                "; ".join(f"{config.shown(k)}, the weights have {other[k]}" for k in keys),
                f"the weights are those of another net: {said}",
                lines({key: other[key] for key in keys}),
            )
    if not weights.converted:
        yield Finding(
            FATAL,
            "not-converted",
            f"{weights.path.name} ({weights.kind}) has names such as {min(weights.tensors)}",
            f"they are not Detectron2's: {said}",
            f"{CONVERT.format(weights.path)}",
        )
    elif not weights.heuristics and _would_fit(config, weights):
        by_name = weights.path.suffix != ".pkl"  # where Detectron2 reads the option
        yield Finding(
            FATAL,
            "matching",
            f"{weights.path.name} does not say matching_heuristics: True",
            f"Detectron2 then matches whole names only: {said}",
            lines({"MODEL.WEIGHTS": f"{weights.path}?matching_heuristics=True"})
            if by_name
            else CONVERT.format("ORIGINAL"),
        )
    elif not other:
        where = next(iter(loaded.misshapen), None) or loaded.empty[0]
        starts = Counter(name.partition(".")[0] for name in weights.tensors)
        listed = ", ".join(f"{start} {count}" for start, count in starts.most_common(6))
        yield Finding(
            FATAL,
            "partly-loaded",
            f"{weights.path.name} has nothing that fits {where}; its names begin with {listed}",
            f"what is not set stays random: {said}",
            f"{CONVERT.format('ORIGINAL')}, which reads wrapped checkpoints too",
        )


def _would_fit(config: Config, weights: Weights) -> bool:
    """Whether the file would fill the backbone if ends of names were matched."""
    loaded = load(model_shapes(config), weights.tensors, heuristics=True)
    return len(loaded.filled) == loaded.total
