"""Promotion of a model: a version of it that stays, found by everyone under a tag of git.

``python -m flows.promote 1.0.0`` tags the commit whose ``dvc.lock`` names the model, and sends the model to the DVC
remote. The tag has the form of DVC's model registry (GTO): ``dvc artifacts get URL model --rev v1.0.0`` knows it too.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from flows import dvc, hub
from flows.git import GitFailed, git
from flows.reports import history

ARTIFACT, STAGE = "model", "train_super_resolution"
MODEL = f"artifacts/{STAGE}"
EVALUATE = "evaluate"


def promote(root: Path, version: str, message: str = "", *, force: bool = False) -> str:
    """Make the model that is checked out a version; the name of its tag.

    The model goes to DVC's remote first, where there is one: a tag promises that it is there. What is a version
    already is promoted once more without any harm.

    Args:
        version: Three numbers; larger than those that are there.
        message: Of the tag; empty: the verdict on the model.
        force: Also a model that was rejected or not judged, and a version smaller than others.

    Raises:
        ValueError: The model cannot be promoted as it is; the line says why, and what helps.
        RemoteFailed: DVC's remote could not be reached.
    """
    tag = tag_of(version)
    there = versions(root)
    if tag in there and git(root, "rev-parse", f"{tag}^{{commit}}") != git(root, "rev-parse", "HEAD"):
        raise ValueError(f"{tag} is another commit's already, and versions stay what they are; use a larger one")
    newest = max(there, key=numbers, default=None)
    if newest and numbers(tag) < numbers(newest) and not force:
        raise ValueError(f"{tag} comes before {newest}, which exists; use a larger version, or --force")
    require_committed(root)
    verdict = require_accepted(root, force)
    if dvc.has_remote(root):
        dvc.push(root, [STAGE], print)
    if tag not in there:
        git(root, "tag", "--annotate", tag, "--message", message or f"Version {version} of the model: {verdict}")
    return tag


def tag_of(version: str) -> str:
    """The tag of a version. Raises ValueError."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ValueError(f"version {version!r}: expected three numbers with dots between them, e.g. 1.0.0")
    return f"{ARTIFACT}@v{version}"


def versions(root: Path) -> list[str]:
    """The tags of all versions."""
    tags = git(root, "tag", "--list", f"{ARTIFACT}@v*").splitlines()
    return [tag for tag in tags if re.fullmatch(rf"{ARTIFACT}@v\d+\.\d+\.\d+", tag)]


def numbers(tag: str) -> tuple[int, ...]:
    """What orders versions: 1.10.0 comes after 1.9.0."""
    return tuple(map(int, tag.rpartition("v")[2].split(".")))


def require_committed(root: Path) -> None:
    """Raise ValueError where the commit does not say how to get the model that lies here, and what it measured."""
    if changed := git(root, "status", "--porcelain", "--untracked-files=no"):
        first = changed.splitlines()[0].split(maxsplit=1)[-1]
        raise ValueError(f"{first} and perhaps more is not committed; commit what made the model (with dvc.lock) first")
    try:
        git(root, "ls-files", "--error-unmatch", "dvc.lock")
    except GitFailed:
        raise ValueError("git does not know dvc.lock, which says what the model is; add and commit it") from None
    if stale := [each for each in dvc.plan(root, [EVALUATE]) if each.would == "run"]:
        why = "; ".join(f"{each.stage}: {each.why[0]}" for each in stale[:3])
        raise ValueError(f"the model is not up to date ({why}); run `python -m flows.pipeline`, then commit dvc.lock")


def require_accepted(root: Path, force: bool) -> str:
    """The verdict on the model in a word. Raises ValueError where it is none to promote."""
    entry = history.present(root)
    if entry and entry.accepted:
        return "accepted"
    if force:
        return "rejected, promoted all the same" if entry else "not judged"
    if entry:
        raise ValueError("the model was rejected: " + "; ".join(entry.lines) + "; --force promotes it all the same")
    raise ValueError(
        f"{history.HISTORY} has no verdict on this model; `python -m flows.pipeline` judges it, "
        "--force promotes it all the same"
    )


def address(root: Path) -> str:
    """Where others find the repository, without what only its owner may know."""
    try:
        return re.sub(r"(?<=://)[^/@]*@", "", git(root, "remote", "get-url", "origin"))
    except GitFailed:
        return str(root.resolve())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 where the model cannot be promoted, 1 where a remote failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.promote", description="Make the present model a version.")
    parser.add_argument("version", metavar="VERSION", help="e.g. 1.0.0")
    parser.add_argument("--message", default="", help="of the tag; default: the verdict on the model")
    parser.add_argument("--push", action="store_true", help="also push the tag to git's origin")
    parser.add_argument("--to-hub", metavar="OWNER/NAME", help="also upload to the Hugging Face hub")
    parser.add_argument("--force", action="store_true", help="though it was rejected, or comes before another version")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        if options.to_hub:
            hub.require_token()  # better said before there is a version
        tag = promote(root, options.version, options.message, force=options.force)
        if options.push:
            git(root, "push", "--quiet", "origin", f"refs/tags/{tag}")
        print(f"{tag} is {git(root, 'rev-parse', '--short', 'HEAD')}; to get it elsewhere:")
        print(f"  dvc get --rev {tag} {address(root)} {MODEL}")
        if not dvc.has_remote(root):
            print("There is no DVC remote: only those who see this machine's cache can get it (`dvc remote add`).")
        if not options.push:
            print(f"The tag is in this clone only; `git push origin {tag}` shares it.")
        if options.to_hub:
            print(hub.upload(root / MODEL, options.to_hub, tag, history.read_metrics(root) or {}))
    except (dvc.StageFailed, hub.HubFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return dvc.SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
