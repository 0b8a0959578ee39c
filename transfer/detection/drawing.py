"""Detections drawn on a picture: boxes, masks, keypoints, and what each is."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as rle
from torch import Tensor

from visrep.data.detection.boxes import Keypoints
from visrep.transfer.detection.prediction import Prediction

_GOLDEN = 0.618034  # of the circle of hues, from class to class: neighbours are far apart
_OPAQUE = 0.45  # a mask
_SURE = 0.05  # the least score of a keypoint that is drawn

Colour = tuple[int, int, int]


def colour_of(label: int) -> Colour:
    """A bright colour of a class, the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb((0.08 + label * _GOLDEN) % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def drawn(
    image: Tensor, found: Prediction, classes: list[str], *, keypoints: Keypoints | None
) -> Image.Image:
    """`image`, uint8 3 x H x W, with all detections of `found` on it, the last on top."""
    pixels = image.permute(1, 2, 0).numpy().copy()
    for code, label in zip(found.masks or [], found.labels.tolist(), strict=False):
        inside = rle.decode(code).astype(bool)
        paint = np.array(colour_of(label), dtype=np.float32)
        pixels[inside] = ((1 - _OPAQUE) * pixels[inside] + _OPAQUE * paint).astype(np.uint8)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    line = max(1, round(max(picture.size) / 320))
    font = ImageFont.load_default(size=max(9, round(max(picture.size) / 48)))
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    for row, (box, score, label) in enumerate(rows):
        colour = colour_of(label)
        draw.rectangle(box, outline=colour, width=line)
        if found.keypoints is not None:
            _points(draw, found.keypoints[row], keypoints, colour, line)
        _words(draw, box, f"{classes[label]} {100 * score:.0f}%", colour, font, picture.size)
    return picture


def _points(
    draw: ImageDraw.ImageDraw,
    points: Tensor,
    keypoints: Keypoints | None,
    colour: Colour,
    line: int,
) -> None:
    sure = [(x, y) if score >= _SURE else None for x, y, score in points.tolist()]
    for first, second in keypoints.skeleton if keypoints else ():
        ends = sure[first], sure[second]
        if ends[0] and ends[1]:
            draw.line([ends[0], ends[1]], fill=colour, width=line)
    for place in filter(None, sure):
        draw.circle(place, 1.5 * line, fill=colour, outline=(0, 0, 0))


def _words(
    draw: ImageDraw.ImageDraw,
    box: list[float],
    words: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Above the box on a ground of its colour, and always inside the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), words, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = max(0, min(box[0], size[0] - width))
    y = box[1] - height if box[1] >= height else max(0, min(box[1], size[1] - height))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    # Black or white, whichever is easier to read on the ground (Rec. 601 luma).
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    draw.text((x + 2 - left, y + 2 - top), words, fill=(0, 0, 0) if dark else (255,) * 3, font=font)
