"""The encoder file, and everything that becomes one or is made of one."""

from visrep.weights.encoder_file import Encoder, EncoderFile, save_encoder, write_encoder
from visrep.weights.reading import load_classifier, load_encoder, read_weights

__all__ = [
    "Encoder",
    "EncoderFile",
    "load_classifier",
    "load_encoder",
    "read_weights",
    "save_encoder",
    "write_encoder",
]
