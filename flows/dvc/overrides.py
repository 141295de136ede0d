"""Settings put into params.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def apply_settings(root: Path, settings: Sequence[str]) -> None:
    """Set ``KEY=VALUE`` in params.yaml, each in Hydra's syntax, as ``dvc exp run --set-param`` does.

    Raises:
        ValueError: A key does not exist, or a setting is none.
    """
    if not settings:
        return
    from dvc.utils.hydra import apply_overrides

    path = root / "params.yaml"
    try:
        apply_overrides(path, list(settings))
    except Exception as error:  # noqa: BLE001  (Hydra's and DVC's have no common kind)
        raise ValueError(f"params.yaml: {', '.join(settings)}: {error}") from None
