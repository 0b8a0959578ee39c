"""torchvision's Faster, Mask and Keypoint R-CNN around our ResNet, on C4, DC5 or FPN."""

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from visrep.d2.backbone import freeze
from visrep.d2.recipe import DetectionRecipe
from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.resnet import ResNet, dilate
from visrep.seeds import derive_seed
from visrep.transfer.detection import prediction
from visrep.transfer.detection.batches import load
from visrep.transfer.detection.masks import paste, to_rle
from visrep.transfer.detection.prediction import Prediction
from visrep.transfer.detection.tv_heads import AlignedRoIAlign, RegionHeads
from visrep.transfer.detection.tv_keypoints import POOL, KeypointHead, Keypoints
from visrep.transfer.detection.tv_proposals import (
    Anchors,
    ProposalHead,
    ProposalNetwork,
    Sampler,
)


class Detector(GeneralizedRCNN):
    """torchvision's R-CNN around a copy of `encoder`, whose layers are trained as the recipe says.

    Args:
        encoder: its weights are copied; its strides place anchors and pooling.
        classes: of objects, K.
        keypoints: of each object, K; only where the recipe learns them.
        recipe: head, frozen parts, sizes of anchors and heads, sampling, thresholds.
        preprocess: how the encoder expects its input.
        seed: of the fresh layers.
    """

    def __init__(
        self,
        *,
        encoder: ResNet,
        classes: int,
        recipe: DetectionRecipe,
        preprocess: Preprocess,
        seed: int,
        keypoints: int = 0,
    ) -> None:
        encoder = dilate(encoder) if recipe.head == "dc5" else copy.deepcopy(encoder)
        encoder = encoder.train().requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "detector"))
            build = {"c4": _c4, "dc5": _dc5, "fpn": _fpn}[recipe.head]
            backbone, heads = build(encoder, classes, recipe)
            if recipe.keypoints:
                heads.keypoints = _keypoints(heads.box_roi_pool, backbone, keypoints, recipe)
            rpn = _proposals(encoder, backbone.out_channels, recipe)
        freeze(encoder, recipe.freeze_at, frozen_norms)
        if recipe.norm == "FrozenBN":
            for part in (backbone, heads):
                frozen_norms(part)
        # A pyramid adds maps of different strides, which must divide the padded image.
        divisor = encoder.strides[3] if recipe.head == "fpn" else 1
        super().__init__(backbone, rpn, heads, _Normalise(preprocess, divisor))
        self.recipe = recipe

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def state(self) -> dict[str, Tensor]:
        """All that a file must keep."""
        return self.state_dict()

    def seed(self, seed: int) -> None:
        """Make what is sampled next a function of `seed`."""
        for part, sampler in (("anchors", self.rpn.fg_bg_sampler), ("boxes", self._box_sampler)):
            sampler.generator.manual_seed(derive_seed(seed, part))

    @property
    def _box_sampler(self) -> Sampler:
        return self.roi_heads.fg_bg_sampler

    def predict_all(self, dataset: DetectionDataset) -> dict[str, Prediction]:
        """Detections in every image of `dataset`, by image id."""
        self.eval()
        size = {"short": self.recipe.test_size, "most": self.recipe.max_size}

        def predict(record: ImageRecord) -> Prediction:
            image = load(record, **size)
            return self.predict(image, height=record.height, width=record.width)

        return prediction.each(dataset, predict)

    @torch.no_grad()
    def predict(self, image: Tensor, *, height: int, width: int) -> Prediction:
        """Detections in a uint8 3 x h x w image, in pixels of the height x width original."""
        found = self([image.to(self.device).float() / 255])[0]
        scale = torch.tensor(
            [width / image.shape[2], height / image.shape[1]] * 2, device=self.device
        )
        limit = torch.tensor([width, height] * 2, device=self.device, dtype=torch.float32)
        boxes = torch.minimum((found["boxes"].float() * scale).clamp(min=0), limit)
        solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        masks = None
        if "masks" in found:
            masks = to_rle(paste(found["masks"][solid], boxes[solid], height=height, width=width))
        return Prediction(
            boxes=boxes[solid].cpu(),
            scores=found["scores"][solid].float().cpu(),
            labels=found["labels"][solid].cpu() - 1,
            masks=masks,
            keypoints=self._in_original(found.get("keypoints"), solid, scale),
        )

    @staticmethod
    def _in_original(points: Tensor | None, kept: Tensor, scale: Tensor) -> Tensor | None:
        """The keypoints that are kept, n x K x 3, in pixels of the original."""
        if points is None:
            return None
        return torch.cat((points[kept, :, :2] * scale[:2], points[kept, :, 2:]), dim=-1).cpu()


class _Normalise(GeneralizedRCNNTransform):
    """Normalise and pad; images come resized, and results leave in the resized frame."""

    def __init__(self, preprocess: Preprocess, divisor: int) -> None:
        mean, std = of_unit_range(preprocess)
        super().__init__(
            min_size=1,
            max_size=1,
            image_mean=mean,
            image_std=std,
            size_divisible=divisor,
        )

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        return result


def of_unit_range(preprocess: Preprocess) -> tuple[list[float], list[float]]:
    """Mean and std of each channel, for images in RGB from 0 to 1.

    Raises:
        ConfigError: the encoder does not take RGB.
    """
    if preprocess.channel_order != "RGB":
        raise ConfigError(
            f"the weights expect {preprocess.channel_order} images: convert them to RGB first"
        )
    low, high = preprocess.range
    span = high - low
    mean = [(value - low) / span for value in preprocess.mean]
    return mean, [value / span for value in preprocess.std]


class OneMap(nn.Module):
    """Features of one layer of `encoder`: 3 on C4, 4 on DC5."""

    def __init__(self, encoder: ResNet, layer: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = layer
        self.names = [f"layer{layer}"]
        self.strides = encoder.strides[layer - 1 : layer]
        self.out_channels = encoder.channels[layer - 1]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return OrderedDict({self.names[0]: self.encoder.feature_maps(x)[self.layer - 1]})


class Pyramid(nn.Module):
    """Features of layer `first` to layer4, merged from coarse to fine, and one coarser map."""

    def __init__(self, encoder: ResNet, recipe: DetectionRecipe) -> None:
        super().__init__()
        self.encoder = encoder
        self.first = recipe.fpn_first
        self.names = [f"layer{number}" for number in range(self.first, 5)]
        self.strides = encoder.strides[self.first - 1 :]
        self.out_channels = recipe.fpn_channels
        self.fpn = FeaturePyramidNetwork(
            list(encoder.channels[self.first - 1 :]),
            recipe.fpn_channels,
            extra_blocks=LastLevelMaxPool(),
            norm_layer=BatchNorm if recipe.fpn_norm and recipe.norm != "FrozenBN" else None,
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.encoder.feature_maps(x)[self.first - 1 :]
        return self.fpn(OrderedDict(zip(self.names, maps, strict=True)))


Parts = tuple[OneMap | Pyramid, RegionHeads]


def _c4(encoder: ResNet, classes: int, recipe: DetectionRecipe) -> Parts:
    head = nn.Sequential(OrderedDict(layer4=encoder.layer4))
    encoder.layer4 = nn.Sequential()  # it runs on regions, not on the image
    if recipe.extra_norm:
        head.add_module("norm", BatchNorm(encoder.channels[3]))
    masks = None
    if recipe.masks:
        masks = _mask_head(encoder.channels[3], classes, convs=0, width=recipe.mask_width)
    backbone = OneMap(encoder, 3)
    pool = _pool(backbone, recipe.box_pool)
    return backbone, _heads(recipe, pool, head, encoder.channels[3], classes, masks, None)


def _dc5(encoder: ResNet, classes: int, recipe: DetectionRecipe) -> Parts:
    return _connected(OneMap(encoder, 4), classes, recipe)


def _fpn(encoder: ResNet, classes: int, recipe: DetectionRecipe) -> Parts:
    return _connected(Pyramid(encoder, recipe), classes, recipe)


def _connected(backbone: OneMap | Pyramid, classes: int, recipe: DetectionRecipe) -> Parts:
    """`backbone` with a box head of two fully connected layers, and masks pooled on their own."""
    width = backbone.out_channels
    head = TwoMLPHead(width * recipe.box_pool**2, recipe.box_width)
    for layer in (head.fc6, head.fc7):
        nn.init.kaiming_uniform_(layer.weight, a=1)  # "Xavier" of Caffe2
        nn.init.zeros_(layer.bias)
    masks = mask_pool = None
    if recipe.masks:
        masks = _mask_head(width, classes, convs=4, width=recipe.mask_width)
        mask_pool = _pool(backbone, 14)
    pool = _pool(backbone, recipe.box_pool)
    return backbone, _heads(recipe, pool, head, recipe.box_width, classes, masks, mask_pool)


def _pool(backbone: OneMap | Pyramid, side: int) -> AlignedRoIAlign:
    return AlignedRoIAlign(maps=backbone.names, strides=backbone.strides, output_size=side)


def _heads(
    recipe: DetectionRecipe,
    pool: AlignedRoIAlign,
    head: nn.Module,
    width: int,
    classes: int,
    masks: nn.Module | None,
    mask_pool: AlignedRoIAlign | None,
) -> RegionHeads:
    predictor = FastRCNNPredictor(width, classes + 1)
    for layer, std in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return RegionHeads(
        pool=pool,
        head=head,
        predictor=predictor,
        masks=masks,
        mask_pool=mask_pool,
        roi_batch=recipe.roi_batch,
        score_threshold=recipe.score_threshold,
        nms_threshold=recipe.nms_threshold,
        detections=recipe.detections_per_image,
        box_beta=recipe.box_beta,
    )


def _keypoints(
    boxes: AlignedRoIAlign, backbone: OneMap | Pyramid, count: int, recipe: DetectionRecipe
) -> Keypoints:
    """Pooled from the maps that boxes are pooled from."""
    pool = AlignedRoIAlign(maps=boxes.featmap_names, strides=boxes.strides, output_size=POOL)
    return Keypoints(pool, KeypointHead(backbone.out_channels, count, recipe.keypoint_width))


def frozen_norms(module: nn.Module) -> nn.Module:
    """`module` with its batch norms frozen: statistics, scales and shifts stay as they are."""
    if isinstance(module, BatchNorm):
        frozen = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen
    for name, child in module.named_children():
        setattr(module, name, frozen_norms(child))
    return module


def _mask_head(ins: int, classes: int, *, convs: int, width: int) -> nn.Sequential:
    """R x ins x s x s -> R x classes x 2s x 2s logits (Mask R-CNN, arXiv 1703.06870, fig. 4)."""
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [nn.Conv2d(ins, width, 3, padding=1), nn.ReLU(inplace=True)]
        ins = width
    layers += [nn.ConvTranspose2d(ins, width, 2, stride=2), nn.ReLU(inplace=True)]
    logits = nn.Conv2d(width, classes, 1)
    for layer in [*layers, logits]:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    nn.init.normal_(logits.weight, std=0.001)
    return nn.Sequential(*layers, logits)


def _proposals(encoder: ResNet, width: int, recipe: DetectionRecipe) -> ProposalNetwork:
    anchors = Anchors(
        sizes=recipe.anchors(encoder.strides),
        ratios=recipe.anchor_ratios,
        strides=recipe.strides(encoder.strides),
    )
    kept = {
        name: dict(zip(("training", "testing"), counts, strict=True))
        for name, counts in (("pre", recipe.rpn_pre_nms), ("post", recipe.rpn_post_nms))
    }
    rpn = ProposalNetwork(
        anchors,
        ProposalHead(width, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=recipe.rpn_batch,
        positive_fraction=0.5,
        pre_nms_top_n=kept["pre"],
        post_nms_top_n=kept["post"],
        nms_thresh=0.7,
    )
    rpn.fg_bg_sampler = Sampler(count=recipe.rpn_batch, positive=0.5)
    return rpn
