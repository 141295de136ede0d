"""What a site has that one machine can do without: pools, a PostgreSQL for Prefect's server, S3 for DVC's remote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.workers.process import ProcessWorker

from flows.server import port_of_our_own, start_guarded, stop
from tests.flows.cluster import wait_until

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
"""The S3 server takes any; clients want some."""


def make_pools(*names: str) -> None:
    """Work pools of the configured server, without workers."""
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for name in names:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


@contextmanager
def postgres() -> Iterator[str]:
    """The address, as SQLAlchemy has it, of an empty database on a PostgreSQL of our own, which goes with the block."""
    programs = _postgres_programs()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, port_of_our_own(0) as port:  # not below a folder of ours:
        as_user: list[str] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root, and its own user may not enter
            shutil.chown(folder, "postgres", "postgres")
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = Path(folder) / "data"
        create = [programs / "initdb", "--auth=trust", "--username=test", "--no-sync", "--encoding=UTF8", "-D", data]
        subprocess.run([*as_user, *create], cwd=folder, check=True, capture_output=True)
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        words = [word for setting in settings for word in ("-c", setting)]
        server = start_guarded([*as_user, str(programs / "postgres"), "-D", str(data), *words], os.environ)
        try:
            ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)
            yield f"postgresql+asyncpg://test@127.0.0.1:{port}/postgres"
        finally:
            stop(server)


def _postgres_programs() -> Path:
    """The folder of the newest that is installed; skips the test where none is."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    for folder in [*reversed(debian), *map(Path, os.get_exec_path())]:
        if all((folder / name).exists() for name in ("initdb", "postgres", "pg_isready")):
            return folder
    pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")


@contextmanager
def s3(bucket: str) -> Iterator[str]:
    """The address of an S3 server of our own that has this bucket, empty."""
    with port_of_our_own(0) as port:
        url = f"http://127.0.0.1:{port}"
        server = start_guarded([sys.executable, "-m", "moto.server", "-p", str(port)], os.environ)
        try:
            client = boto3.client("s3", endpoint_url=url)

            def created() -> bool:
                try:
                    client.create_bucket(Bucket=bucket)
                except EndpointConnectionError:
                    return False
                return True

            wait_until(created)
            yield url
        finally:
            stop(server)
