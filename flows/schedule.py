"""Serve the pipeline on a schedule."""

from __future__ import annotations

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.types.entrypoint import EntrypointType

from flows.pipeline import pipeline
from flows.server import prefect_server


def serve(cron: str, targets: list[str] | None) -> None:
    """Run the pipeline whenever ``cron`` says, until interrupted; a run that comes while one is busy is dropped."""
    with prefect_server(services=True) as url:
        print(f"Prefect server: {url.removesuffix('/api')}", flush=True)
        pipeline.serve(
            name="schedule",
            cron=cron,
            parameters={"targets": targets},
            global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
