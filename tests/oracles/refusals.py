"""How a bad weights file must be refused."""

import time
from pathlib import Path

import pytest

from visrep.errors import UserError
from visrep.weights.containers.weights_files import read_tree


def refused(path: Path, *words: str, content: bytes | None = None) -> None:
    """`path`, with `content` if that is given, is refused soon, in one line with `words`."""
    if content is not None:
        path.write_bytes(content)
    began = time.process_time()
    with pytest.raises(UserError) as caught:
        read_tree(path)
    assert time.process_time() - began < 1
    message = str(caught.value)
    assert "\n" not in message and len(message) < 250 + len(str(path))
    for word in (str(path), *words):
        assert word in message
