"""What would run, and why: DVC's own answer, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.dvc.entries import has_entry
from flows.dvc.failures import Busy
from flows.dvc.stages import in_order, output_of


@dataclass(frozen=True)
class Planned:
    """One stage of a plan.

    Attributes:
        would: What bringing it up to date would do. What changes before it may turn out the same, and it nothing.
        why: Reasons to run it, in words.
    """

    stage: str
    would: Literal["run", "nothing"]
    why: tuple[str, ...] = ()


def plan(root: Path, targets: Sequence[str] | None = None, *, contents_elsewhere: bool = False) -> list[Planned]:
    """What bringing stages and all that they need up to date would run.

    Args:
        targets: Names of stages; None means all.
        contents_elsewhere: Data and models may lie in the remote only: what is not here counts as dvc.lock has it.

    Raises:
        ValueError: There is no pipeline in ``root``, or no such stage.
        Busy: A DVC command works on the files now.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    root, found = root.resolve(), dict[str, Planned]()
    try:
        with Repo(str(root)) as repo, repo.lock:
            for stage, needs in in_order(repo, root, targets):
                why = [f"{each.name} would run before it" for each in needs if found[each.name].would == "run"]
                if has_entry(root, stage.name):
                    why += _changes(stage, needs, contents_elsewhere)
                else:
                    why.append("it never ran")
                found[stage.name] = Planned(stage.name, "run" if why else "nothing", tuple(why))
    except LockError as error:
        raise Busy("plan", 1, f"DVC is at work on the files: {error}") from None
    return list(found.values())


def _changes(stage: Any, needs: Sequence[Any], contents_elsewhere: bool) -> Iterator[str]:
    """What differs from the stage's entry in dvc.lock, in words."""
    for change in stage.status().get(stage.addressing, []):
        if isinstance(change, str):
            yield "its command changed" if change == "changed command" else change
            continue
        for kind, files in change.items():
            for path, how in files.items():
                if isinstance(how, dict):  # settings of a file
                    yield from (f"{key} is {state}" for key, state in how.items())
                elif not (contents_elsewhere and how in ("deleted", "not in cache")):
                    yield f"{path} is {how}"
                elif kind == "changed deps" and not _as_recorded(_dependency(stage, path), needs):
                    yield f"{path} is modified"


def _dependency(stage: Any, path: str) -> Any:
    return next(dependency for dependency in stage.deps if str(dependency) == path)


def _as_recorded(dependency: Any, needs: Sequence[Any]) -> bool:
    """Whether a dependency that is not here is, by the entry of the stage that makes it, what it was."""
    out = output_of(dependency, needs)
    if out is None or not out.hash_info:
        return False
    if out.fs_path == dependency.fs_path:
        return out.hash_info == dependency.hash_info
    if out.get_dir_cache() is None:  # the list of a folder's files, from the remote where it is not here
        return False
    part = out.get_obj(filter_info=dependency.fs_path)
    return part is not None and part.hash_info == dependency.hash_info
