"""A run over many machines as a site has it: Prefect's server on a PostgreSQL, DVC's remote an S3 server."""

from __future__ import annotations

import asyncio

import asyncpg
import boto3
import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import prefect_server
from tests.flows import cluster, services, standin
from tests.flows.cluster import Origin, finished, spread, worker

pytestmark = pytest.mark.slow

STAGES: dict = {
    "raw": {"cmd": "mkdir raw && seq 20 > raw/a && seq 9 > raw/b"},
    "left": {"cmd": "tac raw/a > left", "deps": ["raw/a"], "meta": {"prefect": {"pool": "gpu"}}},
    "both": {"cmd": "cat left raw/b > both", "deps": ["left", "raw/b"]},
}
"""Contents go from the pool ``cpu`` to ``gpu`` and back."""


async def completed_runs(database: str) -> int:
    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    try:
        return await connection.fetchval("SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'")
    finally:
        await connection.close()


def test_two_workers_make_over_postgresql_and_s3_what_dvc_repro_makes(tmp_path, monkeypatch):
    for name, value in (cluster.QUICK | services.KEYS).items():
        monkeypatch.setenv(name, value)
    with services.postgres() as database, services.s3("bucket") as s3:
        monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", database)
        origin = Origin(tmp_path / "o", "s3://bucket/store", **STAGES)
        origin.publish(f"endpointurl = {s3}")
        with temporary_settings(restore_defaults=[PREFECT_API_URL]), prefect_server(services=True):
            services.make_pools("cpu", "gpu")
            with worker(origin, "one", "cpu"), worker(origin, "two", "gpu"):
                code, output = finished(spread(origin))
        assert (code, standin.table(output)) == (0, dict.fromkeys(STAGES, "ran")), output
        assert asyncio.run(completed_runs(database)) == 1 + len(STAGES)
        stored = boto3.client("s3", endpoint_url=s3).list_objects_v2(Bucket="bucket", Prefix="store/files/")["Contents"]
        alone, spread_out = origin.clone("alone"), origin.clone("spread-out", *origin.branches())
        cluster.dvc(alone, "repro")
        cluster.dvc(spread_out, "pull")
    cache = alone / ".dvc" / "cache"
    contents = [path for path in cache.glob("files/**/*") if path.is_file()]
    assert {each["Key"] for each in stored} == {f"store/{path.relative_to(cache)}" for path in contents}
    entries = [yaml.safe_load((folder / "dvc.lock").read_text())["stages"] for folder in (alone, spread_out)]
    assert entries[0] == entries[1]
    for path in ("raw/a", "raw/b", "left", "both"):
        assert (spread_out / path).read_bytes() == (alone / path).read_bytes()
