from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from stylegan_t.stages import download, fetch_encoders, filter, score
from stylegan_t.stages.code import PACKAGE, code_hash
from stylegan_t.stages.parts import parse_parts
from stylegan_t.stages.workspace import Workspace
from tests.imports import closure
from tests.stages.data_world import config, folder_source
from tests.stages.filter_world import RULES, scored_world


@pytest.mark.parametrize("stage", ["download", "fetch_encoders", "score", "filter"])
def test_it_is_that_of_all_files_that_the_stage_imports(stage):
    whole = hashlib.sha256()
    for file in sorted(closure(PACKAGE / "stages" / f"{stage}.py")):
        whole.update(f"{file.relative_to(PACKAGE)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    assert code_hash(stage) == whole.hexdigest()


def folders(workspace: Workspace, stage: str) -> int:
    return len([path for path in (workspace.root / ".state" / stage).iterdir() if path.is_dir()])


@pytest.mark.parametrize(("stage", "module"), [("score", score), ("filter", filter)])
def test_finished_parts_of_other_code_are_not_gone_on_with(tmp_path, monkeypatch, stage, module):
    workspace = scored_world(tmp_path)
    for found, expected in (("a", 1), ("b", 2), ("a", 2)):
        monkeypatch.setattr(module, "code_hash", lambda stage, found=found: found)
        module.run(config(filter=RULES), workspace, "cpu", parse_parts("0"))
        assert folders(workspace, stage) == expected


@pytest.mark.parametrize(("kind", "expected"), [("folder", 2), ("webdataset", 1), ("mixture", 1)])
def test_what_was_fetched_stays_when_the_code_changes(tmp_path, monkeypatch, kind, expected):
    """To fetch it again may take weeks; what is drawn or read here takes minutes."""
    put_pictures(tmp_path / "pictures")
    workspace = Workspace(tmp_path)
    settings = folder_source(tmp_path / "pictures")
    download.run(config(download=settings), workspace, "cpu")
    shards = {
        "kind": "webdataset", "shards": [str(workspace.raw)], "caption_columns": ["txt"], "key_column": "key",
        "metadata_columns": None,
    }  # fmt: skip
    mixture = {"kind": "mixture", "datasets": {"one": shards, "two": settings["source"]}}
    source = {"folder": settings["source"], "webdataset": shards, "mixture": mixture}[kind]
    other = Workspace(tmp_path / "other")
    for found in ("a", "b"):
        monkeypatch.setattr(download, "code_hash", lambda stage, found=found: found)
        download.run(config(download=settings | {"source": source}), other, "cpu", parse_parts("0"))
    assert folders(other, "download") == expected


def put_pictures(folder: Path) -> None:
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a picture")


def test_encoders_that_other_code_has_trained_are_others(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    download.run(config(), workspace, "cpu")
    digest = fetch_encoders.fetch_digest(config(), workspace)
    monkeypatch.setattr(fetch_encoders, "code_hash", lambda stage: "other")
    assert fetch_encoders.fetch_digest(config(), workspace) != digest
