"""Many machines on one: a bare git repository, a DVC remote, and workers with workspaces of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun

from tests.flows import standin
from tests.imports import ROOT

AUTHOR = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}

QUICK = {
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "3",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "2",
}
"""What takes minutes by default: to notice that a worker is gone."""


def git(folder: Path, *arguments: str) -> str:
    environment = os.environ | AUTHOR
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def dvc(folder: Path, *arguments: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Origin:
    """A repository that all machines can reach, and a remote for contents.

    Attributes:
        url: Of the bare git repository.
        author: The clone in which a person works.
        remote: DVC's, a folder unless another address is given.
    """

    def __init__(self, folder: Path, remote: str | None = None, **stages: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.url, self.author = folder, folder / "origin.git", folder / "author"
        self.remote = remote or str(folder / "remote")
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", self.url], check=True)
        if stages:
            self.author.mkdir()
            subprocess.run(["git", "init", "-q", "-b", "main"], cwd=self.author, check=True)
            standin.make(self.author, {"width": 1}, **stages)

    def publish(self, *options: str) -> None:
        """Name the remote and push what the author has."""
        (self.author / ".dvc").mkdir(exist_ok=True)
        (self.author / ".dvc" / "config").write_text(
            f"[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = {self.remote}\n"
            + "".join(f"    {option}\n" for option in options)
        )
        git(self.author, "remote", "add", "origin", str(self.url))
        self.push("first")

    def push(self, message: str) -> None:
        git(self.author, "add", "--all")
        git(self.author, "commit", "-q", "--allow-empty", "-m", message)
        git(self.author, "push", "-q", "origin", "HEAD:main")

    def clone(self, name: str, branch: str = "main") -> Path:
        """As another person has it."""
        git(self.folder, "clone", "-q", "-b", branch, str(self.url), name)
        return self.folder / name

    def branches(self) -> list[str]:
        """Run branches, the oldest first."""
        listed = git(self.url, "for-each-ref", "--sort=creatordate", "--format=%(refname:short)", "refs/heads/runs")
        return listed.splitlines()


@contextmanager
def worker(origin: Origin, name: str, pool: str = "cpu", gpus: str = "none", **environment: str) -> Iterator[Worker]:
    """A machine that takes a stage at a time."""
    found = Worker(origin, name, pool, gpus, environment)
    try:
        yield found
    finally:
        found.stop()


class Worker:
    """``python -m flows.machines.worker``, with its log."""

    def __init__(self, origin: Origin, name: str, pool: str, gpus: str, environment: dict[str, str]) -> None:
        self.workspace, self.log = origin.folder / name, origin.folder / f"{name}.log"
        words = ["--pool", pool, "--name", name, "--workspace", str(self.workspace), "--origin", str(origin.url)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.machines.worker", *words, "--gpus", gpus],
                cwd=ROOT, env={**os.environ, **QUICK, **environment}, start_new_session=True,
                stdout=log, stderr=subprocess.STDOUT,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )  # fmt: skip

    def family(self) -> list[psutil.Process]:
        if not psutil.pid_exists(self.process.pid):
            return []
        return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]

    def vanish(self) -> None:
        """Kill it and all below it, as when a machine goes."""
        family = self.family()
        for each in family:
            each.suspend()  # else some would see others die, and report it
        for each in family:
            each.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


def spread(origin: Origin, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The parent of a run, as a process."""
    folders = {"WORKSPACE": origin.folder / "here", "ORIGIN": origin.url, "ROOT": origin.folder / "home"}
    parent = {f"STYLEGAN_T_{name}": str(path) for name, path in folders.items()}
    return standin.start(ROOT, *arguments, module="flows.machines.spread", **parent, **environment)


def finished(process: subprocess.Popen[str], seconds: float = 180) -> tuple[int, str]:
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def runs_named(start: str) -> list[FlowRun]:
    """Flow runs of the configured server whose names begin so."""
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=start)))


def wait_until(condition: Any, seconds: float = 60) -> Any:
    """What a question is answered with, once that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)
    return answer
