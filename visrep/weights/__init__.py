"""The encoder file, and everything that becomes one or is made of one."""

from importlib import import_module
from typing import Any

# What people import from here; found when it is asked for, so that no import goes in a circle.
_PUBLIC = {
    **dict.fromkeys(("Encoder", "EncoderFile", "save_encoder", "write_encoder"), "encoder_file"),
    **dict.fromkeys(("load_classifier", "load_encoder", "read_weights"), "reading"),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
