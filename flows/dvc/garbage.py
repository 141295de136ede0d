"""What nothing needs any more in DVC's cache, and in its remote."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.dvc.locks import InUse, cache_folder, lock_holders

EXPERIMENTS = Path(".dvc", "tmp", "exps")
"""Below it, `dvc exp run --temp` works in copies of the repository, ``tmp…`` and ``standalone/tmp…``."""

TELLING = ("dvc_data.hashfile.gc", "dvc.repo.gc")
"""DVC's loggers that name what goes."""


@dataclass(frozen=True)
class Garbage:
    """What was removed, or would be.

    Attributes:
        objects: Files of the cache.
        size: Their bytes.
        remote_objects: Files of the remote.
    """

    objects: int
    size: int
    remote_objects: int


def collect_garbage(
    root: Path, sharing: Sequence[Path] = (), *, remote: bool = False, dry_run: bool = False
) -> Garbage:
    """Remove from the cache what the workspace, its branches, tags and experiments do not name.

    DVC itself begins nothing in the workspace meanwhile; runs of ours are kept out by ``collecting``, which is the
    caller's. A folder whose list of files is neither here nor in the remote is lost already, and keeps nothing.

    Args:
        sharing: Other workspaces with the same cache, whose contents stay too.
        remote: Remove from the remote as well what no commit names that git knows of here.
        dry_run: Only say what would be removed.

    Raises:
        InUse: DVC is at work, here or in one of the others.
        ValueError: One of the others has another cache.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    for other in sharing:
        if cache_folder(other).resolve() != cache_folder(root).resolve():
            raise ValueError(
                f"--sharing {other}: its cache is {cache_folder(other)}, ours {cache_folder(root)}; leave it out"
            )
    try:
        with Repo(str(root)) as repo, lock_repo(repo):
            for each in (root, *sharing):
                refuse_while_at_work(each)
            kept = {
                "workspace": True,
                "all_branches": True,
                "all_tags": True,
                "all_experiments": True,
                "all_commits": remote,
                "repos": [str(each) for each in sharing],
                "cloud": remote,
                "force": True,
            }
            with _Told() as told:
                repo.gc(**kept, dry=True)
                ours = [Path(path) for path in told.paths if _is_within(path, cache_folder(root))]
                found = Garbage(len(ours), sum(path.lstat().st_size for path in ours), len(told.paths) - len(ours))
                if not dry_run:
                    repo.gc(**kept)
    except LockError:
        raise InUse(f"DVC is at work in {root}; clean up when it is done") from None
    return found


def refuse_while_at_work(root: Path) -> None:
    """Raise InUse where a command of DVC runs on the repository, or anything in one of its temporary copies."""
    if busy := list(dict.fromkeys([*lock_holders(root), *_commands(root.resolve())])):
        raise InUse(f"{root}: DVC is at work: {'; '.join(busy)}; clean up when it is done")


def temporary_copies(root: Path) -> list[Path]:
    """Copies of the repository that experiments run in, or left behind when they were killed."""
    return sorted(path for pattern in ("tmp*", "standalone/tmp*") for path in (root / EXPERIMENTS).glob(pattern))


def _commands(root: Path) -> Iterator[str]:
    """DVC's processes by their folder: before and after a stage they hold no lock that can be read."""
    me = psutil.Process()
    ours = {me.pid, *(process.pid for process in me.parents())}
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words, folder = process.info["cmdline"], process.info["cwd"]
        if not words or not folder or process.pid in ours or not _is_within(folder, root):
            continue
        is_dvc = any(Path(word).name == "dvc" for word in words[:3])  # dvc …, python …/dvc …, python -m dvc …
        if is_dvc or _is_within(folder, root / EXPERIMENTS):
            yield f"{' '.join(' '.join(words).split())[:100]} (process {process.pid})"


def _is_within(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)


class _Told(logging.Handler):
    """Keeps the paths that DVC says it would remove, while the block lasts, and what else it says to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "Removing %s" and isinstance(record.args, tuple):
            self.paths.append(str(record.args[0]))

    def __enter__(self) -> _Told:
        self._before = [(logger, logger.level, logger.propagate) for logger in map(logging.getLogger, TELLING)]
        for logger, *_ in self._before:
            logger.addHandler(self)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        for logger, level, propagate in self._before:
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = propagate
