"""Pictures that the page holds itself, as `data:` addresses."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from visrep.data.depth import parse_depth
from visrep.data.images import read_image


def embedded(
    path: str | Path,
    kind: str,
    *,
    largest: int | None = None,
    depth: Any = None,
    region: tuple[int, int, int, int] | None = None,
) -> str:
    """An image file, decoded and encoded again as `kind` png or jpeg, so that it is an image.

    Of more than `largest` pixels a side it is made smaller. `depth` as a file of predictions has
    it; those of earlier versions have none. `region` is the part that is shown, left, top, right
    and bottom in pixels.

    Raises:
        ConfigError: that is no depth.
        BrokenImage: it is none.
    """
    pixels = read_image(path, depth=parse_depth(depth or "auto"))
    if region:
        left, top, right, bottom = region
        pixels = pixels[:, top:bottom, left:right]
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if largest:
        image.thumbnail((largest, largest))
    stream = io.BytesIO()
    image.save(stream, kind, optimize=True, quality=88, subsampling=0)  # JPEG's; PNG has neither
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def encoded_png(data: str) -> str:
    """A PNG that a JSON file holds in base64.

    Raises:
        ValueError: it is none.
    """
    if not base64.b64decode(data, validate=True).startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("an image is no PNG")
    return f"data:image/png;base64,{data}"
