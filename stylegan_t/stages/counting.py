"""How far the parts in hand have come, wherever they are made: told through small files, shown by the main process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType

from stylegan_t.progress import Progress

SECONDS_BETWEEN_TOLD = 1.0
SECONDS_BETWEEN_SHOWN = 0.5


class Counters:
    """A file per part, in a folder that all processes and machines at work see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, part: int) -> Callable[[int], None]:
        """Tell it how many more candidates of a part have come to their end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, count, next_time = self._path(part), 0, 0.0

        def tell(more: int) -> None:
            nonlocal count, next_time
            count += more
            if time.monotonic() >= next_time:
                path.write_text(str(count))
                next_time = time.monotonic() + SECONDS_BETWEEN_TOLD

        return tell

    def read(self, parts: Collection[int]) -> int:
        """What was told of these parts so far."""
        paths = [path for path in self.folder.glob("*.count") if int(path.stem) in parts]
        return sum(int(text) for text in map(_read, paths) if text)  # empty: it is being written

    def forget(self, part: int) -> None:
        """A part has ended: only those in hand have a file, however many there are."""
        self._path(part).unlink(missing_ok=True)

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:05d}.count"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # its part has just ended
        return ""


class Watch:
    """Shows progress in candidates while entered, from a thread of its own.

    Args:
        what: Name of the work.
        counters: Where parts tell of themselves.
        sizes: Candidates of the parts that are finished already, by number.
        unfinished: Numbers of the others.
        total: Candidates of all of them; None = not known: then it follows from the parts that end.
        guess: Candidates of a part, until one has ended.
    """

    def __init__(
        self,
        what: str,
        counters: Counters,
        sizes: Mapping[int, int],
        unfinished: Collection[int],
        total: int | None,
        guess: int,
    ) -> None:
        self._counters, self._sizes, self._unfinished = counters, dict(sizes), set(unfinished)
        self._total, self._guess, self._lock, self._over = total, guess, threading.Lock(), threading.Event()
        self._bar = Progress(what, self._expected(), done=sum(self._sizes.values()))
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Watch:
        self._bar.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            self._update()
        self._bar.__exit__(kind, error, trace)

    def finished(self, part: int, size: int) -> None:
        """A part has ended, after so many candidates."""
        with self._lock:
            self._sizes[part] = size
            self._unfinished.discard(part)
            self._counters.forget(part)

    def _show(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_SHOWN):
            self._update()

    def _update(self) -> None:
        with self._lock:
            now = sum(self._sizes.values()) + self._counters.read(self._unfinished)
            self._bar.total = self._expected()
        self._bar.advance(max(0, now - self._bar.done))

    def _expected(self) -> float:
        if self._total is not None:
            return self._total
        mean = sum(self._sizes.values()) / len(self._sizes) if self._sizes else self._guess
        return mean * (len(self._sizes) + len(self._unfinished))
