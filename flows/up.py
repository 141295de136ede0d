"""All that runs flows on this machine: server, work pools, deployments, automations, workers.

``python -m flows.up`` starts it, keeps it alive, and leaves nothing behind when it ends.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.workers.process import ProcessWorker

from flows import automations, dvc, git
from flows.machines.worker import environment
from flows.machines.workspace import ROOT, default_folder, origin
from flows.processes.gpus import claimed, visible
from flows.server import port_of_our_own, start_guarded, start_server, url_at, wait_until_healthy
from flows.services import Service, end_all, say

POOL = "STYLEGAN_T_POOL"
"""Environment variable of prefect.yaml."""

POLL_SECONDS = 1.0


def parse_gpus(text: str) -> list[list[str]]:
    """The GPUs of each worker: ``0,1`` are two workers, ``0+1`` is one that trains on both, ``none`` and ``auto``.

    ``auto`` is a worker for each GPU that this machine has, or that CUDA_VISIBLE_DEVICES leaves us.

    Raises:
        ValueError: It is none of these, or names a GPU twice.
    """
    if text == "none":
        return []
    if text == "auto":
        return [[gpu] for gpu in visible()]
    workers = [worker.split("+") for worker in text.split(",")]
    gpus = [gpu for worker in workers for gpu in worker]
    if len(gpus) != len(set(gpus)) or not all(re.fullmatch(r"\d+|(GPU|MIG)-[\w-]+", gpu) for gpu in gpus):
        raise ValueError(f"--gpus {text}: expected auto, none, or GPUs, each once: 0,1 for two workers, 0+1 for one")
    return workers


@contextmanager
def only_one() -> Iterator[None]:
    """Nobody else starts a server on Prefect's home, its database, while the block lasts. Raises ValueError."""
    home = PREFECT_HOME.value()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "stylegan-t-up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"flows.up runs already on {home}; stop that one, or set PREFECT_API_URL to its server to add workers, "
                "or PREFECT_HOME to another folder for a server apart"
            ) from None
        yield


def deploy(root: Path, gpus: Sequence[Sequence[str]], is_ours: bool, notify: str | None) -> None:
    """Bring the server's pools, deployments and automations up to date.

    Args:
        is_ours: No other machine's workers are known to the server: the GPU pool has as many runs as we have workers.

    Raises:
        ValueError: A pool is of another type, or prefect.yaml cannot be deployed.
    """
    with get_client(sync_client=True) as client:
        _make_pool(client, "cpu", None)
        _make_pool(client, "gpu", len(gpus) if gpus and is_ours else None)
        automations.ship(client, notify)
    with_devices = {POOL: "gpu" if gpus else "cpu"}
    given = {name: value for name, value in os.environ.items() if name != ROOT}  # workers fill that in, not we
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env=given | with_devices,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"prefect.yaml could not be deployed:\n{done.stdout}{done.stderr}")


def _make_pool(client: SyncPrefectClient, name: str, limit: int | None) -> None:
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(name=name, type="process", base_job_template=template, concurrency_limit=limit)
        )
        return
    if pool.type != "process":
        raise ValueError(f"pool {name} is of type {pool.type}: its workers are started by what runs containers")
    if limit:
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))


def start_worker(root: Path, pool: str, which: str, gpus: Sequence[str] | None) -> Service:
    """A worker whose runs work in ``root``, and those of ``flows.machines`` in a clone of its own.

    One with GPUs takes one run at a time. One without takes any number, since a run may wait for others: a workspace
    takes one at a time anyway.
    """
    name = f"{socket.gethostname()}-{pool}-{which}"
    try:
        repository = origin()
    except git.GitFailed:  # no other machine can be meant
        repository = str(root)
    env = {**environment(name, gpus, default_folder(name), repository), ROOT: str(root)}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", name]
    limit = ["--limit", "1"] if gpus else []
    return Service(f"worker {name}", lambda: start_guarded([*command, *limit], env))


def gpus_besides(gpus: Sequence[Sequence[str]]) -> list[str] | None:
    """What a worker without GPUs sees beside those that have these: none, also where others have this machine's GPUs.

    Without any GPU there is nothing to hide, and a stage may train in as many processes as it likes.
    """
    return [] if gpus or visible() else None


def start_dashboard() -> Service:
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.headless", "true"]
    command += ["--server.address", "127.0.0.1"]
    return Service("dashboard", lambda: start_guarded(command, os.environ))


def up(options: argparse.Namespace) -> NoReturn:
    """Start everything and look after it until interrupted. Raises ValueError: something is asked or set up wrongly."""
    root, gpus = Path.cwd(), parse_gpus(options.gpus)
    services: list[Service] = []
    with ExitStack() as held:
        held.enter_context(claimed([gpu for worker in gpus for gpu in worker]))
        is_ours = not PREFECT_API_URL.value()
        if is_ours:
            held.enter_context(only_one())
            port = held.enter_context(port_of_our_own(options.port))
        held.callback(end_all, services)
        if is_ours:
            services.append(Service("server", lambda: start_server(port)))
            wait_until_healthy(url_at(port), services[0].process)
            os.environ["PREFECT_API_URL"] = url_at(port)
            held.enter_context(temporary_settings({PREFECT_API_URL: url_at(port)}))
        deploy(root, gpus, is_ours, options.notify)
        services += [
            start_worker(root, "cpu", str(each + 1), gpus_besides(gpus)) for each in range(options.cpu_workers)
        ]
        services += [start_worker(root, "gpu", "-".join(each), each) for each in gpus]
        if options.dashboard:
            services.append(start_dashboard())
        _tell(services, options.dashboard)
        while True:
            for service in services:
                service.look_after()
            time.sleep(POLL_SECONDS)


def _tell(services: Sequence[Service], dashboard: bool) -> None:
    url = (PREFECT_API_URL.value() or "").removesuffix("/api")
    say(f"runs, deployments, schedules: {url}")
    say(f"running: {', '.join(service.name for service in services)}")
    say(f"from another shell: PREFECT_API_URL={url}/api prefect deployment run end-to-end/nightly")
    say("dashboard: http://127.0.0.1:8501" if dashboard else "dashboard: make dashboard, or --dashboard")
    say("Ctrl-C stops all of it")


def _interrupt(number: int, frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # once is enough: what follows takes the time that stages need to save
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for what was asked wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.up",
        description="Start a Prefect server with work pools, deployments and workers, and keep them alive.",
        epilog="Where PREFECT_API_URL is set, its server is used and none is started.",
    )
    parser.add_argument(
        "--gpus", default="auto", help="a worker each: auto (all there are), none, or 0,1; 0+1: one worker for both"
    )
    parser.add_argument("--cpu-workers", type=int, default=1, help="default: 1")
    parser.add_argument("--notify", metavar="URL", help="post failures there, as JSON with a field `text`")
    parser.add_argument("--port", type=int, help="of the server; default: 4200, or another that is free")
    parser.add_argument("--dashboard", action="store_true", help="start the dashboard as well")
    parser.add_argument("--deploy-only", action="store_true", help="only pools, deployments and automations")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background jobs ignore SIGINT
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
            signal.signal(number, _interrupt)
    try:
        if options.cpu_workers < 0:
            raise ValueError(f"--cpu-workers {options.cpu_workers}: use 0 or more")
        if options.deploy_only:
            if not PREFECT_API_URL.value():
                raise ValueError("--deploy-only: set PREFECT_API_URL to the server")
            deploy(Path.cwd(), parse_gpus(options.gpus), False, options.notify)
        else:
            up(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return dvc.SETTINGS
    except httpx.TransportError as error:
        print(f"the Prefect server {PREFECT_API_URL.value()} cannot be reached: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
