"""Instance masks: from the small squares that a mask head predicts to the image, and to RLE."""

from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.nn import functional as F


def paste(probabilities: Tensor, boxes: Tensor, *, height: int, width: int) -> Tensor:
    """Masks in the image from masks in their boxes: n x M x M -> n x height x width, bool.

    A pixel belongs to the object when the bilinear value of the probabilities at its centre is 0.5
    or more; outside the box it is 0. Boxes are n x 4 in pixels of the image.
    """
    masks = torch.zeros((len(boxes), height, width), dtype=torch.bool, device=boxes.device)
    for mask, probability, box in zip(masks, probabilities, boxes, strict=True):
        # Only the pixels around the box are computed: half a cell of the square beyond its border.
        left, top = (max(0, int(v) - 1) for v in box[:2].floor().tolist())
        right = min(width, int(box[2].ceil()) + 1)
        bottom = min(height, int(box[3].ceil()) + 1)
        if right <= left or bottom <= top:
            continue
        x = torch.arange(left, right, device=boxes.device) + 0.5
        y = torch.arange(top, bottom, device=boxes.device) + 0.5
        # grid_sample wants -1 to 1 over the square's extent.
        u = (x - box[0]) / (box[2] - box[0]) * 2 - 1
        v = (y - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)
        values = F.grid_sample(probability[None, None].float(), grid[None], align_corners=False)
        mask[top:bottom, left:right] = values[0, 0] >= 0.5
    return masks


def to_rle(masks: Tensor) -> list[dict[str, Any]]:
    """Run-length codes of n x H x W boolean masks, as pycocotools reads them, counts as text."""
    codes = rle.encode(np.asfortranarray(masks.cpu().numpy().astype(np.uint8).transpose(1, 2, 0)))
    return [{"size": code["size"], "counts": code["counts"].decode("ascii")} for code in codes]
