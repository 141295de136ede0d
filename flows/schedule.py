"""Serve the pipeline on a schedule, on a Prefect server of our own where none is configured."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType

from flows.pipeline import pipeline

START_SECONDS = 120


def serve(cron: str, targets: list[str] | None) -> None:
    """Run the pipeline whenever ``cron`` says, until interrupted; a run that comes while one is busy is dropped."""
    with _server():
        pipeline.serve(
            name="schedule",
            cron=cron,
            parameters={"targets": targets},
            global_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )


@contextmanager
def _server() -> Iterator[None]:
    """A Prefect server that lives as long as the block, unless PREFECT_API_URL names one."""
    if PREFECT_API_URL.value():
        yield
        return
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: the server must outlive the runner, which signs off there
    )
    try:
        _wait_until_healthy(url, process)
        print(f"Prefect server: {url.removesuffix('/api')}", flush=True)
        os.environ["PREFECT_API_URL"] = url  # for the processes of the flow runs
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        process.terminate()
        process.wait()


def _free_port(preferred: int = 4200) -> int:
    """Prefect's usual port, or any other that is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise ValueError("no free port on 127.0.0.1")


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    raise ValueError(f"the Prefect server at {url} did not start")
