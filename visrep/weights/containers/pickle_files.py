"""Pickles of arrays: what Detectron2, Caffe2 and JAX's programs keep weights in."""

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from visrep.weights.containers.pickle_functions import FUNCTIONS
from visrep.weights.containers.pickle_machine import Input, Machine
from visrep.weights.containers.torch_files import MAGIC, read_legacy


def read_pickle(stream: BinaryIO, path: Path, size: int) -> tuple[str, Any]:
    """The kind of container and the content of a file that begins with a pickle.

    Raises:
        OSError, Refused, Exception: see `Machine.load`.
    """
    source = Input(stream, path, 0, size)
    value = Machine(source, FUNCTIONS).load()
    if value == MAGIC:
        return "torch (before 1.6)", read_legacy(source)
    return "pickle", value


def write_pickle(stream: BinaryIO, value: object) -> None:
    """Pickle dicts, lists, plain values and contiguous NumPy arrays of numbers.

    An array is stored as `numpy.ndarray(shape, type, bytes)`: NumPy's own way names a private
    module that was moved in NumPy 2, so that older ones cannot open such a file.
    """
    _Pickler(stream, protocol=5).dump(value)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            data = pickle.PickleBuffer(np.ascontiguousarray(value).data)
            return np.ndarray, (value.shape, value.dtype.str, data)
        return NotImplemented
