"""Resume state on disk: whole or absent, the newest few kept, loaded without running any pickled code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stylegan_t.errors import DataError
from stylegan_t.files import atomic

KEPT = 2


def save_state(folder: Path, nimg: int, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts of them) as the newest; drop the oldest."""
    with atomic(folder / f"state-{nimg:012d}.pt") as temporary:
        torch.save(state, temporary)
    for old in sorted(folder.glob("state-*.pt"))[:-KEPT]:
        old.unlink()


def load_newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest state in ``folder``, on the CPU; None where there is none.

    Raises:
        DataError: The newest file is damaged.
    """
    files = sorted(folder.glob("state-*.pt"))
    if not files:
        return None
    try:
        return torch.load(files[-1], weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError) as error:
        raise DataError(f"{files[-1]}: damaged ({error}); delete it to go on from the state before") from None
