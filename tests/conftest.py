"""What all tests share: shapes checked at run time, no telemetry, a Prefect home that is thrown away."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook itself imports no more than `tests`)

ROOT = Path(__file__).parents[1]

install_import_hook("stylegan_t", "tests.typecheck.check")
os.environ |= re.findall(r"^export (\w+) := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
# Beside other processes of pytest-xdist, threads only wait for each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


@pytest.fixture(scope="session", autouse=True)
def temporary_folder() -> Path:
    """For all that the tested code and its processes leave in the machine's temporary folder."""
    folder = tempfile.mkdtemp(prefix="t-")
    # multiprocessing's own folder in there goes at the very end of the process, with priority -100.
    Finalize(None, shutil.rmtree, args=[folder, True], exitpriority=-200)
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def prefect_home(temporary_folder: Path) -> Path:
    """One for the session: the first start in a new home takes ten seconds."""
    home = temporary_folder / "prefect"
    os.environ |= {"PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
    return home
