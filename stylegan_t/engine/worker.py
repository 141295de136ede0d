"""What a worker does, in whatever process of whatever machine."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Work = Callable[[int], dict[str, Any]]
Done = Callable[[int, dict[str, Any]], None]

MAX_LOSSES = 3
"""A part that lost so many workers is given up: memory may be short once; each time, the part itself is the reason."""


def make(work: bytes, part: int) -> dict[str, Any]:
    """The facts of a part, by the pickled ``work``.

    Its errors come through as themselves; of one that cannot be sent to another process, name and text do, with the
    lines where it was raised: engines would tell of the pickling instead.

    Raises:
        RuntimeError: In the place of such an error.
    """
    try:
        return _unpickled(work)(part)
    except Exception as error:
        if _can_be_sent(error):
            raise
        said = "".join(traceback.format_exception_only(error)).strip()
        raise RuntimeError(said).with_traceback(error.__traceback__) from None  # Ray would send the cause along


@lru_cache(maxsize=1)
def _unpickled(work: bytes) -> Work:
    """One object for all parts of a worker, with what it keeps for the next."""
    return pickle.loads(work)


def _can_be_sent(error: Exception) -> bool:
    """Whether it can be pickled and, which is not the same, read again."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  (what an error's own code raises can be anything)
        return False
    return True
