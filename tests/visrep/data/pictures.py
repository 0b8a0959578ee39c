"""Writers of the small pictures and annotations that the tests of data readers read."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# Real images that may lie beside the repository.
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def write_picture(path: Path, *, height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    """A noisy picture, written losslessly if `path` is a png; returns H x W x 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_voc(root: Path, images: dict[str, str], *, split: str = "train", **size: int) -> Path:
    """A VOC folder: `images` maps ids to the xml of their objects."""
    height, width = size.get("height", 40), size.get("width", 50)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for id_, objects in images.items():
        write_picture(root / f"JPEGImages/{id_}.jpg", height=height, width=width)
        head = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation>{head}{objects}</annotation>"
        (root / f"Annotations/{id_}.xml").write_text(text)
    (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{id_}\n" for id_ in images))
    return root


def voc_object(name: str, *corners: float | str, more: str = "") -> str:
    """One <object>: xmin, ymin, xmax, ymax."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    frame = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, corners, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{frame}</bndbox></object>"


def coco_content() -> dict:
    """Two pictures of 40 x 50, two categories, three annotations."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 50},
            {"id": 3, "file_name": "b.png", "height": 40, "width": 50},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1.5, 2, 10, 20.25]},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {"id": 3, "image_id": 3, "category_id": 4, "bbox": [10, 10, 5, 5]},
        ],
    }


def write_coco(root: Path, content: object) -> Path:
    """The json at `root/set.json` beside its two pictures."""
    for seed, name in enumerate(("a.png", "b.png")):
        write_picture(root / name, height=40, width=50, seed=seed)
    path = root / "set.json"
    path.write_text(json.dumps(content))
    return path


def png_of_16_bits(values: np.ndarray, *, exif: bytes = b"") -> bytes:
    """A PNG of H x W (grey) or H x W x 2, 3 or 4 (grey and alpha, colour, and alpha) numbers.

    Pillow cannot write colours of 16 bits. `exif` stands behind the pixels.
    """
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"eXIf", exif) if exif else b"",
            chunk(b"IEND", b""),
        ]
    )


def tiff(values: np.ndarray, *, order: str = "<", bits: int = 0, packed: bytes = b"") -> bytes:
    """An uncompressed TIFF of H x W or H x W x 3 numbers of any type, in either byte order.

    `bits` and `packed` are those of pixels that numpy has no type for, such as 12 bits.
    """
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    content = packed or values.astype(values.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits = bits or 8 * values.dtype.itemsize
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [bits] * channels),
        (259, "H", [1]),
        (262, "H", [1 if channels == 1 else 2]),
        (273, "I", [0]),
        (277, "H", [channels]),
        (278, "I", [height]),
        (279, "I", [len(content)]),
        (339, "H", [kind] * channels),
    ]
    begin = 8 + 2 + 12 * len(tags) + 4
    longer, entries = b"", b""
    for tag, letter, numbers in tags:
        if tag == 273:
            numbers = [begin + 4 * channels + 4]
        value = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(value) > 4:
            place = begin + len(longer)
            longer, value = longer + value, struct.pack(f"{order}I", place)
        code = {"H": 3, "I": 4}[letter]
        entries += struct.pack(f"{order}HHI", tag, code, len(numbers)) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    return head + directory + longer.ljust(4 * channels + 4, b"\0") + content


def write_odd_pictures(folder: Path) -> list[str]:
    """One small picture of every kind that a real folder may hold; their names, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    colour = noise.integers(0, 256, (24, 36, 3), dtype=np.uint8)
    picture, grey = Image.fromarray(colour), Image.fromarray(colour[..., 0])
    turned = Image.Exif()
    turned[274] = 6
    picture.save(folder / "rotated.jpg", exif=turned)
    picture.save(folder / "Case.Jpg")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.quantize(16).save(folder / "palette.png", transparency=0)
    picture.save(folder / "animated.webp", save_all=True, append_images=[grey.convert("RGB")])
    picture.save(folder / "animated.gif", save_all=True, append_images=[grey.convert("RGB")])
    (folder / "animated.gif").rename(folder / "gif_inside.png")
    grey.convert("LA").save(folder / "grey_alpha.png")
    grey.convert("1").save(folder / "one_bit.png")
    Image.fromarray(colour[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    (folder / "deep_colour.png").write_bytes(png_of_16_bits(colour.astype(np.uint16) * 257))
    (folder / "deep_colour.tif").write_bytes(tiff(colour.astype(np.uint16) * 257))
    Image.fromarray(colour[:1, :1]).save(folder / "one_pixel.png")
    strip = noise.integers(0, 256, (2, 600, 3), dtype=np.uint8)
    Image.fromarray(strip).save(folder / "strip.png")
    Image.fromarray(np.ascontiguousarray(strip.swapaxes(0, 1))).save(folder / "tall.bmp")
    return sorted(path.name for path in folder.iterdir())
