"""What a manifest of shards has to say, and what to do where it or its shards are damaged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_t.errors import DataError

MANIFEST = "manifest.json"
MADE_BY = {"raw": "download", "prepared": "filter"}
"""The stage that writes each kind of shards."""
ENTRY = {"file": str, "num_samples": int, "num_bytes": int, "sha256": (str, type(None))}
"""What a manifest says of each shard, at least."""


class NoManifest(DataError):
    """A manifest.json that is not readable, or of other things than shards."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete folder of shards.

    Raises:
        NoManifest: The file is of other things than shards.
        DataError: There is none, or what it says of a shard is incomplete.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if not _is_of_shards(manifest):
            raise ValueError("it is no manifest of shards")
    except FileNotFoundError:
        raise DataError(f"{path}: missing; `dvc repro` makes it (stages download and filter)") from None
    except ValueError as error:
        why = " ".join(str(error).split())
        raise NoManifest(f"{path}: not readable ({why}); run `dvc repro --force` to make it anew") from None
    try:
        check_entries(manifest["shards"])
    except ValueError as error:
        kind = manifest["kind"]
        anew = cure(kind) if kind in MADE_BY else "remove it; `stylegan-t data index --manifest` makes one"
        raise DataError(f"{path}: incomplete: {error}; {anew}") from None
    return manifest


def check_entries(entries: Sequence[Any]) -> None:
    """Raise ValueError, which names the entry, where a manifest does not say of each shard what it has to."""
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"entry {number} of its shards is {entry!r} instead of {', '.join(ENTRY)}")
        if missing := ENTRY.keys() - entry.keys():
            raise ValueError(f"entry {number} of its shards lacks {', '.join(sorted(missing))}")
        for name, kind in ENTRY.items():
            if not isinstance(entry[name], kind):
                raise ValueError(f"entry {number} of its shards has {name} = {entry[name]!r}")


def _is_of_shards(manifest: Any) -> bool:
    return (
        isinstance(manifest, dict)
        and not {"kind", "num_samples", "shards"} - manifest.keys()
        and isinstance(manifest["kind"], str)
        and isinstance(manifest["shards"], list)
    )


def cure(kind: str | None) -> str:
    """What to do about damaged shards of a kind; None = without a manifest."""
    stage = MADE_BY.get(kind or "")
    if stage is None:
        return "put whole tars there, then `stylegan-t data index` anew"
    return f"make it anew with `dvc repro --force --single-item {stage}` (or `stylegan-t run {stage}`)"
