"""What changed in params.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Flat = dict[str, Any]
"""Dotted keys, and values that JSON has; lists and empty groups are values."""

PARAMS = "params.yaml"


@dataclass(frozen=True)
class Change:
    """A setting that is no longer what it was, its values as JSON; "" where it did not exist, or does not any more."""

    key: str
    before: str
    now: str


def flat(tree: Mapping[str, Any], prefix: str = "") -> Flat:
    """A tree of groups as one level of dotted keys."""
    found: Flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def read_settings(root: Path) -> Flat:
    """All settings of params.yaml; {} where there is none.

    Raises:
        ValueError: It is no mapping in YAML.
    """
    try:
        tree = yaml.safe_load((root / PARAMS).read_bytes()) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise ValueError(f"{PARAMS}: {' '.join(str(error).split())}: expected settings in YAML") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{PARAMS}: {tree!r}: expected settings in groups; `stylegan-t profile NAME` writes them")
    return flat(tree)


def changes(before: Flat, now: Flat) -> list[Change]:
    """The settings that differ: those of now in their order, then those that are gone."""
    texts = [(key, _text(before, key), _text(now, key)) for key in dict.fromkeys([*now, *before])]
    return [Change(*each) for each in texts if each[1] != each[2]]


def _text(settings: Flat, key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else ""
