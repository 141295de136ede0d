"""How a stage's parts are spread over processes or machines: the setting ``engine`` of download, score and filter.

No result depends on it, so ``dvc.yaml`` does not list it among a stage's parameters.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stylegan_t.settings.fields import NonNegative, Positive, Section


class ProcessEngine(Section):
    """Processes on this machine."""

    kind: Literal["processes"]
    num_workers: int = Field(ge=0, description="parts that are worked on at the same time; 0 = in the main process")


class RayEngine(Section):
    """Ray: one machine or many, which all see the workspace at the same path."""

    kind: Literal["ray"]
    address: str | None = Field(
        min_length=1,
        description="an existing cluster: host:port of its head, ray://host:port of a client server, or auto (one that "
        "runs on this machine); null = start one on this machine for the time of the stage",
    )
    num_cpus: Positive = Field(description="cores that a part takes, out of those that its machine has")
    num_gpus: NonNegative = Field(description="GPUs that a part takes; a share of one, e.g. 0.5, where parts share it")


Engine = Annotated[ProcessEngine | RayEngine, Field(discriminator="kind")]
