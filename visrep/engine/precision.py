"""bfloat16 autocast where the machine does it well."""

import torch

from visrep.errors import ConfigError


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype to autocast to, or None for plain float32.

    `auto` takes bfloat16 on a GPU that has it and on a CPU with AVX-512-BF16, where it is
    about twice as fast as float32; on any other CPU bfloat16 is emulated and slower.

    Raises:
        ConfigError: `precision` is not auto, fp32 or bf16.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if precision == "auto":
        return torch.bfloat16 if _fast_bfloat16(device) else None
    raise ConfigError(f"precision={precision}: choose auto, fp32 or bf16")


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Private, but in every torch since 2.2; the public query came after 2.11.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
