"""safetensors: 8 bytes of length, a header in JSON, raw numbers.

https://huggingface.co/docs/safetensors. Both directions go tensor by tensor; the library makes
copies of all of them.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from visrep.errors import UserError
from visrep.weights.containers.stored import Span, Stored, as_type
from visrep.weights.containers.tree import shapes_in

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class _Entry(Stored):
    def __init__(self, span: Span, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.span, self.dtype, self.shape = span, dtype, shape
        if self.size != span.size:
            raise ValueError("it has another size than its place")

    def read(self) -> Tensor:
        return as_type(self.span.read(), self.dtype, big_endian=False).reshape(self.shape)


def read_safetensors(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Tensors and metadata.

    The library checks the header, but it is not asked for tensors: it would map the file, whose
    pages count until it is closed and follow whoever writes to it.

    Raises:
        OSError, Exception: it cannot be read; of any kind, it is damaged.
    """
    with safetensors.safe_open(path, framework="pt") as opened:
        metadata = opened.metadata() or {}
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    tensors: dict[str, Stored] = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise UserError(f"{path}: {name} is of type {entry['dtype']}, not weights")
        begin, end = entry["data_offsets"]
        span = Span(path, 8 + length + begin, end - begin)
        tensors[name] = _Entry(span, _DTYPES[entry["dtype"]], tuple(entry["shape"]))
    return tensors, metadata


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write float32 tensors in the order of their names, as it goes: for a temporary path.

    Raises:
        OSError: a write failed.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in sorted(shapes_in(tensors).items()):
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu().contiguous()
            assert tensor.dtype == torch.float32, name
            stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
