"""The few things that we ask of git."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

NOBODY = ["-c", "user.name=stylegan-t", "-c", "user.email=stylegan-t@localhost"]
"""Author of commits that no person makes."""


ATTEMPTS = 4
BACKOFF_SECONDS = 1.0
"""Before the second attempt; twice as long before each later one."""


class GitFailed(ValueError):
    """Git refused, or could not reach the other repository."""


class GitUnreachable(GitFailed):
    """The other repository could not be reached, several times."""


SECRET = re.compile(r"//[^/@\s]+@")
"""Names and passwords in addresses: what goes wrong is shown and sent to many."""


def git(root: Path, *arguments: str) -> str:
    """What ``git ARGUMENT …`` says. Raises GitFailed."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no reason given"]
        raise GitFailed(SECRET.sub("//", f"git {' '.join(arguments)}: {said[-1]}"))
    return done.stdout.strip()


def over_network(root: Path, *arguments: str) -> str:
    """The same for a command that needs another machine, tried again where it fails. Raises GitFailed."""
    for attempt in range(ATTEMPTS - 1):
        with suppress(GitFailed):
            return git(root, *arguments)
        time.sleep(BACKOFF_SECONDS * 2**attempt)
    try:
        return git(root, *arguments)
    except GitFailed as error:
        raise GitUnreachable(str(error)) from None


def clone(origin: str, folder: Path) -> None:
    """Clone a repository, unless the folder holds one: then only its address is set. Raises GitFailed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several runs may begin in it at once
        if not (folder / ".git").exists():
            half = folder.with_name(f".{folder.name}.half")
            shutil.rmtree(half, ignore_errors=True)  # of one who was killed
            over_network(folder.parent, "clone", "--quiet", origin, str(half))
            half.rename(folder)
        elif git(folder, "remote", "get-url", "origin") != origin:
            git(folder, "remote", "set-url", "origin", origin)


def check_out(root: Path, revision: str, branch: str | None = None) -> str:
    """Fetch from the origin and put the files of a revision there, in place of what was changed; its commit.

    What git ignores (data, models, resume states) stays. Nobody else works there: git's locks are dead ones'.

    Args:
        revision: A commit, a tag, or a branch as the origin has it.
        branch: Make this branch there; None: on none.
    """
    folder = root / ".git"
    for lock in [*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")]:
        lock.unlink(missing_ok=True)
    over_network(root, "fetch", "--quiet", "--force", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    commit = resolve(root, revision)
    git(root, "checkout", "--quiet", "--force", *(["-B", branch] if branch else ["--detach"]), commit)
    return commit


def resolve(root: Path, revision: str) -> str:
    """The commit of a branch of the origin, a tag or a commit. Raises GitFailed."""
    for name in (f"refs/remotes/origin/{revision}", revision):
        try:
            return git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        except GitFailed:
            continue
    raise GitFailed(f"{revision!r} is no branch of the origin, no tag and no commit; push it first")


def commit_and_push(root: Path, branch: str, files: Sequence[str], message: str) -> str:
    """Commit files, if they changed, and push the branch; the commit. Raises GitFailed."""
    git(root, "add", "--", *files)
    if git(root, "diff", "--cached", "--name-only"):
        git(root, *NOBODY, "commit", "--quiet", "--no-verify", "-m", message)
    over_network(root, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    return git(root, "rev-parse", "HEAD")
