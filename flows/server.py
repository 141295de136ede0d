"""A Prefect server of our own, where none is configured."""

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

from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

START_SECONDS = 300
USUAL_PORT = 4200


@contextmanager
def prefect_server(services: bool = False) -> Iterator[str]:
    """The URL of a Prefect server that lives as long as the block, or of the one that PREFECT_API_URL names.

    It runs in a session of its own, unlike the one that Prefect starts itself: Ctrl-C and whatever else ends our
    process group would end it before our last words to it, and Prefect would wait for an answer for minutes.
    It tells nobody of its use, unless PREFECT_SERVER_ANALYTICS_ENABLED says so.

    Args:
        services: Whether it also schedules runs.
    """
    if configured := PREFECT_API_URL.value():
        yield configured
        return
    with port_of_our_own() as port:
        url = f"http://127.0.0.1:{port}/api"
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
            + ([] if services else ["--no-services"]),
            env={"PREFECT_SERVER_ANALYTICS_ENABLED": "false", **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(url, process)
            os.environ["PREFECT_API_URL"] = url  # for the processes of scheduled runs
            with temporary_settings({PREFECT_API_URL: url}):
                try:
                    yield url
                finally:
                    APILogHandler().flush()  # what is still to be sent, while there is someone to send it to
        finally:
            os.environ.pop("PREFECT_API_URL", None)
            process.terminate()
            process.wait()


@contextmanager
def port_of_our_own() -> Iterator[int]:
    """Prefect's usual port, or any other that is free; no second caller has the same one while the block lasts.

    A server listens only seconds after its start. One started meanwhile would find the port free as well, and its
    owner would take the first one's answers for its own's. So whoever has a port also holds the UDP port of that
    number, which a server has no use for and which is free again when we die, however that happens.
    """
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as claim:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                claim.bind(probe.getsockname())
            except OSError:
                continue
            probe.close()
            yield claim.getsockname()[1]
            return
    raise ValueError("no free port on 127.0.0.1")


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise ValueError(f"the Prefect server at {url} did not start")
