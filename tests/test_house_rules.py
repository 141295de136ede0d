"""The rules of the house, read off its files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from stylegan_t.config import STAGES, Config
from stylegan_t.profile import PROFILES
from tests.imports import ROOT, closure, file_of, imports

PACKAGE = ROOT / "stylegan_t"
SOURCES = sorted(path for top in ("stylegan_t", "flows", "dashboard") for path in (ROOT / top).rglob("*.py"))
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

EVERYWHERE = {"errors", "files"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "randomness": set(),
    "metrics": set(),
    "losses": set(),
    "ema": set(),
    "settings": set(),
    "engine": EVERYWHERE | {"settings"},
    "config": {"errors", "settings"},
    "records": {"files"},
    "progress": set(),
    "prompts": {"errors"},
    "device": {"errors"},
    "launch": {"errors", "training"},
    "models": EVERYWHERE,
    "data": EVERYWHERE | {"randomness"},
    "sampling": EVERYWHERE | {"models", "data", "randomness"},
    "training": EVERYWHERE
    | {"models", "data", "sampling", "randomness", "losses", "ema", "settings", "records", "progress"},
    "evaluation": EVERYWHERE
    | {"models", "data", "sampling", "randomness", "metrics", "settings", "prompts", "progress", "records"},
    "stages": EVERYWHERE
    | {"models", "data", "sampling", "training", "evaluation", "randomness", "metrics"}
    | {"config", "settings", "records", "progress", "device", "prompts", "engine"},
    "generate": EVERYWHERE | {"models", "sampling", "randomness", "device", "prompts", "progress"},
    "estimate": EVERYWHERE | {"models", "data", "sampling", "training", "ema", "settings", "config", "profile"},
    "profile": {"config", "errors", "files", "settings"},
    "data_commands": EVERYWHERE | {"data", "engine", "settings", "progress"},
    "measure": EVERYWHERE
    | {"models", "evaluation", "stages", "randomness", "settings", "records", "progress", "device", "prompts"},
    "results": {"errors", "records"},
    "evaluation_commands": {"device", "files", "launch", "measure", "results", "training"},
    "cli": {"config", "settings", "errors", "progress", "stages", "training"}
    | {"data_commands", "evaluation_commands", "device", "estimate", "generate", "launch", "profile", "prompts"},
}
"""Imports point one way: what each part of ``stylegan_t`` may import of the others."""

FOREIGN = {
    "stylegan_t": {"prefect", "dvc", "streamlit", "flows", "dashboard"},
    "stylegan_t/models": {"prefect", "dvc", "streamlit", "flows", "dashboard", "logging"},
    "stylegan_t/records.py": {"torch"},
    "stylegan_t/config.py": {"torch"},
    "stylegan_t/settings": {"torch"},
    "flows": {"torch", "stylegan_t", "streamlit", "dashboard"},
    "dashboard": {"prefect", "dvc", "flows"},
}

REPORTING = {PACKAGE / f"{name}.py" for name in ("config", "errors", "files", "progress", "records")}
REPORTING |= {PACKAGE / "stages" / "workspace.py", *(PACKAGE / "settings").glob("*.py")}
REPORTING |= {*(PACKAGE / "engine").glob("*.py")}
"""Code that reports, checks or hands out work, and does not decide what a stage writes: no dependency of any stage."""


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "name", sorted({part(path) for path in SOURCES if path.is_relative_to(PACKAGE)} - {"__init__"})
)
def test_imports_point_one_way(name):
    for path in SOURCES:
        if path.is_relative_to(PACKAGE) and part(path) == name:
            ours = {part(file) for module in imports(path) if (file := file_of(module))}
            assert ours - {name} <= MAY_IMPORT[name], path


@pytest.mark.parametrize("place", FOREIGN)
def test_each_folder_keeps_to_its_trade(place):
    paths = [path for path in SOURCES if path.is_relative_to(ROOT / place)]
    assert paths
    for path in paths:
        assert not {module.split(".")[0] for module in imports(path)} & FOREIGN[place], path


def test_no_training_code_can_load_a_judge():
    judges = PACKAGE / "models" / "judges.py"
    assert judges.exists()
    stages = [path for path in (PACKAGE / "stages").glob("*.py") if path.stem.startswith(("train_", "finetune_"))]
    assert len(stages) == 3
    for path in [*stages, PACKAGE / "stages" / "adversarial.py", *(PACKAGE / "training").glob("*.py")]:
        assert judges not in closure(path), path
        assert not re.search(r"[./]judges|judges\b\s*[/)]", path.read_text()), path


def test_a_stage_has_one_name_everywhere():
    assert list(DVC) == list(STAGES)
    for stage in STAGES:
        assert DVC[stage]["cmd"] == f"stylegan-t run {stage}"
        module = ast.parse((PACKAGE / "stages" / f"{stage}.py").read_text())
        assert "run" in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}, stage
        assert any(f"{key}.".startswith(f"{stage}.") for key in DVC[stage]["params"])
        assert any(stage in output for output in map(str, DVC[stage]["outs"])) or stage in (
            "download",
            "score",
            "filter",
        )
    assert list(yaml.safe_load((ROOT / "params.yaml").read_text())) == ["seed", *STAGES]


def test_params_are_the_default_profile():
    assert (ROOT / "params.yaml").read_text() == (PACKAGE / "profiles" / "tiny.yaml").read_text()


def test_profiles_are_those_that_the_command_offers():
    assert {path.stem for path in (PACKAGE / "profiles").glob("*.yaml")} == set(PROFILES)


def code_of(stage: str) -> set[str]:
    files = closure(PACKAGE / "stages" / f"{stage}.py", frozenset(REPORTING))
    return {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs_and_no_other(stage):
    listed = {dep for dep in DVC[stage]["deps"] if dep.endswith(".py")}
    assert sorted(listed) == sorted(code_of(stage)), f"dvc.yaml: {stage}: deps differ from what the module imports"


CHECKED_ONLY = {
    "download": {"download.engine", "download.fetching"},  # of the latter some decide, and are listed
    "score": {"score.engine"},
    "filter": {"filter", "train_generator", "finetune_text_encoder", "train_super_resolution"},  # listed one by one
}
"""Settings that a stage compares with its result, or works by, and that do not change it."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_settings_that_it_reads_and_no_other(stage):
    others = {PACKAGE / "stages" / f"{name}.py" for name in STAGES if name != stage}
    files = closure(PACKAGE / "stages" / f"{stage}.py", frozenset(others))
    text = "\n".join(path.read_text() for path in files if path.parent.name == "stages")
    read = set(re.findall(r"\bconfig\.((?:seed|" + "|".join(STAGES) + r")(?:\.[a-z_]+)*)", text))
    if "getattr(config, name)" in text:
        read.add(stage)
    deciding = read - CHECKED_ONLY.get(stage, set())
    if stage == "evaluate":  # through reference_statistics.resolutions, which the bundles tell as well
        assert "resolutions(config)" not in text
    listed = set(DVC[stage]["params"])
    within = lambda inner, outer: f"{inner}.".startswith(f"{outer}.")
    assert [key for key in sorted(deciding) if not any(within(key, each) for each in listed)] == []
    assert [each for each in sorted(listed) if not any(within(key, each) or within(each, key) for key in read)] == []


def fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields(kind)


def test_no_setting_has_a_name_that_dvc_overlooks():
    """Its run cache (3.67) leaves these keys out of what it knows a run by, in settings too."""
    assert not {"size", "nfiles"} & {*fields(Config)}


def words(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(attr=word) | ast.arg(arg=word) | ast.Constant(value=str(word)):
                found.add(word)
            case ast.keyword(arg=str(word)):
                found.add(word)
    return found


def test_every_setting_is_read_somewhere():
    defining = {PACKAGE / "config.py", PACKAGE / "profile.py", *(PACKAGE / "settings").glob("*.py")}
    used = set().union(*(words(path) for path in SOURCES if path not in defining))
    assert sorted({*fields(Config)} - used) == []


def test_dvc_is_known_behind_one_door_only():
    for path in (ROOT / "flows").rglob("*.py"):
        if not path.is_relative_to(ROOT / "flows" / "dvc"):
            modules = set(imports(path))
            assert not {module for module in modules if module.split(".")[0] == "dvc"}, path
            assert not {module for module in modules if file_within_the_door(module)}, path


def file_within_the_door(module: str) -> bool:
    return (ROOT / "flows" / "dvc" / f"{module.removeprefix('flows.dvc.')}.py").exists()


@pytest.mark.parametrize(
    "module", ["flows.pipeline", "flows.machines.spread", "flows.up", "flows.sweep", "flows.promote", "dashboard.app"]
)
def test_it_starts_without_torch(module):
    names = [file for path in (ROOT / module.split(".")[0]).rglob("*.py") for file in imports(path)]
    assert "torch" not in names
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_starts_without_torch():
    code = "import sys, stylegan_t.cli; sys.exit(bool({'torch', 'numpy', 'prefect'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


FILE_LINES, FUNCTION_LINES = 330, 60
LONGER_FUNCTIONS = {"train": 100}  # the training loop


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGER_FUNCTIONS.get(node.name, FUNCTION_LINES), node.name


def test_constraints_are_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!]*", line)] == []
    names = [line.partition("==")[0].lower() for line in lines]
    assert len(names) == len(set(names))
    assert {"torch", "torchvision", "prefect", "dvc", "streamlit", "sqlalchemy"} <= set(names)


def test_the_product_reads_nothing_outside_the_repository():
    texts = [
        *SOURCES,
        *(PACKAGE / "profiles").glob("*.yaml"),
        ROOT / "dvc.yaml",
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
    ]
    for path in texts:
        assert "shared/" not in path.read_text(), path
