"""Region pooling and heads of torchvision's R-CNN, brought to Detectron2's numbers.

Detectron2 pools regions aligned to pixel centres with as many samples as a bin needs, takes plain
L1 for boxes, and on C4 shares the region features of layer4 between box and mask head. Each class
is torchvision's with that changed. What still differs is noise: torchvision drops detections below
1/100 pixel, and draws other random numbers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign, roi_align

from visrep.transfer.detection.tv_keypoints import Keypoints
from visrep.transfer.detection.tv_proposals import Sampler

# A box of 224 px is pooled from stride 16 = 2^4 (FPN, arXiv 1612.03144, eq. 1).
_CANONICAL_SIZE, _CANONICAL_LEVEL = 224, 4


class AlignedRoIAlign(MultiScaleRoIAlign):
    """RoIAlign aligned to pixel centres, adaptive sampling, scales from declared strides.

    Args:
        maps: names of the feature maps, finest first.
        strides: of each, consecutive powers of two.
        output_size: side of the pooled square.
    """

    def __init__(self, *, maps: Sequence[str], strides: Sequence[int], output_size: int) -> None:
        super().__init__(list(maps), output_size, sampling_ratio=0)
        self.strides = list(strides)

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Pooled features of all boxes (float32) of all images, R x C x side x side."""
        features = [x[name] for name in self.featmap_names]
        # Sizes are read as shapes, not by len(), which a graph that is exported would freeze.
        rois = torch.cat(
            [
                torch.cat((torch.full_like(each[:, :1], image), each), dim=1)
                for image, each in enumerate(boxes)
            ]
        )
        if len(features) == 1:
            return self._pool(features[0], rois, self.strides[0])
        level = self._levels(rois[:, 1:])
        pooled = features[0].new_zeros((rois.shape[0], features[0].shape[1], *self.output_size))
        for number, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            mine = torch.where(level == number)[0]
            pooled = pooled.index_put(
                (mine,), self._pool(feature, rois[mine], stride).to(pooled.dtype)
            )
        return pooled

    def _levels(self, boxes: Tensor) -> Tensor:
        sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=0).sqrt()
        level = torch.floor(_CANONICAL_LEVEL + torch.log2(sides / _CANONICAL_SIZE + 1e-8))
        finest, coarsest = math.log2(self.strides[0]), math.log2(self.strides[-1])
        return (level.clamp(finest, coarsest) - finest).long()

    def _pool(self, feature: Tensor, rois: Tensor, stride: int) -> Tensor:
        pooled = roi_align(
            feature.float(), rois, self.output_size, 1 / stride, sampling_ratio=0, aligned=True
        )
        return pooled.to(feature.dtype)


class RegionHeads(RoIHeads):
    """Box head and, where there is one, mask head, on C4, DC5 or FPN.

    On C4 both read the same features: `box_head` is layer4 (and the extra norm), box scores come
    from its mean over positions, masks from the map itself. On FPN the mask head pools its own.

    Args:
        pool: for boxes.
        head: region features R x C x s x s to R x D (FPN) or R x D x h x w (C4).
        predictor: R x D to class logits and box deltas.
        masks: None, or mask head and predictor as one module.
        mask_pool: for masks; None shares the features of `head`.
        roi_batch, score_threshold, nms_threshold, detections, box_beta: see `visrep.d2.recipe`.

    Attributes:
        keypoints: what learns and finds them, where it is set.
    """

    keypoints: Keypoints | None

    def __init__(
        self,
        *,
        pool: AlignedRoIAlign,
        head: nn.Module,
        predictor: nn.Module,
        masks: nn.Module | None,
        mask_pool: AlignedRoIAlign | None,
        roi_batch: int,
        score_threshold: float,
        nms_threshold: float,
        detections: int,
        box_beta: float = 0.0,
    ) -> None:
        super().__init__(
            box_roi_pool=pool,
            box_head=head,
            box_predictor=predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=roi_batch,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=detections,
        )
        self.fg_bg_sampler = Sampler(count=roi_batch, positive=0.25)
        self.masks = masks
        self.own_mask_pool = mask_pool
        self.keypoints = None
        self.box_beta = box_beta

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Losses in training; else per image boxes n x 4, labels, scores and masks n x M x M."""
        if self.training:
            assert targets is not None
            proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
            regions = self._regions(features, proposals, image_shapes)
            logits, predicted = self._predicted(regions)
            losses = _box_losses(
                logits, predicted, torch.cat(labels), torch.cat(deltas), beta=self.box_beta
            )
            if self.keypoints is not None:
                losses["loss_keypoint"] = self._keypoint_loss(
                    self.keypoints, features, proposals, matched, labels, image_shapes, targets
                )
            if self.masks is not None:
                losses["loss_mask"] = self._mask_loss(
                    features, regions, proposals, matched, labels, image_shapes, targets
                )
            return [], losses
        regions = self._regions(features, proposals, image_shapes)
        logits, predicted = self._predicted(regions)
        boxes, scores, found = self.postprocess_detections(
            logits, predicted, proposals, image_shapes
        )
        results = [
            {"boxes": b, "labels": k, "scores": s}
            for b, k, s in zip(boxes, found, scores, strict=True)
        ]
        if self.masks is not None:
            for result, probabilities in zip(
                results, self._mask_probabilities(features, boxes, found, image_shapes), strict=True
            ):
                result["masks"] = probabilities
        if self.keypoints is not None:
            points = self.keypoints.find(features, boxes, image_shapes)
            for result, each in zip(results, points, strict=True):
                result["keypoints"] = each
        return results, {}

    @staticmethod
    def _keypoint_loss(
        head: Keypoints,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> Tensor:
        objects = [label > 0 for label in labels]
        boxes = [box[mine] for box, mine in zip(proposals, objects, strict=True)]
        points = [
            target["keypoints"][index[mine]]
            for target, index, mine in zip(targets, matched, objects, strict=True)
        ]
        return head.loss(features, boxes, points, shapes)

    def _regions(
        self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]
    ) -> Tensor:
        return self.box_head(self.box_roi_pool(features, boxes, shapes))

    def _predicted(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits R x K + 1 and box deltas, float32, as boxes are."""
        logits, deltas = self.box_predictor(_mean(regions))
        return logits.float(), deltas.float()

    def _mask_logits(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        shapes: list[tuple[int, int]],
        regions: Tensor | None = None,
    ) -> Tensor:
        assert self.masks is not None
        if self.own_mask_pool is not None:
            return self.masks(self.own_mask_pool(features, boxes, shapes))
        return self.masks(self._regions(features, boxes, shapes) if regions is None else regions)

    def _mask_loss(
        self,
        features: dict[str, Tensor],
        regions: Tensor,
        proposals: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> Tensor:
        objects = [label > 0 for label in labels]
        chosen = torch.cat(objects)
        boxes = [box[mine] for box, mine in zip(proposals, objects, strict=True)]
        logits = self._mask_logits(features, boxes, shapes, regions[chosen])
        if not len(logits):
            return logits.sum() * 0
        side = logits.shape[-1]
        wanted = torch.cat(
            [
                crop_masks(target["masks"][index[mine]], box, side)
                for target, index, mine, box in zip(targets, matched, objects, boxes, strict=True)
            ]
        )
        # The mask head has no output for the background, label 0.
        category = torch.cat(labels)[chosen] - 1
        own = logits[torch.arange(len(logits), device=logits.device), category]
        return F.binary_cross_entropy_with_logits(own.float(), wanted)

    def _mask_probabilities(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        labels: list[Tensor],
        shapes: list[tuple[int, int]],
    ) -> list[Tensor]:
        logits = self._mask_logits(features, boxes, shapes)
        category = torch.cat(labels) - 1
        own = logits[torch.arange(logits.shape[0], device=logits.device), category]
        probabilities = own.float().sigmoid()
        # A graph that is exported takes one image and has no fixed number to split.
        if len(boxes) == 1:
            return [probabilities]
        return list(probabilities.split([len(each) for each in boxes]))

    def has_mask(self) -> bool:
        """Whether targets must hold masks."""
        return self.masks is not None


def crop_masks(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The part of each mask inside its box, at side x side, 0 or 1.

    Args:
        masks: n x H x W, 0 or 1.
        boxes: n x 4, pixels.
        side: of the output.
    """
    if not len(masks):
        return masks.new_zeros((0, side, side), dtype=torch.float32)
    index = torch.arange(len(masks), device=masks.device, dtype=torch.float32)[:, None]
    rois = torch.cat((index, boxes.float()), dim=1)
    crops = roi_align(masks[:, None].float(), rois, side, 1.0, sampling_ratio=0, aligned=True)
    return (crops[:, 0] >= 0.5).float()


def _mean(regions: Tensor) -> Tensor:
    """R x D from R x D x h x w; R x D as it is."""
    return regions.mean(dim=(2, 3)) if regions.dim() == 4 else regions


def _box_losses(
    logits: Tensor, predicted: Tensor, labels: Tensor, deltas: Tensor, *, beta: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy over all regions, (smooth) L1 over objects divided by all regions."""
    objects = torch.where(labels > 0)[0]
    own = predicted.reshape(len(predicted), -1, 4)[objects, labels[objects]]
    return {
        "loss_classifier": F.cross_entropy(logits, labels),
        "loss_box_reg": F.smooth_l1_loss(own, deltas[objects], reduction="sum", beta=beta)
        / max(1, len(labels)),
    }
