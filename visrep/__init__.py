"""visrep: unlabelled images into good detectors and small models.

What one uses from Python, each imported when it is asked for (`import visrep` loads no torch):

    load_encoder(path), load_classifier(path)   any checkpoint as a module in eval mode
    read_weights(path, Choice(...))             the same as an `EncoderFile`, tensors and metadata
    save_encoder(path, ...), write_encoder      an encoder file of a net, or of an `EncoderFile`
    Encoder, ResNet, MLP, Classifier            nets; `Preprocess` is what their input goes through
    UserError                                   a file or a setting is wrong: what, in one line

Methods, data sets and formats of one's own are built on the modules that docs/extending.md names.
"""

import importlib
import sys

from visrep.renamed import Successors as _Successors

__version__ = "0.1.0"

_PLACES = {
    "visrep.data.preprocess": ("Preprocess",),
    "visrep.errors": ("UserError",),
    "visrep.nn.classifier": ("Classifier",),
    "visrep.nn.heads": ("MLP",),
    "visrep.nn.resnet": ("ResNet",),
    "visrep.weights.encoder_file": ("Encoder", "EncoderFile", "save_encoder", "write_encoder"),
    "visrep.weights.foreign": ("Choice",),
    "visrep.weights.reading": ("load_classifier", "load_encoder", "read_weights"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

sys.meta_path.append(_Successors())


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
