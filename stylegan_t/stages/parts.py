"""Outputs that are made part by part, so that a killed stage goes on where it stopped.

DVC deletes a stage's outputs before it runs it: finished parts wait in the stage's state folder until all are there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stylegan_t.files import write_json


def make_part(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The facts that ``make`` returned for a part; it is called only if no earlier process finished the part."""
    record = folder / f".{name}.done.json"
    if record.is_file():
        return json.loads(record.read_text())
    facts = make()
    write_json(record, facts)
    return facts


def publish(folder: Path, output: Path) -> None:
    """Replace ``output`` by the finished parts and remove the state."""
    for record in folder.glob(".*.done.json"):  # first: whoever is killed while moving starts over
        record.unlink()
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()
    shutil.move(folder, output)
