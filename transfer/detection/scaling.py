"""The linear rule: a batch of another size has another learning rate and another number of steps.

Goyal et al., arXiv 1706.02677, 2.1; Detectron2 does the same where REFERENCE_WORLD_SIZE is set,
and nothing where it is 0, its default, as ours.
"""

from visrep.errors import ConfigError

RULES = ("none", "linear")


def scaled(
    rule: str, *, lr: float, iterations: int, warmup: int, batch_size: int, of: int
) -> dict[str, float | int]:
    """`lr`, `iterations` and `warmup` that are stated for batches of `of` images, for `batch_size`.

    linear: with k = batch_size / of, the rate is k times, both numbers of steps 1/k times as
    large, rounded; so as many images are seen. none: they are as they are.

    Raises:
        ConfigError: no such rule.
    """
    if rule not in RULES:
        raise ConfigError(f"scale={rule}: choose {' or '.join(RULES)}")
    if rule == "none" or batch_size == of or batch_size < 1:
        return {"lr": lr, "iterations": iterations, "warmup": warmup}
    return {
        "lr": lr * batch_size / of,
        "iterations": max(1, round(iterations * of / batch_size)),
        "warmup": round(warmup * of / batch_size),
    }
