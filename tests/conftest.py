"""What all tests share: shapes checked at run time, no telemetry, a Prefect home that is thrown away."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook itself imports no more than `tests`)

ROOT = Path(__file__).parents[1]

install_import_hook("stylegan_t", "tests.typecheck.check")
os.environ |= re.findall(r"^export (\w+) := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session", autouse=True)
def prefect_home() -> Iterator[Path]:
    """One for the session: the first start in a new home takes ten seconds."""
    home = Path(tempfile.mkdtemp(prefix="prefect-"))
    os.environ |= {"PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
    yield home
    shutil.rmtree(home)
