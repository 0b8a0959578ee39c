"""Is Detectron2 here? The one place that asks."""

import importlib.util
import warnings


def version() -> tuple[str | None, str]:
    """Detectron2's version, or None and why it cannot be used, as a clause.

    It is imported with its compiled part: one that was built for another torch or CUDA is there,
    and cannot be used.
    """
    if importlib.util.find_spec("detectron2") is None:
        return None, "Detectron2 is not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its use of torch.jit.script
            import detectron2
            import detectron2.modeling
            from detectron2 import _C  # noqa: F401
    except Exception as error:  # a broken installation raises anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return None, f"Detectron2 cannot be imported ({first})"
    return str(detectron2.__version__), ""
