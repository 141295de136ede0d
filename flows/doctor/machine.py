"""The machine: what is installed, room on the disks, GPUs."""

from __future__ import annotations

import csv
import platform
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.filesize import decimal

from flows import dvc
from flows.doctor.finding import Finding, said_by

NEEDED, USUAL = ("", "flows"), ("train", "dashboard")
"""Extras of pyproject.toml whose packages must be there, and those that a machine may do without."""
LOW_BYTES, VERY_LOW_BYTES = 20e9, 2e9


def versions(root: Path) -> Iterator[Finding]:
    """Python and packages against pyproject.toml, which says there why a range is as it is."""
    path = root / "pyproject.toml"
    if not path.is_file():
        yield Finding("versions", "SKIP", "no pyproject.toml here", "run this in the repository's root")
        return
    project = tomllib.loads(path.read_text())["project"]
    wanted, python = SpecifierSet(project["requires-python"]), platform.python_version()
    if python in wanted:
        yield Finding("python", "OK", python)
    else:
        yield Finding("python", "FAIL", f"{python} is outside of {wanted}", "make the environment with another Python")
    for extra, lines in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        yield from _packages(extra, [Requirement(line) for line in lines])


def _packages(extra: str, requirements: list[Requirement]) -> Iterator[Finding]:
    name, cure = extra or "core", f"pip install -c constraints.txt -e '.[{extra}]'" if extra else "pip install -e ."
    absent, wrong = [], []
    for each in requirements:
        try:
            found = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            absent.append(each.name)
            continue
        if not each.specifier.contains(found, prereleases=True):
            wrong.append(f"{each.name} {found} is outside of {each.specifier}")
    if wrong:
        yield Finding(f"packages: {name}", "FAIL", "; ".join(wrong), cure)
    elif absent and extra in NEEDED + USUAL:
        state = "FAIL" if extra in NEEDED else "WARN"
        yield Finding(f"packages: {name}", state, f"missing: {', '.join(absent)}", cure)
    elif absent:
        yield Finding(f"packages: {name}", "SKIP", f"not installed: {', '.join(absent)}")
    else:
        yield Finding(f"packages: {name}", "OK", f"{len(requirements)} in their ranges")


def disks(root: Path) -> Iterator[Finding]:
    """Free room where runs write, once for each file system."""
    places: dict[int, tuple[Path, list[str]]] = {}
    folders = {"workspace": root, "cache": dvc.cache_folder(root), "temporary": Path(tempfile.gettempdir())}
    for name, folder in folders.items():
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        places.setdefault(there.stat().st_dev, (there, []))[1].append(name)
    for folder, names in places.values():
        free = shutil.disk_usage(folder).free
        check, line = f"disk: {', '.join(names)}", f"{decimal(free)} free"
        if free > LOW_BYTES:
            yield Finding(check, "OK", line)
        else:
            state = "FAIL" if free < VERY_LOW_BYTES else "WARN"
            yield Finding(check, state, line, "`python -m flows.housekeeping --dry-run` says what can go")


def gpus(root: Path) -> Iterator[Finding]:
    """NVIDIA's GPUs, and whether their driver is new enough for the CUDA that torch was built with."""
    if shutil.which("nvidia-smi") is None:
        yield Finding("gpu", "SKIP", "no nvidia-smi: stages run on the CPU")
        return
    query = "--query-gpu=index,name,memory.used,memory.total,driver_version"
    code, said = said_by(["nvidia-smi", query, "--format=csv,noheader,nounits"], root, 10)
    if code != 0:
        line = f"nvidia-smi: {' '.join(said.split())[:100]}"
        yield Finding("gpu", "FAIL", line, "load or reinstall NVIDIA's driver; a restart after its update")
        return
    for index, name, used, total, driver in csv.reader(said.splitlines(), skipinitialspace=True):
        yield Finding(f"gpu {index}", "OK", f"{name}, {used} of {total} MiB in use, driver {driver}")
    yield _driver(re.search(r"CUDA Version: *(\d+)", said_by(["nvidia-smi"], root, 10)[1]), _cuda_of_torch())


def _driver(driver: re.Match[str] | None, torch: int | None) -> Finding:
    if torch is None:
        return Finding("gpu driver", "WARN", "torch is missing, or built without CUDA", "install torch for CUDA")
    if driver and int(driver[1]) < torch:
        line = f"it serves CUDA {driver[1]}, torch was built for CUDA {torch}"
        return Finding("gpu driver", "FAIL", line, "a newer driver, or torch for the older CUDA")
    return Finding("gpu driver", "OK", f"torch was built for CUDA {torch}")


def _cuda_of_torch() -> int | None:
    """CUDA's major version in the name of a library that torch brings along; None for a build without CUDA."""
    try:
        needed = metadata.requires("torch") or []
    except metadata.PackageNotFoundError:
        return None
    found = re.search(r"nvidia-[a-z-]+-cu(\d+)", " ".join(needed))
    return int(found[1]) if found else None
