"""Complete parameter files by name, and public data sets for them: what ``stylegan-t profile`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from stylegan_t.config import parse_config, parse_yaml
from stylegan_t.errors import SettingsError
from stylegan_t.files import write_text
from stylegan_t.settings.datasets import DatasetSpec

PROFILES = ("micro", "tiny", "emoji", "lite", "full")
DATASETS = ("cc3m", "cc12m", "redcaps", "yfcc15m", "laion_aesthetic_6plus", "coco2014_train", "coco2014_val")


def write_profile(name: str, settings: Sequence[str], path: Path, dataset: str | None = None) -> None:
    """Write the profile ``name`` to ``path``, changed by settings such as ``evaluate.psi=[1.0, 0.5]``.

    Values are YAML. A profile without changes is copied with its comments.

    Args:
        name: Of the profile.
        settings: ``KEY=VALUE`` each.
        path: Where to.
        dataset: Put this data set's source in.

    Raises:
        SettingsError: The profile, the data set or a key is unknown, or a value is not allowed; ``path`` is left as it
            was.
    """
    text = _text(name)
    values = parse_yaml(text)
    changes = [*([f"data set {dataset}"] if dataset else []), *settings]
    if dataset:
        values["download"]["source"] = dataset_spec(dataset).source.model_dump()
    for setting in settings:
        override(values, setting)
    parse_config(values, f"profile {name}")
    if changes:
        text = f"# Profile {name} with settings of its own: {'; '.join(changes)}\n".replace("\n", " ").strip() + "\n"
        text += yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
    write_text(path, text)


def profile_values(name: str) -> dict[str, Any]:
    """The settings of a profile, as they stand in its file. Raises SettingsError where there is none of the name."""
    return parse_yaml(_text(name))


def dataset_spec(name: str) -> DatasetSpec:
    """What is known of a public data set. Raises SettingsError where there is none of the name."""
    if name not in DATASETS:
        raise SettingsError(f"data set {name!r} is unknown; one of: {', '.join(DATASETS)}")
    text = (resources.files("stylegan_t") / "datasets" / f"{name}.yaml").read_text()
    return DatasetSpec.model_validate(yaml.safe_load(text))


def _text(name: str) -> str:
    if name not in PROFILES:
        raise SettingsError(f"profile {name!r} is unknown; one of: {', '.join(PROFILES)}")
    return (resources.files("stylegan_t") / "profiles" / f"{name}.yaml").read_text()


def override(values: dict[str, Any], setting: str) -> None:
    """Set one ``KEY=VALUE`` in nested mappings; a key that does not exist is left to the validation to name."""
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise SettingsError(f"--set {setting!r}: expected KEY=VALUE, e.g. train_generator.total_kimg=30.0")
    *parents, last = key.strip().split(".")
    section: Any = values
    for depth, parent in enumerate(parents, start=1):
        section = section.get(parent)
        if not isinstance(section, dict):
            known = "is no group of settings" if section is not None else "does not exist"
            raise SettingsError(f"--set {setting!r}: {'.'.join(parents[:depth])} {known}")
    section[last] = _parse(setting, value)


def _parse(setting: str, value: str) -> Any:
    try:
        return parse_yaml(value)
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {setting!r}: not valid YAML: {' '.join(str(error).split())}") from None
