"""LARS one number at a time, from the formulas of SimCLR v2's and BYOL's published code."""

import math


class Layer:
    """One weight tensor as a flat list, updated in plain Python."""

    def __init__(self, values: list[float]) -> None:
        self.w = list(values)
        self.v = [0.0] * len(values)

    def step(
        self,
        gradient: list[float],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float,
        adapt: bool,
        lr_in_buffer: bool,
    ) -> None:
        g = [gi + weight_decay * wi for gi, wi in zip(gradient, self.w, strict=True)]
        w_norm = math.sqrt(sum(wi * wi for wi in self.w))
        g_norm = math.sqrt(sum(gi * gi for gi in g))
        ratio = trust * w_norm / g_norm if adapt and w_norm > 0 and g_norm > 0 else 1.0
        for i, gi in enumerate(g):
            if lr_in_buffer:
                self.v[i] = momentum * self.v[i] + lr * ratio * gi
                self.w[i] -= self.v[i]
            else:
                self.v[i] = momentum * self.v[i] + ratio * gi
                self.w[i] -= lr * self.v[i]
