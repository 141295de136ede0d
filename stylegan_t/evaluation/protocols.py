"""Protocols by name, or from a file."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from stylegan_t.errors import SettingsError
from stylegan_t.settings.protocol import Protocol

FOLDER = Path(__file__).parents[1] / "protocols"
PROTOCOLS = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


OTHER = "other"
"""What the real pictures are called that a protocol's name for them does not fit."""


def protocol_name(name: str) -> str:
    """What records call a protocol: a file keeps its ending, so that none passes for one of ours."""
    return name if name in PROTOCOLS else Path(name).name


def renamed(protocol: Protocol, num_reals: int) -> Protocol:
    """The protocol as its numbers may be called: against other real pictures than its own, they bear another name."""
    return (
        protocol if protocol.reference_count in (None, num_reals) else protocol.model_copy(update={"reference": OTHER})
    )


def load_protocol(name: str, root: Path = Path()) -> Protocol:
    """The protocol of this name (see ``protocols/``), or in this YAML file.

    Args:
        root: Where a relative file name starts.

    Raises:
        SettingsError: There is none, or a setting in it is wrong.
    """
    path = FOLDER / f"{name}.yaml" if name in PROTOCOLS else root / name
    try:
        values = yaml.safe_load(path.read_text())
    except OSError:
        raise SettingsError(f"protocol {name!r}: unknown; use {', '.join(PROTOCOLS)}, or the path of a file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Protocol.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}" for each in error.errors()]
        raise SettingsError("\n".join(f"{path.name}: {line}" for line in lines)) from None
