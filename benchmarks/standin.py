"""Our pipeline without its work, in a place of its own, for what is measured of Prefect and DVC."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.flows.cluster import wait_until

ROOT = Path(__file__).parents[1]


@contextmanager
def place_of_our_own() -> Iterator[Path]:
    """A temporary folder for all that we and our processes leave: Prefect's home, DVC's, temporary files."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="orchestration-") as name:
        (Path(name) / "tmp").mkdir()
        os.environ |= {"TMPDIR": f"{name}/tmp", "DVC_SITE_CACHE_DIR": f"{name}/dvc", "PYTHONPATH": str(ROOT)}
        os.environ |= {"PREFECT_HOME": f"{name}/home", "PREFECT_PROFILES_PATH": f"{name}/home/profiles.toml"}
        os.environ.pop("PREFECT_API_URL", None)
        try:
            with temporary_settings(restore_defaults=[PREFECT_API_URL]):
                yield Path(name)
        finally:
            os.environ.clear()
            os.environ |= before


def stand_in(folder: Path, changing: str | None = None) -> Path:
    """A repository with our pipeline's graph, settings and code, whose commands only make files.

    Args:
        changing: This stage makes something new each time.
    """
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    shutil.copytree(ROOT / "stylegan_t", folder / "stylegan_t", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dvc").mkdir()
    for name in (".gitignore", ".dvcignore", ".dvc/config", "params.yaml", "prefect.yaml"):
        shutil.copy(ROOT / name, folder / name)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    read = {path for stage in stages.values() for path in stage["deps"]}
    for name, stage in stages.items():
        content = "$(date +%s%N)" if name == changing else name
        within = {path for path in read for out in stage["outs"] if Path(path).is_relative_to(out)}
        stage["cmd"] = [
            f"mkdir -p {path} && echo {content} > {path}/made" for path in sorted({*within, *stage["outs"]})
        ]
        stage["always_changed"] = name == changing
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    return folder


def forget(folder: Path) -> None:
    """Undo what runs made."""
    (folder / "dvc.lock").unlink(missing_ok=True)
    for path in ("artifacts", "data", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(folder / path, ignore_errors=True)


@contextmanager
def up(folder: Path, *arguments: str, **environment: str) -> Iterator[SyncPrefectClient]:
    """``make up`` in a folder, without GPUs, and a client of its server."""
    log = folder.parent / "up.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "flows.up", "--gpus", "none", *arguments]
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=file, stderr=subprocess.STDOUT
        )
    said = lambda: re.search(r"PREFECT_API_URL=(\S+)", log.read_text())
    try:
        wait_until(lambda: said() or process.poll() is not None, 300)
        if not (found := said()):
            sys.exit(log.read_text())
        os.environ["PREFECT_API_URL"] = found[1]
        with temporary_settings({PREFECT_API_URL: found[1]}), get_client(sync_client=True) as client:
            yield client
    finally:
        process.terminate()
        process.wait()
        os.environ.pop("PREFECT_API_URL", None)
