"""What the machine says when memory does not suffice, as one line."""

import re

import torch

from visrep.errors import UserError

_HOST = re.compile(r"can't allocate memory|not enough memory", re.IGNORECASE)
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)")


def explained(error: Exception) -> UserError | None:
    """An allocation that failed, on the device or the host; None: `error` is something else."""
    device = isinstance(error, torch.OutOfMemoryError)
    if not device and not isinstance(error, MemoryError) and not _HOST.search(str(error)):
        return None
    asked = _ASKED.search(str(error))
    wanted = f" ({asked[1]} were asked for)" if asked else ""
    return UserError(
        f"the memory of the {'device' if device else 'machine'} does not suffice{wanted}: lower "
        "batch_size=, or the size of the images"
    )
