"""What Prefect and DVC cost, and whether it grows: ``python benchmarks/orchestration.py --help``, or ``make soak``.

Both on dvc.yaml as it is, but for its commands, which only make files. The last results are in
benchmarks/orchestration.md.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment

from benchmarks.standin import ROOT, forget, place_of_our_own, stand_in, up
from flows import dvc
from flows.machines.jobs import online_workers
from tests.flows import cluster, standin

MEBIBYTE = 2**20
DEPLOYMENT = "end-to-end/nightly"

ALL_RUN, NOTHING_TO_DO = "all run", "nothing to do"
SPREAD = "over two workers"
Times = dict[tuple[str, str], list[float]]
"""Seconds of each round, by what ran and whether there was something to do."""

NOTHING_SECONDS, STAGE_SECONDS = 20.0, 3.0
"""The aims: for a run that finds nothing to do, and for what a stage takes beyond its command."""

GROWTH, MARGIN_MIB = 1.2, 32
"""What the second half of the runs may need, of what the first did, and besides."""

app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def begin() -> None:
    """End what was started, also on SIGTERM."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


@app.command()
def overhead(rounds: Annotated[int, typer.Option("--times", min=1, help="all cases take turns in each")] = 3) -> None:
    """Seconds of a run, and of a stage, with DVC alone, with a flow, and with two workers."""
    times: Times = defaultdict(list)
    for _ in range(rounds):
        with place_of_our_own() as place:
            one_machine(times, stand_in(place / "one"))
        with place_of_our_own() as place:
            two_workers(times, place / "two")
    stages = len(dvc.read_stages(ROOT))
    print(f"{stages} stages, {rounds} rounds; {machine()}\n")
    print("| what | stages | seconds | lowest … highest | a stage beyond its command, s | and beyond DVC alone, s |")
    print("|---|---|---|---|---|---|")
    middle = {case: statistics.median(values) for case, values in times.items()}
    commands = {ALL_RUN: middle["the commands alone", ALL_RUN], NOTHING_TO_DO: 0.0}
    beyond = {(what, which): (seconds - commands[which]) / stages for (what, which), seconds in middle.items()}
    for (what, which), values in times.items():
        own = beyond[what, which]
        cells = [f"{middle[what, which]:.1f}", f"{min(values):.1f} … {max(values):.1f}", f"{own:.2f}"]
        print("| " + " | ".join([what, which, *cells, f"{own - beyond['`dvc repro`', which]:.2f}"]) + " |")
    longest = max(seconds for (_, which), seconds in middle.items() if which == NOTHING_TO_DO)
    if longest > NOTHING_SECONDS or beyond["a flow", ALL_RUN] > STAGE_SECONDS:
        sys.exit(f"missed: {NOTHING_SECONDS:g} s where there is nothing to do, {STAGE_SECONDS:g} s for a flow's stage")


def one_machine(times: Times, folder: Path) -> None:
    """DVC alone, a flow, a deployment's run by a worker; and a flow on our own pipeline, where that is up to date."""
    commands = [each.command for each in dvc.read_stages(folder)]
    with clock(times, "the commands alone", ALL_RUN):
        for command in commands:
            subprocess.run(command, shell=True, cwd=folder, check=True)
    with up(folder):
        for what, run in (("`dvc repro`", lambda: cluster.dvc(folder, "repro")), ("a flow", lambda: flow(folder))):
            forget(folder)
            for which in (ALL_RUN, NOTHING_TO_DO):
                with clock(times, what, which):
                    run()
        with clock(times, "its deployment, by a worker", NOTHING_TO_DO):
            done = run_deployment(DEPLOYMENT, poll_interval=0.2)
        assert isinstance(done, FlowRun) and done.state and done.state.is_completed(), done
        if all(each.would == "nothing" for each in dvc.plan(ROOT)):
            with clock(times, "a flow on our own pipeline", NOTHING_TO_DO):
                flow(ROOT)


def flow(folder: Path) -> None:
    """As from a shell."""
    code, output = standin.run(folder)
    assert code == 0, output


def two_workers(times: Times, folder: Path) -> None:
    """The same stages sent to a worker of each pool, with contents by way of a DVC remote."""
    origin = cluster.Origin(folder)
    stand_in(origin.author)
    origin.publish()
    machines = cluster.worker(origin, "one", "cpu"), cluster.worker(origin, "two", "gpu")
    with up(origin.author, "--cpu-workers", "0") as client, machines[0], machines[1]:
        cluster.wait_until(lambda: online_workers(client, "cpu") and online_workers(client, "gpu"), 120)
        for which in (ALL_RUN, NOTHING_TO_DO):
            revision = origin.branches()[-1] if which == NOTHING_TO_DO else "main"
            with clock(times, SPREAD, which):
                code, output = cluster.finished(cluster.spread(origin, "--revision", revision), 900)
            assert code == 0, output


@contextmanager
def clock(times: Times, what: str, which: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times[what, which].append(time.perf_counter() - start)


def machine() -> str:
    """Processor, cores, versions, date and command, as one line of a report."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    versions = [f"{name} {version(name)}" for name in ("prefect", "dvc")]
    parts = [
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        ", ".join([*versions, f"Python {platform.python_version()}"]),
        datetime.date.today().isoformat(),
        f"`{shlex.join(['python', 'benchmarks/' + Path(sys.argv[0]).name, *sys.argv[1:]])}`",
    ]
    return "; ".join(parts)


class Seen(NamedTuple):
    """A run, and what was there as soon as it had ended.

    Attributes:
        server: Its resident memory, MiB, and the worker's.
        processes: Of ours, without those of the next run, which may have begun.
        locks: Files for locks, DVC's and ours; entries of dead commands in DVC's; limits that Prefect has granted.
        files: In the folder for temporary files.
    """

    state: str
    seconds: float
    server: float
    worker: float
    processes: int
    locks: int
    files: int


@app.command()
def soak(runs: Annotated[int, typer.Option(min=4)] = 50) -> None:
    """Scheduled runs, one directly after the other, with work in each: all complete, and nothing grows."""
    began, seen = time.monotonic(), list[Seen]()
    print(f"{runs} scheduled runs of {DEPLOYMENT}, in each of which the last stage runs; {machine()}\n")
    print("run  ended at  state      seconds  server MiB  worker MiB  processes  locks  temporary files")
    with place_of_our_own() as place:
        folder = stand_in(place / "one", changing="evaluate")
        with up(folder, PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="5") as client:
            for run in scheduled(client, runs):
                each = look(place, folder, run)
                seen.append(each)
                print(
                    f"{len(seen):3}  {datetime.datetime.now():%H:%M:%S}  {each.state:9}  {each.seconds:7.1f}"
                    f"  {each.server:10.0f}  {each.worker:10.0f}  {each.processes:9}  {each.locks:5}  {each.files:15}",
                    flush=True,
                )
        left = [process.name() for process in processes_of(place)] + dvc.lock_holders(folder)
    print(f"\n{sum(e.seconds for e in seen):.0f} s at work, {time.monotonic() - began:.0f} s with start and end")
    faults = [f"run {number}: {each.state}" for number, each in enumerate(seen, 1) if each.state != "Completed"]
    faults += [f"left behind: {', '.join(left)}"] if left else []
    faults += growth(seen)
    print("\n".join(faults) or "all completed, nothing was left behind, nothing grew")
    sys.exit(bool(faults))


def scheduled(client: SyncPrefectClient, runs: int) -> Iterator[FlowRun]:
    """Runs of the deployment as they end, scheduled so often that the next one is always waiting."""
    deployment = client.read_deployment_by_name(DEPLOYMENT).id
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    client.update_work_pool("cpu", WorkPoolUpdate(concurrency_limit=1))
    client.update_deployment(
        deployment, DeploymentUpdate(concurrency_limit=None)
    )  # it drops runs, the pool has them wait
    client.create_deployment_schedules(deployment, [(IntervalSchedule(interval=datetime.timedelta(seconds=5)), True)])
    known = set()
    while len(known) < runs:
        time.sleep(0.1)
        for run in client.read_flow_runs(deployment_filter=ours, sort=FlowRunSort.END_TIME_DESC, limit=5):
            if run.state and run.state.is_final() and run.id not in known and len(known) < runs:
                known.add(run.id)
                if len(known) == runs:
                    client.update_work_pool("cpu", WorkPoolUpdate(is_paused=True))
                yield run


def look(place: Path, folder: Path, run: FlowRun) -> Seen:
    lines = processes_of(place)
    of_runs = below(lines, "prefect.engine")
    server, worker = (sum(map(resident, below(lines, f"{what} start") - of_runs)) for what in ("server", "worker"))
    limits = list((place / "home" / "concurrency_leases").glob("*-*.json"))
    locks = files_in(folder / ".dvc" / "tmp") + dead_entries(folder) + len(limits)
    processes, files = len(lines.keys() - of_runs), files_in(place / "tmp")
    return Seen(str(run.state_name), run.total_run_time.total_seconds(), server, worker, processes, locks, files)


def processes_of(place: Path) -> dict[psutil.Process, str]:
    """All that runs for us, however it was started and whoever is its parent now, with its command line."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR") == f"{place}/tmp":
                found[process] = " ".join(process.cmdline())
    return found


def below(lines: dict[psutil.Process, str], words: str) -> set[psutil.Process]:
    """Processes with these words in their commands, without their guards, and all below them."""
    found = set()
    for process, line in lines.items():
        if words in line and "guard.py" not in line:
            with suppress(psutil.Error):
                found |= {process, *process.children(recursive=True)}
    return found


def resident(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return process.memory_info().rss / MEBIBYTE
    return 0.0


def files_in(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def dead_entries(folder: Path) -> int:
    """Commands that ended and are still in DVC's list of those at work."""
    with suppress(FileNotFoundError, ValueError):
        entries = json.loads((folder / ".dvc" / "tmp" / "rwlock").read_text())
        reading = [entry for some in entries.get("read", {}).values() for entry in some]
        return sum(not psutil.pid_exists(entry["pid"]) for entry in [*reading, *entries.get("write", {}).values()])
    return 0


def growth(seen: Sequence[Seen]) -> list[str]:
    """What grew from the first half to the second; the first run does not count: it makes what stays."""
    first, second = seen[1 : len(seen) // 2], seen[len(seen) // 2 :]
    faults = []
    for what in ("processes", "locks", "files"):  # where one is seen by chance, a later look does not see it
        before, after = (min(getattr(each, what) for each in half) for half in (first, second))
        faults += [f"{what}: from {before} to {after}"] if after > before else []
    for what in ("server", "worker"):
        before, after = (max(getattr(each, what) for each in half) for half in (first, second))
        print(f"memory of the {what}: first half at most {before:.0f} MiB, second half {after:.0f} MiB")
        faults += [f"memory of the {what} grew"] if after > GROWTH * before + MARGIN_MIB else []
    return faults


if __name__ == "__main__":
    app()
