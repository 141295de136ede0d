"""Resume state on disk: whole or absent, the newest few kept, loaded without running any pickled code."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from stylegan_t.errors import DataError
from stylegan_t.files import atomic

KEPT = 2


def save_state(folder: Path, nimg: int, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts of them); of those up to it, the newest stay."""
    with atomic(_file(folder, nimg)) as temporary:
        torch.save(state, temporary)
    for old in _states(folder, nimg)[:-KEPT]:
        old.unlink()


def _file(folder: Path, nimg: int) -> Path:
    return folder / f"state-{nimg:012d}.pt"


def _states(folder: Path, at_most: float) -> list[Path]:
    """Files of states of ``at_most`` so many images, ascending."""
    return [path for path in sorted(folder.glob("state-*.pt")) if int(path.stem.removeprefix("state-")) <= at_most]


def load_newest_state(folder: Path, at_most: float) -> dict[str, Any] | None:
    """The newest state in ``folder``, on the CPU; None where there is none.

    Args:
        at_most: Images that a run may have seen; a longer run's states are left alone.

    Raises:
        DataError: The newest file is damaged.
    """
    files = _states(folder, at_most)
    if not files:
        return None
    try:
        return torch.load(files[-1], weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        raise DataError(f"{files[-1]}: damaged ({error}); delete it to go on from the state before") from None
