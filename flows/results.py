"""What became of the stages of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from prefect.artifacts import create_table_artifact
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Result:
    """What became of one stage: ran, cached, restored (from DVC's run cache), failed or skipped (after a failure)."""

    stage: str
    outcome: str
    seconds: float


def show(results: Sequence[Result]) -> None:
    """The results as a table on the terminal and as an artifact of the flow run."""
    table = Table("stage", "outcome", "seconds")
    for result in results:
        style = {"failed": "red", "skipped": "yellow", "ran": "green"}.get(result.outcome)
        table.add_row(result.stage, result.outcome, f"{result.seconds:.1f}", style=style)
    Console().print(table)
    create_table_artifact(key="pipeline-result", table=[asdict(result) for result in results])
