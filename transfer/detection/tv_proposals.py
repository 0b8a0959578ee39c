"""Anchors, sampling and proposals of torchvision's R-CNN, brought to Detectron2's numbers.

Detectron2 leaves anchor corners unrounded, takes plain L1 for boxes, and divides the proposal loss
by all anchors that it may sample. Each class is torchvision's with that one thing changed. Boxes
are float32 whatever the maps are: bfloat16 has steps of 2 px from 256 px on, 4 from 512 on.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead


class Anchors(AnchorGenerator):
    """Anchors centred on multiples of the map's declared stride, corners not rounded, float32.

    Args:
        sizes: roots of areas in pixels, one list per map.
        ratios: height over width.
        strides: of each map.
    """

    def __init__(
        self, *, sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int]
    ) -> None:
        self.strides = list(strides)
        super().__init__(
            sizes=tuple(tuple(level) for level in sizes),
            aspect_ratios=(tuple(ratios),) * len(sizes),
        )

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008 (torchvision's signature)
    ) -> Tensor:
        """Boxes around the origin, (sizes x ratios) x 4."""
        pairs = [
            (size / math.sqrt(r), size * math.sqrt(r)) for size in scales for r in aspect_ratios
        ]
        half = torch.tensor(pairs, dtype=dtype, device=device) / 2
        return torch.cat((-half, half), dim=1)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors of every image, all maps joined: (sum of H x W x A) x 4."""
        first = feature_maps[0]
        self.set_cell_anchors(torch.float32, first.device)
        strides = [[torch.tensor(s, device=first.device)] * 2 for s in self.strides]
        grids = [list(feature.shape[-2:]) for feature in feature_maps]
        anchors = torch.cat(self.grid_anchors(grids, strides))
        return [anchors] * len(image_list.image_sizes)


class Sampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler, drawing from a generator of its own.

    So what is sampled is a function of the step's seed, and a resumed run samples the same.
    """

    def __init__(self, *, count: int, positive: float) -> None:
        super().__init__(count, positive)
        self.generator = torch.Generator()

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the sampled positives (label >= 1) and negatives (0) of each image."""
        positives: list[Tensor] = []
        negatives: list[Tensor] = []
        for labels in matched_idxs:
            positive, negative = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]
            most = int(self.batch_size_per_image * self.positive_fraction)
            positive = self._draw(positive, most)
            negative = self._draw(negative, self.batch_size_per_image - len(positive))
            for kept, masks in ((positive, positives), (negative, negatives)):
                mask = torch.zeros_like(labels, dtype=torch.uint8)
                mask[kept] = 1
                masks.append(mask)
        return positives, negatives

    def _draw(self, candidates: Tensor, most: int) -> Tensor:
        order = torch.randperm(len(candidates), generator=self.generator)[:most]
        return candidates[order.to(candidates.device)]


class ProposalHead(RPNHead):
    """Logits and deltas of every anchor in float32, as what is made of them has to be."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each map n x C x H x W: n x A x H x W logits, n x 4A x H x W deltas."""
        logits, deltas = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """Proposals with Detectron2's loss: L1, divided by the anchors that may be sampled."""

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Losses of objectness and of boxes over all images.

        Args:
            objectness: logits, (images x anchors) x 1.
            pred_bbox_deltas: (images x anchors) x 4.
            labels: per image, 1 object, 0 background, -1 ignored.
            regression_targets: per image, anchors x 4.
        """
        positive, negative = self.fg_bg_sampler(labels)
        positive = torch.where(torch.cat(positive))[0]
        sampled = torch.cat((positive, torch.where(torch.cat(negative))[0]))
        count = self.fg_bg_sampler.batch_size_per_image * len(labels)
        truth = torch.cat(labels)[sampled]
        loss_objects = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], truth, reduction="sum"
        )
        targets = torch.cat(regression_targets)[positive]
        loss_boxes = F.l1_loss(pred_bbox_deltas[positive], targets, reduction="sum")
        return loss_objects / count, loss_boxes / count
