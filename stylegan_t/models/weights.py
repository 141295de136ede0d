"""How networks lie on disk: safetensors for the weights, JSON for what rebuilds them. Same network, same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stylegan_t.errors import DataError
from stylegan_t.files import atomic

CONFIG = "config.json"

Built = TypeVar("Built", bound=nn.Module)


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic(path) as temporary:
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary)


def read_weights(path: Path, cure: str) -> dict[str, Tensor]:
    """All tensors of a file. Raises DataError where it is missing or damaged."""
    try:
        return load_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: missing; {cure}") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())}); {cure}") from None


def load_weights(module: nn.Module, path: Path, cure: str) -> None:
    """Fill ``module`` from a file that must hold exactly its tensors.

    Raises:
        DataError: The file is missing or damaged, or a tensor is missing, unknown or of another shape.
    """
    tensors = read_weights(path, cure)
    wanted = module.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise DataError(f"{path}: tensor {_some(missing)} missing; {cure}")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise DataError(f"{path}: tensor {_some(unknown)} does not belong to this network; {cure}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            given, expected = tuple(tensor.shape), tuple(wanted[name].shape)
            raise DataError(f"{path}: tensor {name} has shape {given}, {CONFIG} says {expected}; {cure}")
    module.load_state_dict(tensors)


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def read_config(path: Path, keys: tuple[str, ...], cure: str) -> dict[str, Any]:
    """A JSON object that has ``keys``. Raises DataError."""
    try:
        config = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: missing; {cure}") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {cure}") from None
    if not isinstance(config, dict) or any(key not in config for key in keys):
        raise DataError(f"{path}: expected an object with {', '.join(keys) or 'settings'}; {cure}")
    return config


def build(folder: Path, cure: str, make: Callable[[], Built]) -> Built:
    """What ``make`` builds from a config. Raises DataError where the config does not describe a network."""
    try:
        return make()
    except (TypeError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder / CONFIG}: does not describe a network ({reason}); {cure}") from None
