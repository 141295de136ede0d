"""A stage's entry in dvc.lock: which inputs and settings made which outputs. It travels where contents do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def has_entry(root: Path, stage: str) -> bool:
    """Whether the stage was ever brought up to date."""
    return read_entry(root, stage) is not None


def read_entry(root: Path, stage: str) -> Entry | None:
    """What dvc.lock says of a stage; None where it says nothing."""
    from dvc.utils.serialize import load_yaml  # unlike PyYAML, it reads 1e-06 as the number that DVC wrote

    path = root / "dvc.lock"
    document = load_yaml(str(path)) if path.exists() else None
    return ((document or {}).get("stages") or {}).get(stage)


def write_entry(root: Path, stage: str, entry: Entry) -> None:
    """Put a stage's entry into dvc.lock, as DVC itself would write it."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(root / "dvc.lock")) as document:
        document.setdefault("schema", "2.0")
        document.setdefault("stages", {})[stage] = entry
