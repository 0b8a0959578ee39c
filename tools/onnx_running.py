"""onnxruntime: whether it is here, a session on the CPU, what an image takes in it."""

import statistics
import time
from collections.abc import Callable
from typing import Any

from visrep.errors import ConfigError


def require() -> tuple[Any, Any]:
    """The modules onnx and onnxruntime.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ConfigError(f"export needs {error.name}: pip install 'visrep[export]'") from error
    return onnx, onnxruntime


def session(runtime: Any, model: bytes | str, *, threads: int) -> Any:
    """An onnxruntime session on the CPU with `threads` threads."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def latency_ms(call: Callable[[], object], *, repeats: int) -> float:
    """Median milliseconds of `repeats` calls, after a tenth of them as warm-up."""
    for _ in range(max(3, repeats // 10)):
        call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
