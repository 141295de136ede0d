"""A Prefect server of our own, where none is configured."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.processes import guard
from flows.processes.commands import inherited

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
        url = url_at(port)
        process = start_server(port, services)
        try:
            wait_until_healthy(url, process)
            os.environ["PREFECT_API_URL"] = url  # for the processes of scheduled runs
            with temporary_settings({PREFECT_API_URL: url}):
                try:
                    yield url
                finally:
                    APILogHandler().flush()  # what is still to be sent, while there is someone to send it to
        finally:
            os.environ.pop("PREFECT_API_URL", None)
            stop(process)


def url_at(port: int) -> str:
    """Of the API of a server of ours."""
    return f"http://127.0.0.1:{port}/api"


def start_server(port: int, services: bool = True) -> subprocess.Popen[bytes]:
    """A Prefect server on this machine's own address, which ends with us, however that happens.

    It remembers which limits its runs have taken, though it be started anew, and says in what it sends where it is.

    Args:
        services: Whether it also schedules runs, keeps what happens to tasks, and runs automations.
    """
    ours = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite, on which several workers write
        "PREFECT_UI_URL": url_at(port).removesuffix("/api"),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    return start_guarded(
        command if services else [*command, "--no-services"], env={**ours, **os.environ}, stdout=subprocess.DEVNULL
    )


def start_guarded(command: Sequence[str], env: Mapping[str, str], stdout: int | None = None) -> subprocess.Popen[bytes]:
    """A process that outlives Ctrl-C and whatever else ends our process group, but not us.

    Its guard asks it to end when we say so (``stop``) or are gone ourselves.
    """
    return subprocess.Popen(
        [sys.executable, guard.__file__, "command", *command],
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=stdout,
        start_new_session=True,
        pass_fds=tuple(inherited),
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End what ``start_guarded`` started, and all below it."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


@contextmanager
def port_of_our_own(port: int | None = None) -> Iterator[int]:
    """Prefect's usual port, or any other that is free; no second caller has the same one while the block lasts.

    A server listens only seconds after its start. One started meanwhile would find the port free as well, and its
    owner would take the first one's answers for its own's. So whoever has a port also holds the UDP port of that
    number, which a server has no use for and which is free again when we die, however that happens.

    Args:
        port: This one and no other.

    Raises:
        ValueError: It is taken.
    """
    for each in (USUAL_PORT, 0) if port is None else (port,):
        with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as claim:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", each))
                claim.bind(probe.getsockname())
            except OSError:
                continue
            probe.close()
            yield claim.getsockname()[1]
            return
    raise ValueError(
        f"port {port} of 127.0.0.1 is taken; choose another, or none" if port else "no free port on 127.0.0.1"
    )


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers. Raises ValueError: it ended, or it takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise ValueError(f"the Prefect server at {url} did not start")
