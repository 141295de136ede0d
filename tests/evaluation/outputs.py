"""What the stage ``evaluate`` wrote, read back."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from stylegan_t.records import Evaluation, read_lines
from stylegan_t.stages.workspace import Workspace


def copy_of(world: Workspace, folder: Path) -> Workspace:
    """Everything but what the stage itself wrote."""
    shutil.copytree(world.root, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("evaluate"))
    return Workspace(folder)


def output(workspace: Workspace, name: str) -> Path:
    return workspace.artifacts("evaluate") / name


def metrics(workspace: Workspace) -> dict[str, Any]:
    return json.loads(output(workspace, "metrics.json").read_text())


def table(workspace: Workspace, name: str) -> list[dict[str, str]]:
    with output(workspace, name).open() as file:
        return list(csv.DictReader(file))


def evaluations(workspace: Workspace) -> list[Evaluation]:
    return read_lines(output(workspace, "evaluations.jsonl"), Evaluation)


def outputs(workspace: Workspace) -> dict[str, bytes]:
    folder = workspace.artifacts("evaluate")
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
