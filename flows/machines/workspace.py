"""Where a worker works: a clone of its own, which its environment names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from flows import git

ROOT, WORKSPACE, ORIGIN = "STYLEGAN_T_ROOT", "STYLEGAN_T_WORKSPACE", "STYLEGAN_T_ORIGIN"
DEVICES = "STYLEGAN_T_DEVICES"
"""How many processes a training has, which `stylegan-t run` reads: one per GPU of the worker."""

HOME = Path(__file__).parents[2]
"""The repository whose flows run."""


def default_folder(name: str) -> Path:
    """Where a workspace lies unless it is said."""
    return HOME / ".workspaces" / name


def home() -> Path:
    """The repository whose people look at what runs make: its ``.state`` has their history."""
    return Path(os.environ.get(ROOT) or HOME)


def prepared(suffix: str = "") -> Path:
    """This process's workspace, cloned where it is not there yet.

    DVC's local settings (``.dvc/config.local``: where its remote is for this machine, secrets) come from the repository
    that the flows run from.

    Args:
        suffix: For another one beside it.

    Raises:
        GitFailed: It could not be cloned.
    """
    folder = Path(os.environ.get(WORKSPACE) or default_folder("here"))
    folder = folder.with_name(folder.name + suffix)
    git.clone(origin(), folder)
    local = HOME / ".dvc" / "config.local"
    copy = folder / ".dvc" / "config.local"
    if local.exists() and not (copy.exists() and copy.read_bytes() == local.read_bytes()):
        copy.parent.mkdir(exist_ok=True)
        half = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
        shutil.copy(local, half)
        half.replace(copy)  # whole, for whoever works there
    return folder


def origin() -> str:
    """The git repository that commits come from and run branches go to. Raises GitFailed."""
    return os.environ.get(ORIGIN) or git.git(HOME, "remote", "get-url", "origin")


def prepared_for_parent() -> Path:
    """Another one beside it, for a run that sends its stages to workers, with the history of ``home()``."""
    folder, states = prepared("-parent"), home() / ".state"
    states.mkdir(parents=True, exist_ok=True)
    if not (folder / ".state").exists():
        (folder / ".state").symlink_to(states.resolve())
    return folder


def environment_of(folder: Path) -> dict[str, str]:
    """What commands of a workspace need to run its own commit's code, and not the code that was installed."""
    if not (folder / "stylegan_t").is_dir():
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
