"""The keypoint head of torchvision's R-CNN, with Detectron2's numbers.

One heat map for each keypoint of a region (Mask R-CNN, arXiv 1703.06870, section 5), the same for
all classes. Detectron2 pools aligned regions, divides the loss by the labelled keypoints in them,
and scores a keypoint by its share of the map.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CONVS = 8
POOL = 14  # side of a pooled region; the map has four times as much


class KeypointHead(nn.Module):
    """Region features R x ins x s x s to logits R x count x 4s x 4s.

    Args:
        ins: width of the features.
        count: of keypoints, K.
        width: of the eight convolutions.
    """

    def __init__(self, ins: int, count: int, width: int) -> None:
        super().__init__()
        convs = [
            nn.Conv2d(ins if number == 0 else width, width, 3, padding=1)
            for number in range(_CONVS)
        ]
        self.convs = nn.ModuleList(convs)
        self.logits = nn.ConvTranspose2d(width, count, 4, stride=2, padding=1)
        for layer in [*convs, self.logits]:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of where each keypoint is."""
        for conv in self.convs:
            x = conv(x).relu()
        return F.interpolate(self.logits(x), scale_factor=2.0, mode="bilinear", align_corners=False)


class Keypoints(nn.Module):
    """Pools regions, and learns or finds the keypoints in them.

    Args:
        pool: of maps, boxes and image shapes to region features.
        head: of these to logits.
    """

    def __init__(self, pool: nn.Module, head: KeypointHead) -> None:
        super().__init__()
        self.pool = pool
        self.head = head

    def loss(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        points: list[Tensor],
        shapes: list[tuple[int, int]],
    ) -> Tensor:
        """Cross-entropy over positions, the mean over labelled keypoints inside their region.

        Args:
            boxes: per image, n x 4: the sampled regions of objects.
            points: per image, n x K x 3: x, y and flag of the keypoints of each one's object.
        """
        chosen = [holding(box, point) for box, point in zip(boxes, points, strict=True)]
        boxes = [box[mine] for box, mine in zip(boxes, chosen, strict=True)]
        inside = torch.cat([point[mine] for point, mine in zip(points, chosen, strict=True)])
        logits = self.head(self.pool(features, boxes, shapes)).float()
        cells, valid = to_cells(inside, torch.cat(boxes), side=logits.shape[-1])
        if not valid.any():
            return logits.sum() * 0
        maps = logits.flatten(2)[valid]
        return F.cross_entropy(maps, cells[valid], reduction="sum") / len(maps)

    def find(
        self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """Per image, n x K x 3: x, y and score of each keypoint of each of `boxes`."""
        logits = self.head(self.pool(features, boxes, shapes)).float()
        return list(from_maps(logits, torch.cat(boxes)).split([len(each) for each in boxes]))


def holding(boxes: Tensor, points: Tensor) -> Tensor:
    """Which boxes, n x 4, have a labelled one of their `points`, n x K x 3, inside; n, bool."""
    x, y, flag = points.unbind(-1)
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    return (inside & (flag >= 1)).any(dim=1)


def to_cells(points: Tensor, boxes: Tensor, *, side: int) -> tuple[Tensor, Tensor]:
    """The cell of its box's side x side map that each point is in, and whether it is in one.

    A point on the right or lower edge is in the last cell.

    Args:
        points: n x K x 3, x, y and flag, in pixels.
        boxes: n x 4, pixels.

    Returns:
        cells: n x K int64, row by row; valid: n x K bool, labelled and inside.
    """
    corner, far = boxes[:, None, :2], boxes[:, None, 2:]
    places = ((points[..., :2] - corner) * (side / (far - corner))).floor().long()
    places = torch.where(points[..., :2] == far, side - 1, places)
    valid = ((places >= 0) & (places < side)).all(dim=-1) & (points[..., 2] > 0)
    return places[..., 1] * side + places[..., 0], valid


def from_maps(logits: Tensor, boxes: Tensor) -> Tensor:
    """x, y (pixels) and score of the highest point of each map, R x K x 3.

    A map is enlarged to the pixels of its box, bicubic, and the highest pixel's middle is taken.
    Its score is e to the logit there over the same sum of the map before it was enlarged, so that
    objects of all sizes compare.

    Args:
        logits: R x K x S x S.
        boxes: R x 4, pixels.
    """
    found = logits.new_zeros((*logits.shape[:2], 3))
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    for number, (size, whole) in enumerate(zip(sizes, sizes.ceil(), strict=True)):
        width, height = (int(value) for value in whole)
        map_ = F.interpolate(
            logits[number : number + 1], size=(height, width), mode="bicubic", align_corners=False
        )
        highest, pixel = map_[0].flatten(1).max(dim=1)
        place = torch.stack((pixel % width, pixel // width), dim=1)
        found[number, :, :2] = (place + 0.5) * (size / whole) + boxes[number, :2]
        total = (logits[number].flatten(1) - highest[:, None]).exp().sum(dim=1)
        found[number, :, 2] = 1 / total
    return found
