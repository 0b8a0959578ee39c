"""Semantic segmentation's measures, from one matrix of counts of pixels.

IoU of a class is the pixels that are it and were named it, over those that are it or were named it
(PASCAL VOC, its development kit); mIoU is the mean over the classes that have a pixel in the truth.
A class that was only ever predicted has no IoU, and its pixels are missing from the others, as in
Detectron2's evaluator. Pixels without a class count nowhere. Frequency-weighted IoU and the two
accuracies are those of arXiv 1411.4038, section 5. All in percent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visrep.errors import UserError


@dataclass(frozen=True)
class Segmentation:
    """What was measured.

    Attributes:
        classes: K names.
        matrix: K x K int64, pixels by their class (row) and what they were named (column).
    """

    classes: Sequence[str]
    matrix: Tensor

    def numbers(self) -> dict[str, float]:
        """mIoU, fwIoU, mACC and pACC, percent.

        Raises:
            UserError: no pixel has a class.
        """
        truth, right = self.matrix.sum(dim=1).double(), self.matrix.diagonal().double()
        there = truth > 0
        if not there.any():
            raise UserError("no pixel of the test images has a class, so nothing can be measured")
        iou, accuracy = self.iou()[there], right[there] / truth[there]
        weights = truth[there] / truth.sum()
        shares = {
            "mIoU": iou.mean(),
            "fwIoU": (weights * iou).sum(),
            "mACC": accuracy.mean(),
            "pACC": right.sum() / truth.sum(),
        }
        return {name: 100 * float(share) for name, share in shares.items()}

    def iou(self) -> Tensor:
        """K, shares; NaN for a class without a pixel in the truth."""
        truth, right = self.matrix.sum(dim=1).double(), self.matrix.diagonal().double()
        union = truth + self.matrix.sum(dim=0) - right
        return torch.where(truth > 0, right / union, torch.nan)

    @property
    def without_truth(self) -> list[str]:
        """Classes that no pixel has, which the means leave out."""
        counts = self.matrix.sum(dim=1).tolist()
        return [name for name, count in zip(self.classes, counts, strict=True) if not count]

    def per_class(self) -> list[dict[str, str | int | float | None]]:
        """A row for each class: class, IoU and accuracy (percent, None without truth), pixels."""
        truth, right = self.matrix.sum(dim=1).tolist(), self.matrix.diagonal().tolist()
        return [
            {
                "class": name,
                "IoU": 100 * iou if count else None,
                "accuracy": 100 * found / count if count else None,
                "pixels": count,
            }
            for name, iou, found, count in zip(
                self.classes, self.iou().tolist(), right, truth, strict=True
            )
        ]

    def table(self) -> str:
        """`per_class` and the means as text."""
        width = max(len(name) for name in [*self.classes, "class"])
        lines = [f"{'class':<{width}}    IoU"]
        for row in self.per_class():
            shown = "     -" if row["IoU"] is None else f"{row['IoU']:6.2f}"
            lines.append(f"{row['class']:<{width}} {shown}")
        lines.append(" ".join(f"{name} {value:.2f}" for name, value in self.numbers().items()))
        return "\n".join(lines)


def confusion(truth: Tensor, found: Tensor, *, classes: int) -> Tensor:
    """K x K int64: how many pixels of class r were named c.

    Args:
        truth: H x W, integers; values of `classes` and above have no class and are left out.
        found: H x W, integers below `classes`.
    """
    known = truth < classes
    pairs = truth[known].long() * classes + found[known].long()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
