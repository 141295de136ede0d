"""Cleaning up as a Prefect flow: what nothing needs goes, what a live run needs never does.

``python -m flows.housekeeping`` runs it once; with ``--dry-run`` it only lists.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prefect import flow, get_client, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from flows import dvc
from flows.command_line import as_command
from flows.failures import told_without_a_trace
from flows.git import git
from flows.leftovers import Leftover, clear_copies, clear_states, clear_temporary
from flows.server import prefect_server

told_without_a_trace(ValueError)


@flow(name="housekeeping", persist_result=False)
def housekeeping(
    keep_runs: int = 3,
    older_than_days: float = 14.0,
    dry_run: bool = False,
    remote: bool = False,
    sharing: list[str] | None = None,
) -> list[Leftover]:
    """Remove old states of trainings, copies of dead experiments, temporary files, and what the cache holds in vain.

    The cache keeps what the workspace, its branches, tags and experiments name. One that lies outside of the
    workspace may be others' as well: it is left alone unless they are named.

    Clones of workers in ``.workspaces`` are cleaned too, where nothing is at work there.

    Args:
        keep_runs: How many runs of each stage keep their state, whatever their age.
        older_than_days: Nor does any other one lose it before.
        dry_run: Only say what would go.
        remote: Clean the DVC remote too, by the commits that git knows of here after a fetch. What others have pushed
            for commits that they keep to themselves goes.
        sharing: Other workspaces on this machine with the same cache.

    Raises:
        InUse: A run is at work with the cache, or DVC is; with ``remote``, also one over many machines.
        ValueError: ``keep_runs`` or ``older_than_days`` is too small, or one of ``sharing`` has another cache.
    """
    if keep_runs < 1 or older_than_days < 0:
        raise ValueError(f"keep_runs = {keep_runs}, older_than_days = {older_than_days:g}: at least 1 and 0 are needed")
    root = Path.cwd()
    if remote and (at_work := _runs_of_other_machines()):
        raise dvc.InUse(f"{', '.join(at_work)} may have sent to the remote what no commit names yet; wait for it")
    found = _clean(root, keep_runs, older_than_days, dry_run, remote, [Path(each).resolve() for each in sharing or []])
    for clone in sorted(each.parent for each in root.glob(".workspaces/*/.dvc")):  # of workers
        try:
            theirs = _clean(clone, keep_runs, older_than_days, dry_run, False, [])
        except dvc.InUse as error:
            get_run_logger().warning("%s", error)
            continue
        found += [replace(each, path=f"{clone.relative_to(root)}: {each.path}") for each in theirs]
    _show(found, dry_run)
    return found


def _clean(
    root: Path, keep_runs: int, older_than_days: float, dry_run: bool, remote: bool, sharing: Sequence[Path]
) -> list[Leftover]:
    """The same for one workspace."""
    with dvc.collecting(root):
        dvc.refuse_while_at_work(root)
        found = [] if (root / ".state").is_symlink() else clear_states(root, keep_runs, older_than_days, dry_run)
        found += clear_copies(root, dvc.temporary_copies(root), dry_run)
        found += clear_temporary(root, dry_run)
        if _is_others_too(root) and not sharing:
            said = "%s may serve other workspaces: nothing of it is removed; --sharing DIR names them"
            get_run_logger().warning(said, dvc.cache_folder(root))
            return found
        return found + _cache(root, sharing, remote, dry_run)


def _is_others_too(root: Path) -> bool:
    return not dvc.cache_folder(root).resolve().is_relative_to(root.resolve())


def _cache(root: Path, sharing: Sequence[Path], remote: bool, dry_run: bool) -> list[Leftover]:
    if remote:
        get_run_logger().warning(
            "the DVC remote loses what no commit names that git knows of here: "
            "commits that were not pushed from elsewhere lose what they have sent"
        )
        if git(root, "remote"):
            git(root, "fetch", "--all", "--prune", "--quiet")
    garbage = dvc.collect_garbage(root, sharing, remote=remote, dry_run=dry_run)
    found = [Leftover("cache", f"{garbage.objects} objects", garbage.size)] if garbage.objects else []
    if garbage.remote_objects:
        found.append(Leftover("remote", f"{garbage.remote_objects} objects", 0))
    return found


def _runs_of_other_machines() -> list[str]:
    """Names of runs over many machines that the server knows to be at work."""
    at_work = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["spread", "stage"])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=at_work)),
        )
    return sorted(run.name for run in runs)


def _show(found: Sequence[Leftover], dry_run: bool) -> None:
    """What went, on the terminal and as an artifact of the flow run."""
    total = f"{decimal(sum(each.size for each in found))} {'would be ' if dry_run else ''}freed"
    rows = [{"what": each.what, "which": each.path, "bytes": each.size} for each in found]
    create_table_artifact(key="housekeeping", table=rows or [{"what": "nothing to remove"}], description=total)
    table = Table("what", "which", "size", caption=total)
    for each in found:
        table.add_row(each.what, each.path, decimal(each.size))
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for what was asked wrongly, 73 where something is at work."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.housekeeping", description="Remove what nothing needs: old states, leftovers, cache."
    )
    parser.add_argument("--keep-runs", type=int, default=3, metavar="N", help="of each stage, the newest; default: 3")
    parser.add_argument("--older-than-days", type=float, default=14.0, metavar="D", help="of other states; default: 14")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument(
        "--remote", action="store_true", help="also what no commit known here names in the DVC remote: others' too"
    )
    parser.add_argument(
        "--sharing", action="append", default=[], metavar="DIR", help="another workspace with this cache; repeatable"
    )
    options = parser.parse_args(arguments)

    def work() -> None:
        with prefect_server():
            housekeeping(options.keep_runs, options.older_than_days, options.dry_run, options.remote, options.sharing)

    return as_command(work)


if __name__ == "__main__":
    sys.exit(main())
