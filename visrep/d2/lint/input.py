"""Checks of a Detectron2 config: does the input suit the weights, and the place of the stride?"""

from collections.abc import Iterator
from typing import Any

from visrep.d2.lint.config import Config
from visrep.d2.lint.finding import FATAL, WARNING, Finding, lines
from visrep.d2.lint.net import is_own, is_resnet
from visrep.d2.lint.weights import FAIR, MSRA, TORCH, Convention, Weights, convention_of, published
from visrep.nn.resnet import BASIC

_INPUT = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")


def check_input(config: Config, weights: Weights | None) -> Iterator[Finding]:
    """Channel order, mean, std, and the place of the stride, against what the weights want."""
    zoo = published(str(config["MODEL.WEIGHTS"]))
    found = weights.convention if weights else convention_of(zoo or "")
    if weights is None and zoo and found is None:
        return
    order, mean, std = (config[key] for key in _INPUT)
    if order not in ("RGB", "BGR") or not (_three(mean) and _three(std)):
        yield Finding(
            WARNING,
            "input",
            "; ".join(config.shown(key) for key in _INPUT),
            "this is no input of three colours, so it is not compared with the weights",
        )
        return
    wanted = found or TORCH
    fix = lines(dict(zip(_INPUT, (wanted.format, wanted.mean, wanted.std), strict=True)))
    if 0 < max(mean) <= 1 or max(std) < 1:
        yield Finding(
            FATAL,
            "pixel-scale",
            f"{config.shown(_INPUT[1])}; {config.shown(_INPUT[2])}",
            "Detectron2's pixels go from 0 to 255; these are statistics of pixels from 0 to 1",
            fix,
        )
    elif found is not None:
        yield from _against(config, found, fix)
    elif _near((order, mean, std), MSRA):
        yield from _check_msra_input(config, fix)
    elif _near((order, mean, std), FAIR):
        yield Finding(
            WARNING,
            "bgr",
            "the input is BGR",
            "right for weights whose first convolution takes BGR; self-supervised ones take RGB",
            fix,
        )
    else:
        yield from _against(config, TORCH, fix)
    if is_resnet(config):
        yield from _check_stride(config, found, (order, mean, std))


def _check_msra_input(config: Config, fix: str) -> Iterator[Finding]:
    """Of weights that are not known."""
    groups = config["MODEL.RESNETS.NUM_GROUPS"]
    known = is_resnet(config) and config["MODEL.RESNETS.NORM"] != "GN"  # which came with this input
    if known and groups > 1:
        yield Finding(
            FATAL,
            "bgr",
            f"the input is BGR with std 1, and {config.shown('MODEL.RESNETS.NUM_GROUPS')}",
            "no published ResNeXt wants that: Detectron2's divides BGR by std and has the stride "
            "in the 3x3, self-supervised ones take RGB",
            fix,
        )
    elif known and _stride(config) is False:
        yield Finding(
            FATAL,
            "bgr",
            f"the input is BGR with std 1, and {config.shown('MODEL.RESNETS.STRIDE_IN_1X1')}",
            "no published weights want both: MSRA's have the stride in the 1x1, torchvision's and "
            "self-supervised ones take RGB divided by std; either way the features are wrong",
            fix,
        )
    else:
        yield Finding(
            WARNING,
            "bgr",
            "the input is BGR with std 1, as Detectron2's default has it",
            "right for Detectron2's own MSRA weights only; self-supervised weights take RGB, and "
            "std 1 makes their input 58 times too large: name the weights to have this decided",
            fix,
        )


def _against(config: Config, wanted: Convention, fix: str) -> Iterator[Finding]:
    order, mean, std = (config[key] for key in _INPUT)
    if order != wanted.format:
        yield Finding(
            FATAL,
            "channel-order",
            config.shown("INPUT.FORMAT"),
            f"{wanted.whose} take {wanted.format}: red and blue are exchanged, which costs AP and "
            "raises no error",
            fix,
        )
    if _close(std, [1, 1, 1]) and not _close(wanted.std, [1, 1, 1]):
        yield Finding(
            FATAL,
            "pixel-std",
            config.shown("MODEL.PIXEL_STD"),
            f"the input is {sum(wanted.std) / 3:.0f} times larger than {wanted.whose} had it in "
            "training: losses explode, or the running statistics are worthless",
            fix,
        )
    elif not _close(std, wanted.std):
        yield _statistics(config, "MODEL.PIXEL_STD", "pixel-std", std, wanted.std, wanted, fix)
    if not _close(mean, wanted.mean):
        yield _statistics(config, "MODEL.PIXEL_MEAN", "pixel-mean", mean, wanted.mean, wanted, fix)


def _statistics(
    config: Config,
    key: str,
    check: str,
    given: list[float],
    expected: list[float],
    wanted: Convention,
    fix: str,
) -> Finding:
    swapped = _close(given, expected[::-1])
    return Finding(
        FATAL if wanted.sure or swapped else WARNING,
        check,
        config.shown(key),
        f"{wanted.whose} have {expected}" + (": red and blue are exchanged" if swapped else ""),
        fix,
    )


def _check_stride(config: Config, found: Convention | None, given: Any) -> Iterator[Finding]:
    inside, key = _stride(config), "MODEL.RESNETS.STRIDE_IN_1X1"
    if inside is None or (found is None and _near(given, MSRA)):
        return
    wanted = found or (FAIR if _near(given, FAIR) else TORCH)
    if inside != wanted.stride_in_1x1:
        yield Finding(
            FATAL,
            "stride",
            config.shown(key),
            f"{wanted.whose} have the stride in the {'1x1' if wanted.stride_in_1x1 else '3x3'}: "
            "every tensor loads and no feature from res3 on is right (0.15 to 0.39 off)",
            lines({key: wanted.stride_in_1x1}),
        )


def _stride(config: Config) -> bool | None:
    """STRIDE_IN_1X1, where it counts: Detectron2's own ResNet with bottlenecks."""
    if not is_own(config) or config["MODEL.RESNETS.DEPTH"] in BASIC:
        return None
    return bool(config["MODEL.RESNETS.STRIDE_IN_1X1"])


def _three(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) == 3
        and all(isinstance(value, int | float) for value in values)
    )


def _close(a: list[float], b: list[float]) -> bool:
    return all(abs(x - y) <= 0.01 + 0.005 * abs(y) for x, y in zip(a, b, strict=True))


def _near(given: Any, wanted: Convention) -> bool:
    order, mean, std = given
    return order == wanted.format and _close(mean, wanted.mean) and _close(std, wanted.std)
