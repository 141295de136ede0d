"""What a worker does, in whatever process of whatever machine."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Work = Callable[[int], dict[str, Any]]
Done = Callable[[int, dict[str, Any]], None]

MAX_LOSSES = 3
"""A part that lost so many workers is given up: memory may be short once; each time, the part itself is the reason."""


def make(work: bytes, part: int) -> dict[str, Any]:
    """The facts of a part, by the pickled ``work``."""
    return _unpickled(work)(part)


@lru_cache(maxsize=1)
def _unpickled(work: bytes) -> Work:
    """One object for all parts of a worker, with what it keeps for the next."""
    return pickle.loads(work)
