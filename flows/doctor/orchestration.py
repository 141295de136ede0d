"""The Prefect server that is configured, its work pools and their workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from flows import dvc
from flows.doctor.finding import Finding

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

REQUEST_SECONDS = 5.0


def prefect(root: Path) -> Iterator[Finding]:
    """The server's version beside ours, the pools that dvc.yaml names, and whether anyone works for them."""
    import httpx
    from prefect import __version__, get_client
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
        temporary_settings,
    )

    url = PREFECT_API_URL.value()
    if not url:
        cure = "for schedules and workers: start one (`make up`) and set PREFECT_API_URL"
        yield Finding("prefect", "SKIP", "PREFECT_API_URL is not set: each command starts a server of its own", cure)
        return
    patience: dict[Any, Any] = {
        PREFECT_CLIENT_MAX_RETRIES: 0,
        PREFECT_API_REQUEST_TIMEOUT: REQUEST_SECONDS,
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
    }
    try:
        with temporary_settings(patience), get_client(sync_client=True) as client:
            theirs = client.api_version()
            if Version(theirs) == Version(__version__):
                yield Finding("prefect", "OK", f"{url} answers, version {theirs} as here")
            else:
                state = "FAIL" if Version(theirs) < Version(__version__) else "WARN"
                cure = "install the same version on both; a server must not be older"
                yield Finding("prefect", state, f"{url} has version {theirs}, here is {__version__}", cure)
            yield from _pools(client, root)
    except httpx.HTTPError as error:
        line = f"{url} does not answer as it should ({' '.join(str(error).split()) or type(error).__name__})"
        yield Finding("prefect", "FAIL", line, "start that server (`make up`), or unset PREFECT_API_URL")


def _pools(client: SyncPrefectClient, root: Path) -> Iterator[Finding]:
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound

    online = 0
    for pool in _named(root):
        try:
            client.read_work_pool(pool)
            workers = client.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            cure = f"`prefect work-pool create --type process {pool}`"
            yield Finding(f"pool {pool}", "WARN", "the server has none of this name", cure)
            continue
        names = [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]
        online += len(names)
        if names:
            yield Finding(f"pool {pool}", "OK", f"online: {', '.join(names)}")
        else:
            cure = f"`python -m flows.machines.worker --help` says how to start one: --pool {pool}"
            yield Finding(f"pool {pool}", "WARN", "no worker is online", cure)
    yield from _database(online)


def _named(root: Path) -> list[str]:
    try:
        return sorted({stage.options.pool for stage in dvc.read_stages(root)})
    except ValueError:  # said by another check
        return []


def _database(workers: int) -> Iterator[Finding]:
    """SQLite locks up under several workers. A server does not tell what it stores in; one here has our settings."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL

    is_here = any(name in (PREFECT_API_URL.value() or "") for name in ("//127.0.0.1", "//localhost"))
    if not is_here:
        return
    if workers > 1 and "sqlite" in (PREFECT_API_DATABASE_CONNECTION_URL.value() or ""):
        cure = "PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://… for the server (docs/operations.md)"
        yield Finding("prefect database", "WARN", f"SQLite, with {workers} workers: they wait for each other", cure)
