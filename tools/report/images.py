"""Pictures that the page holds itself, as `data:` addresses."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from visrep.data.images import read_image

LARGEST_SIDE = 480  # pixels of an embedded photograph


def png(path: str | Path) -> str:
    """An image file as PNG, decoded and encoded again so that it is an image.

    Raises:
        BrokenImage: it is none.
    """
    return _address(_opened(path), "png")


def jpeg(path: str | Path) -> str:
    """An image file as JPEG, at most LARGEST_SIDE pixels a side. Raises as `png`."""
    image = _opened(path)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return _address(image, "jpeg", quality=88, subsampling=0)


def encoded_png(data: str) -> str:
    """A PNG that a JSON file holds in base64.

    Raises:
        ValueError: it is none.
    """
    if not base64.b64decode(data, validate=True).startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("an image is no PNG")
    return f"data:image/png;base64,{data}"


def _opened(path: str | Path) -> Image.Image:
    return Image.fromarray(read_image(path).permute(1, 2, 0).numpy())


def _address(image: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
