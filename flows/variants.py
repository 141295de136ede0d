"""The ablation's variants, and the table of what their runs measured. Knows neither Prefect nor DVC."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

VARIANTS_FILE = Path(__file__).with_name("ablation.yaml")
BASE = "base"
TABLES = ("stages", "psi_sweep")
"""Of artifacts/evaluate: at psi 1 with all figures, and over psi with fewer pictures."""

Row = dict[str, str]


@dataclass(frozen=True)
class Variant:
    """One thing of the paper taken away.

    Attributes:
        name: Part of experiments' names.
        claim: What the paper says would be missed, in a sentence.
        settings: ``KEY=VALUE`` each, against params.yaml.
    """

    name: str
    claim: str
    settings: tuple[str, ...]


def read_variants(path: Path = VARIANTS_FILE, only: Sequence[str] = ()) -> list[Variant]:
    """The variants in their file's order.

    Args:
        only: Names of those wanted; none means all.

    Raises:
        ValueError: The file is missing or not as above, a name is unknown, or comes twice.
    """
    try:
        listed = yaml.safe_load(path.read_text())["variants"]
        found = [Variant(each["name"], each["claim"], tuple(each["settings"])) for each in listed]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; flows/ablation.yaml is the paper's") from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: {' '.join(str(error).split())}: expected variants, each with name, claim and settings"
        ) from None
    names = [variant.name for variant in found]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: {', '.join(doubled)} more than once; give each variant its own name")
    for variant in found:
        if wrong := [setting for setting in variant.settings if "=" not in str(setting)]:
            raise ValueError(f"{path}: {variant.name}: {wrong[0]!r} is no KEY=VALUE")
    if unknown := sorted(set(only) - set(names)):
        raise ValueError(f"variant {', '.join(unknown)} is unknown; {path} has: {', '.join(names)}")
    return [variant for variant in found if not only or variant.name in only]


def parse_seeds(text: str) -> list[int]:
    """``0,1,2`` as numbers. Raises ValueError."""
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise ValueError(f"--seeds {text}: expected whole numbers with commas between them, e.g. 0,1,2")
    return list(dict.fromkeys(int(part) for part in parts))


def rows_of(variant: str, seed: int, read: Callable[[str], str]) -> list[Row]:
    """What one finished run measured: the rows of its tables, each with variant, seed and which table it is from.

    Args:
        variant: Its name.
        seed: The run's.
        read: Gives the text of a file of ``artifacts/evaluate``.
    """
    head = {"variant": variant, "seed": str(seed)}
    return [
        head | {"table": table} | row for table in TABLES for row in csv.DictReader(io.StringIO(read(f"{table}.csv")))
    ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a table at once; what a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    temporary.replace(path)


def read_rows(path: Path) -> list[Row]:
    """The rows that ``write_rows`` wrote. Raises FileNotFoundError."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
