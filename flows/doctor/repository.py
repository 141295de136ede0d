"""The repository: pipeline, settings, git, DVC's locks and remote."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from flows import dvc
from flows.doctor.finding import Finding, said_by
from flows.git import GitFailed, git

REMOTE_SECONDS = 20.0
CHECK_SETTINGS = "from stylegan_t.config import load_config; from pathlib import Path; load_config(Path('params.yaml'))"


def pipeline(root: Path) -> Iterator[Finding]:
    """dvc.yaml with its ``meta.prefect``, and params.yaml."""
    try:
        stages = dvc.read_stages(root)
    except ValueError as error:
        yield Finding("dvc.yaml", "FAIL", str(error))
    else:
        yield Finding("dvc.yaml", "OK", f"{len(stages)} stages")
    if not (root / "params.yaml").exists():
        yield Finding("params.yaml", "FAIL", "missing", "`stylegan-t profile tiny` writes it")
        return
    code, said = said_by([sys.executable, "-c", CHECK_SETTINGS], root, 20)
    if code == 0:
        yield Finding("params.yaml", "OK", "valid")
    else:
        yield Finding("params.yaml", "FAIL", (said.splitlines() or ["no reason given"])[-1])


def repository(root: Path) -> Iterator[Finding]:
    """Whether git has what the last run noted in dvc.lock."""
    try:
        branch = git(root, "rev-parse", "--abbrev-ref", "HEAD")
        changed = git(root, "status", "--porcelain", "--", "dvc.lock")
    except GitFailed as error:
        yield Finding("git", "FAIL", str(error), "runs need a git repository with a commit")
        return
    if not (root / "dvc.lock").exists():
        yield Finding("git", "OK", f"{branch}; nothing has run yet (no dvc.lock)")
    elif changed:
        yield Finding("git", "WARN", f"{branch}; dvc.lock differs from the commit", "`git commit dvc.lock` after a run")
    else:
        yield Finding("git", "OK", f"{branch}; dvc.lock is committed")


def locks(root: Path) -> Iterator[Finding]:
    """Who has the workspace, and DVC's own lock file."""
    holder = dvc.holder(root)
    yield Finding("workspace", "OK", f"in use by {holder}" if holder else "free")
    path = root / ".dvc" / "tmp" / "rwlock"
    try:
        json.loads(path.read_text())
    except FileNotFoundError:
        pass
    except ValueError:
        cure = "the next run of ours repairs it; before a plain `dvc` command: `rm .dvc/tmp/rwlock`"
        yield Finding("dvc locks", "WARN", "rwlock is empty or torn, as a killed DVC leaves it", cure)
        return
    yield Finding("dvc locks", "OK", "; ".join(dvc.lock_holders(root)) or "none held")


def remote(root: Path) -> Iterator[Finding]:
    """Whether DVC's remote answers."""
    if not dvc.has_remote(root):
        cure = "for many machines, and as a backup: `dvc remote add --default NAME URL`"
        yield Finding("remote", "SKIP", "none: contents stay on this machine", cure)
        return
    code, name = said_by([sys.executable, "-m", "dvc", "remote", "default"], root, REMOTE_SECONDS)
    if code == 0:
        code, said = said_by([sys.executable, "-m", "dvc", "ls-url", f"remote://{name}"], root, REMOTE_SECONDS)
    else:
        said = name
    if code == 0:
        yield Finding("remote", "OK", f"{name} answers{'' if said else ', and is empty'}")
    elif "does not exist" in said:
        yield Finding("remote", "WARN", f"{name} has nothing", "normal before the first push; else mount it")
    else:
        reason = (said.splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
        cure = "see `dvc remote list`; keys go to .dvc/config.local or the environment"
        yield Finding("remote", "FAIL", f"{name}: {reason}", cure)
