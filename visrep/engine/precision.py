"""The number format of a step: float32, or autocast to one of 16 bits."""

import torch

from visrep.errors import ConfigError


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype to autocast to, or None for plain float32.

    `auto` takes bfloat16 on a GPU that has it and on a CPU with AVX-512-BF16, where it is
    about twice as fast as float32; on any other CPU bfloat16 is emulated and slower.

    float16 is for a GPU: it needs its gradients scaled, see `scaler`.

    Raises:
        ConfigError: `precision` is not auto, fp32, bf16 or fp16, or fp16 without a GPU.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if precision == "auto":
        return torch.bfloat16 if _fast_bfloat16(device) else None
    if precision == "fp16":
        if device.type != "cuda":
            raise ConfigError("precision=fp16 is for a GPU: use bf16 or fp32")
        return torch.float16
    raise ConfigError(f"precision={precision}: choose auto, fp32, bf16 or fp16")


def scaler(dtype: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """What keeps small gradients in the range of float16, and does nothing for other formats."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Private, but in every torch since 2.2; the public query came after 2.11.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
