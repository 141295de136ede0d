from __future__ import annotations

import pytest

from stylegan_t.data.shards import Shards
from stylegan_t.data.sources import Shapes
from stylegan_t.errors import DataError
from stylegan_t.stages import download
from stylegan_t.stages.workspace import Workspace
from tests.stages.data_world import config, contents, folder_source

SHAPES = {"kind": "shapes", "num_images": 25, "image_px": 16, "heldout_combinations": 0.125}
SMALL = {"source": SHAPES, "samples_per_shard": 10}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_writes_whole_shards_that_say_where_they_come_from(workspace):
    download.run(config(download=SMALL), workspace, "cpu")
    raw = Shards(workspace.raw)
    raw.verify()
    assert raw.shard_sizes == [10, 10, 5] and raw.manifest["kind"] == "raw" and raw.manifest["skipped"] == {}
    assert raw.manifest["source"]["kind"] == "shapes"
    expected = sorted([f"{n:05d}{end}" for n in range(3) for end in (".tar", ".index.parquet")] + ["manifest.json"])
    assert sorted(contents(workspace.raw)) == expected


def test_a_second_run_writes_the_same_bytes_and_another_seed_others(workspace):
    download.run(config(download=SMALL), workspace, "cpu")
    first = contents(workspace.raw)
    download.run(config(download=SMALL), workspace, "cpu")
    assert contents(workspace.raw) == first
    download.run(config(download=SMALL).model_copy(update={"seed": 1}), workspace, "cpu")
    assert contents(workspace.raw)["00000.tar"] != first["00000.tar"]


def test_a_killed_run_goes_on_after_its_last_whole_shard_with_the_same_result(workspace, monkeypatch):
    download.run(config(download=SMALL), workspace, "cpu")
    unbroken = contents(workspace.raw)
    whole, asked = Shapes.samples, []

    def killed_at_13(self, start, stop):
        asked.append(start)
        for number, sample in enumerate(whole(self, start, stop), start):
            if number == 13 and len(asked) == 2:
                raise KeyboardInterrupt
            yield sample

    monkeypatch.setattr(Shapes, "samples", killed_at_13)
    with pytest.raises(KeyboardInterrupt):
        download.run(config(download=SMALL), workspace, "cpu")
    asked.clear()
    download.run(config(download=SMALL), workspace, "cpu")
    assert asked == [10, 20]
    assert contents(workspace.raw) == unbroken
    assert not list((workspace.root / ".state").rglob("*.tar")), "the state is gone when the stage is done"


def test_other_settings_never_go_on_with_old_shards(workspace, monkeypatch):
    monkeypatch.setattr(download, "write_manifest", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        download.run(config(download=SMALL), workspace, "cpu")
    monkeypatch.undo()
    other = {**SMALL, "source": {**SHAPES, "image_px": 32}}
    download.run(config(download=other), workspace, "cpu")
    broken_before = contents(workspace.raw)
    download.run(config(download=other), workspace, "cpu")
    assert contents(workspace.raw) == broken_before


def test_a_relative_folder_starts_at_the_root(workspace):
    pictures = workspace.root / "pictures"
    pictures.mkdir()
    for name in ("a", "b"):
        (pictures / f"{name}.png").write_bytes(b"not looked at yet")
    (pictures / "a.txt").write_text("a caption")
    download.run(config(download={"source": {"kind": "folder", "path": "pictures"}}), workspace, "cpu")
    raw = Shards(workspace.raw)
    assert raw.keys == ["a"] and raw.manifest["skipped"] == {"missing_caption": 1}


def test_a_missing_folder_leaves_what_was_there(workspace):
    download.run(config(download=SMALL), workspace, "cpu")
    before = contents(workspace.raw)
    with pytest.raises(DataError, match="no such folder"):
        download.run(config(download=folder_source(workspace.root / "none")), workspace, "cpu")
    assert contents(workspace.raw) == before
