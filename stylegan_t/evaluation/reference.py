"""The file that holds what real pictures look like to the judges, at each side at which models are measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stylegan_t.errors import DataError
from stylegan_t.evaluation.scores import Reference
from stylegan_t.files import atomic, write_json
from stylegan_t.metrics.moments import Moments

STATISTICS, FACTS = "statistics.safetensors", "statistics.json"
CURE = "run `dvc repro --force --single-item reference_statistics`"


def save_statistics(folder: Path, references: dict[int, dict[str, Reference]], facts: dict[str, Any]) -> None:
    """Write the numbers and then what they are of; a folder with the facts is complete.

    Args:
        references: By side of the pictures and extractor.
        facts: ``origin`` (digests of data and judges) and ``num_images``, and what else is to be kept.
    """
    tensors = {}
    for px, by_name in references.items():
        for name, reference in by_name.items():
            tensors[f"{px}px.{name}.mean"] = reference.moments.mean.cpu()
            tensors[f"{px}px.{name}.scatter"] = reference.moments.scatter.cpu()
            tensors[f"{px}px.{name}.features"] = reference.features.cpu()
    with atomic(folder / STATISTICS) as temporary:
        save_file(tensors, temporary)
    write_json(folder / FACTS, facts)


def load_statistics(
    folder: Path, origin: dict[str, str], names: Sequence[str], sizes: Sequence[int], device: torch.device
) -> tuple[dict[int, dict[str, Reference]], dict[str, Any]]:
    """The real pictures by side and extractor, and the facts about them.

    Args:
        origin: Digests of the data and of the judges, which the statistics must have been made from.
        names: Extractors that are needed.
        sizes: Sides that are needed, pixels.

    Raises:
        DataError: Absent, damaged, or of other data, judges or sizes.
    """
    try:
        facts = json.loads((folder / FACTS).read_text())
        tensors = load_file(folder / STATISTICS)
        count, stored = facts["num_images"], facts["origin"]
    except FileNotFoundError as error:
        raise DataError(f"{error.filename or folder}: missing; {CURE}") from None
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder}: damaged ({' '.join(str(error).split())}); {CURE}") from None
    if changed := [name for name, value in origin.items() if stored.get(name) != value]:
        raise DataError(f"{folder / FACTS}: made from another {' and another '.join(changed)}; {CURE}")
    found: dict[int, dict[str, Reference]] = {}
    for px in sizes:
        found[px] = {}
        for name in names:
            if f"{px}px.{name}.mean" not in tensors:
                raise DataError(f"{folder / STATISTICS}: nothing of {name} at {px} px; {CURE}")
            mean, scatter, features = (
                tensors[f"{px}px.{name}.{part}"].to(device) for part in ("mean", "scatter", "features")
            )
            found[px][name] = Reference(Moments(count, mean, scatter), features)
    return found, facts
