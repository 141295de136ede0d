"""DVC's experiments: one run of the pipeline under other settings, in a copy of the repository, kept under a name."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.dvc.failures import StageFailed
from flows.dvc.locks import using_cache
from flows.processes.commands import run_command


@dataclass(frozen=True)
class Experiment:
    """A finished experiment of the commit that is checked out.

    Attributes:
        name: Unique for the commit.
        revision: What DVC and git know its files by.
    """

    name: str
    revision: str


def experiments(root: Path) -> dict[str, Experiment]:
    """The finished experiments of the present commit, by name; those of other commits ran other code.

    Raises:
        ValueError: ``root`` is no repository of DVC and git with a commit.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    if not (root / "dvc.yaml").exists():
        raise ValueError(f"{root} has no dvc.yaml; run this in the repository's root")
    try:
        with Repo(str(root)) as repo:
            found = [pair for pairs in repo.experiments.ls().values() for pair in pairs]
    except (NotDvcRepoError, SCMError) as error:
        raise ValueError(
            f"{root}: {error}: experiments need a git repository with DVC and at least one commit"
        ) from None
    return {name: Experiment(name, revision) for name, revision in found if revision}


def read_file(root: Path, experiment: Experiment, path: str) -> str:
    """Text of a file as an experiment made it, from git or DVC's cache. Raises FileNotFoundError."""
    import dvc.api
    from dvc.exceptions import PathMissingError

    try:
        return dvc.api.read(path, repo=str(root), rev=experiment.revision)
    except PathMissingError:
        raise FileNotFoundError(f"{experiment.name}: {path}") from None


def differing(root: Path, experiment: Experiment, settings: Sequence[str]) -> list[str]:
    """Those of ``KEY=VALUE`` that do not hold for a finished experiment."""
    values = yaml.safe_load(read_file(root, experiment, "params.yaml"))
    return [each for each in settings if _value(values, each.partition("=")[0]) != parse_value(each.partition("=")[2])]


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def parse_value(text: str) -> Any:
    """A value as DVC reads it: unlike YAML 1.1, ``1e-4`` is a number."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def remove_experiment(root: Path, name: str) -> None:
    """Forget an experiment of the present commit; what it made stays in DVC's cache. Raises ValueError: no such one."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            repo.experiments.remove([name])
    except DvcException as error:
        raise ValueError(f"{root}: {error}") from None


def run_experiment(name: str, settings: Sequence[str], root: Path, log: Callable[[str], None]) -> None:
    """Run the pipeline under other settings, in a copy of the repository below ``.dvc/tmp``.

    The workspace stays as it is. Stages that other experiments have run are taken from DVC's cache; one that fails
    leaves no experiment.

    Args:
        name: Under which it is kept.
        settings: ``KEY=VALUE`` each, in Hydra's syntax (``augment=[]``).
        log: Called with each line of output as it comes.

    Raises:
        StageFailed: With the exit code of the command that failed.
    """
    exit_code, reason = None, "DVC failed"

    def hear(line: str) -> None:
        nonlocal exit_code, reason
        log(line)
        if failure := re.search(r"failed to reproduce '(\w+)'.*exited with (-?\d+)$", line):
            exit_code, reason = int(failure[2]), f"{failure[1]} exited with {failure[2]}"
        elif exit_code is None and line.startswith("ERROR: "):
            reason = line.removeprefix("ERROR: ")

    options = [part for setting in settings for part in ("--set-param", setting)]
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", name, *options]
    with using_cache(root):
        code = run_command(command, root, hear, name=name, is_wrapper=True)
    if code != 0:
        raise StageFailed(name, exit_code or code, reason)
