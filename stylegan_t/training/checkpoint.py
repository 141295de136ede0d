"""Resume state on disk: whole or not used, the newest few kept, loaded without running any pickled code.

``state-000000001024.pt`` is the state after 1,024 images; ``state-000000001024.json`` holds its size and hash. It is
written last, so that a state without it was never finished.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from stylegan_t.errors import DataError, NotSaved
from stylegan_t.files import atomic, sha256, write_json

logger = logging.getLogger(__name__)


class StateWriter:
    """Writes states while training goes on.

    Leaving the ``with`` block waits for the last one. What went wrong in writing is raised by the next call or there,
    as NotSaved.

    Args:
        folder: Of the run.
        keep: States kept; of a run made shorter, those beyond its end are left alone.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._thread = ThreadPoolExecutor(1, "state writer")
        self._pending: Future[None] | None = None
        self.last_nimg: int | None = None
        """Images of the last state that is known to be whole."""

    def __enter__(self) -> StateWriter:
        for leftover in self.folder.glob(".state-*.tmp"):  # of a process that was killed while writing
            leftover.unlink(missing_ok=True)  # of several processes, another may have been first
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def save(self, nimg: int, state: dict[str, Any]) -> None:
        """Copy ``state`` (tensors, numbers, strings, lists and dicts of them) now, and write it in the background."""
        self.wait()  # first: two copies of a large state may not fit into memory
        copied = _copied(state)
        self._pending = self._thread.submit(self._write, nimg, copied)

    def check(self) -> None:
        """Raise what went wrong with the last state, if that is known by now; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return when the last state is on disk."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, nimg: int, state: dict[str, Any]) -> None:
        path = _file(self.folder, nimg)
        if self.last_nimg == nimg:
            self.last_nimg = None
        with _saying_why(path, self.last_nimg):
            path.with_suffix(".json").unlink(missing_ok=True)  # an older file of this name and its marker go together
            with atomic(path) as temporary, temporary.open("wb") as file:
                torch.save(state, file)
            write_json(path.with_suffix(".json"), {"nimg": nimg, "bytes": path.stat().st_size, "sha256": sha256(path)})
        self.last_nimg = nimg
        finished = [path for path in _states(self.folder, nimg) if path.with_suffix(".json").exists()]
        for old in _states(self.folder, _nimg(finished[-self.keep :][0]) - 1):
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink()


@contextmanager
def _saying_why(path: Path, last_nimg: int | None) -> Iterator[None]:
    """Tell in one line what the disk refused: torch raises a RuntimeError of its own on top of it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        before = "" if last_nimg is None else f"; the state at {last_nimg / 1000:.3f} kimg is whole"
        raise NotSaved(f"{path}: the state could not be written ({cause.strerror or cause}){before}") from None


def _copied(value: Any) -> Any:
    """The same value with its tensors copied to the CPU, so that training may go on changing them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_copied, value))
    return value


def _file(folder: Path, nimg: int) -> Path:
    return folder / f"state-{nimg:012d}.pt"


def _nimg(path: Path) -> int:
    return int(path.stem.removeprefix("state-"))


def _states(folder: Path, at_most: float) -> list[Path]:
    """Files of states of ``at_most`` so many images, ascending."""
    return [path for path in sorted(folder.glob("state-*.pt")) if _nimg(path) <= at_most]


def newest_state(folder: Path, at_most: float) -> int | None:
    """Images of the newest state that is whole; None where none was ever finished.

    A damaged one is passed over with a warning, and so is one that a killed process left unfinished. A warning also
    says so where all that are kept are a longer run's.

    Args:
        at_most: Images that a run may have seen; a longer run's states are left alone.

    Raises:
        DataError: States were finished, and all of them are damaged.
    """
    damage: list[str] = []
    for path in reversed(_states(folder, at_most)):
        if not path.with_suffix(".json").exists():
            logger.warning("%s: was never finished; the state before it counts", path)
        elif found := _damage(path):
            logger.warning("%s; going on from the state before it", found)
            damage.append(found)
        else:
            return _nimg(path)
    if damage:
        raise DataError(f"{damage[0]}; no state before it is whole; `--resume never` starts afresh")
    if beyond := [path for path in _states(folder, float("inf")) if _nimg(path) > at_most]:
        logger.warning(
            "%s: beyond the end, %g kimg, as are all states kept; they do not count", beyond[0], at_most / 1000
        )
    return None


def _damage(path: Path) -> str | None:
    """What is wrong with a finished state, or None."""
    try:
        marker = json.loads(path.with_suffix(".json").read_text())
        size, digest = marker["bytes"], marker["sha256"]
        if path.stat().st_size != size:
            return f"{path}: damaged ({path.stat().st_size} bytes instead of {size})"
        return None if sha256(path) == digest else f"{path}: damaged (its hash is not the one noted)"
    except (ValueError, KeyError, TypeError):
        return f"{path.with_suffix('.json')}: damaged"
    except OSError as error:  # what a dying disk says
        return f"{path}: cannot be read ({error.strerror})"


def load_state(folder: Path, nimg: int) -> dict[str, Any]:
    """The state after ``nimg`` images, on the CPU.

    Its tensors stay in the file until someone reads them: a node's processes would else each hold all of it in memory.
    """
    return torch.load(_file(folder, nimg), weights_only=True, map_location="cpu", mmap=True)


def drop_states(folder: Path) -> int:
    """Remove all states; how many they were."""
    dropped = _states(folder, float("inf"))
    for path in dropped:
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink()
    return len(dropped)
