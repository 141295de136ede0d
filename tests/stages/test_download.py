from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from stylegan_t.data.shards import Shards
from stylegan_t.data.sources.drawn import Shapes
from stylegan_t.errors import DataError
from stylegan_t.stages import download
from stylegan_t.stages.parts import parse_parts
from stylegan_t.stages.workspace import Workspace
from tests.data.download.server import Server, Visit
from tests.data.download.world import jpeg
from tests.sources import lines, put
from tests.stages.data_world import config, contents, folder_source

SHAPES = {"kind": "shapes", "num_images": 25, "image_px": 16, "heldout_combinations": 0.125}
SMALL = {"source": SHAPES, "samples_per_shard": 10}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def run(workspace: Workspace, settings: dict[str, Any], parts: str | None = None) -> dict[str, bytes]:
    """What the stage leaves in its output folder."""
    download.run(config(download=settings), workspace, "cpu", parse_parts(parts) if parts else None)
    return contents(workspace.raw) if workspace.raw.exists() else {}


def urls(*paths: str, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "urls", "paths": list(paths), "format": None, "columns": None, "records": None, "url_column": "url",
        "caption_columns": ["caption"], "key_column": None, "sha256_column": None, **changes,
    }  # fmt: skip


def from_this_machine(**changes: Any) -> dict[str, Any]:
    """How to fetch from a server of a test."""
    fetching = config().download.fetching.model_dump()
    return {"fetching": {**fetching, "allowed_networks": ["127.0.0.1/32"], **changes}}


def test_writes_whole_shards_that_say_where_they_come_from(workspace):
    found = run(workspace, SMALL)
    raw = Shards(workspace.raw)
    raw.verify()
    assert raw.shard_sizes == [10, 10, 5] and raw.manifest["kind"] == "raw" and raw.manifest["skipped"] == {}
    assert raw.manifest["source"]["kind"] == "shapes"
    ends = (".tar", ".index.parquet", ".parquet", "_stats.json")
    assert sorted(found) == sorted([f"{n:05d}{end}" for n in range(3) for end in ends] + ["manifest.json"])
    assert pq.read_table(workspace.raw / "00002.parquet")["key"].to_pylist() == list(raw.keys)[20:]


def test_a_second_run_writes_the_same_bytes_and_another_seed_others(workspace):
    first = run(workspace, SMALL)
    assert run(workspace, SMALL) == first
    download.run(config(download=SMALL).model_copy(update={"seed": 1}), workspace, "cpu")
    assert contents(workspace.raw)["00000.tar"] != first["00000.tar"]


def test_pairs_of_shapes_become_shards_of_the_same_bytes_each_time(workspace):
    pairs = {**SMALL, "source": {**SHAPES, "kind": "shape_pairs"}}
    first = run(workspace, pairs)
    raw = Shards(workspace.raw)
    raw.verify()
    assert raw.shard_sizes == [10, 10, 5]
    assert raw.manifest["source"] == {
        "kind": "shape_pairs", "image_px": 16, "seed": 0, "heldout_combinations": 0.125, "num_pairings_drawn": 336 - 48,
    }  # fmt: skip
    assert run(workspace, pairs) == first


@pytest.mark.slow
def test_workers_write_the_same_bytes(workspace):
    alone = run(workspace, SMALL)
    assert run(workspace, {**SMALL, "engine": {"kind": "processes", "num_workers": 2}}) == alone


def test_parts_made_elsewhere_become_the_same_output(workspace):
    whole = run(workspace, SMALL)
    for path in workspace.raw.iterdir():
        path.unlink()
    assert run(workspace, SMALL, "2") == run(workspace, SMALL, "1/2") == {}
    made = []
    with pytest.MonkeyPatch.context() as patch:
        pairs = Shapes.pairs
        patch.setattr(Shapes, "pairs", lambda self, part, *rest: made.append(part) or pairs(self, part, *rest))
        assert run(workspace, SMALL) == whole
    assert made == [1]


def test_a_killed_run_goes_on_after_its_last_whole_shard_with_the_same_result(workspace, monkeypatch):
    unbroken = run(workspace, SMALL)
    whole, asked = Shapes.pairs, []

    def killed_at_13(self, part, *rest):
        asked.append(part)
        for number, pair in enumerate(whole(self, part, *rest), 10 * part):
            if number == 13 and len(asked) == 2:
                raise KeyboardInterrupt
            yield pair

    monkeypatch.setattr(Shapes, "pairs", killed_at_13)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, SMALL)
    asked.clear()
    assert run(workspace, SMALL) == unbroken
    assert asked == [1, 2]
    assert not list((workspace.root / ".state").rglob("*.tar")), "the state is gone when the stage is done"


def test_other_settings_never_go_on_with_old_shards(workspace, monkeypatch):
    monkeypatch.setattr(download, "write_manifest", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(workspace, SMALL)
    monkeypatch.undo()
    other = {**SMALL, "source": {**SHAPES, "image_px": 32}}
    assert run(workspace, other) == run(workspace, other)
    assert run(workspace, {**SMALL, "samples_per_shard": 9})["00000.tar"] != run(workspace, SMALL)["00000.tar"]


def test_a_relative_folder_starts_at_the_root(workspace):
    put(workspace.root / "pictures", {"a.png": "not looked at yet", "b.png": "", "a.txt": "a caption"})
    run(workspace, {"source": {"kind": "folder", "path": "pictures", "caption_columns": ["text"]}})
    raw = Shards(workspace.raw)
    assert list(raw.keys) == ["a"] and raw.manifest["skipped"] == {"missing_caption": 1}


def test_a_missing_folder_leaves_what_was_there(workspace):
    before = run(workspace, SMALL)
    with pytest.raises(DataError, match="no such folder"):
        run(workspace, folder_source(workspace.root / "none"))
    assert contents(workspace.raw) == before


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "it is empty"),
        ({"a.png": b"x"}, "1 missing_caption"),
        ({"metadata.jsonl": ""}, "it is empty"),
        ({"metadata.jsonl": lines({"file_name": "a.png", "text": "a"})}, "1 missing_image"),
    ],
)
def test_a_source_with_nothing_usable_says_what_it_lacks_and_leaves_what_was_there(workspace, files, match):
    before = run(workspace, SMALL)
    (workspace.root / "folder").mkdir()
    with pytest.raises(DataError, match=rf"no picture with a caption in it \({match}\)"):
        run(workspace, folder_source(put(workspace.root / "folder", files)))
    assert contents(workspace.raw) == before


def test_shards_of_several_data_sets_say_which(workspace):
    put(workspace.root / "pictures", {"a.png": "x", "a.txt": "a"})
    folder = {"kind": "folder", "path": "pictures", "caption_columns": ["text"]}
    run(workspace, {**SMALL, "source": {"kind": "mixture", "datasets": {"drawn": SHAPES, "mine": folder}}})
    raw = Shards(workspace.raw)
    assert [entry["dataset"] for entry in raw.manifest["shards"]] == ["drawn"] * 3 + ["mine"]
    assert raw.keys[0] == "drawn-shapes-00000000" and raw.keys[25] == "mine-a"


def test_our_own_shards_are_a_source(workspace, tmp_path):
    before = run(workspace, SMALL)
    source = {
        "kind": "webdataset", "shards": [str(workspace.raw)], "caption_columns": ["txt"], "key_column": "key",
        "metadata_columns": None,
    }  # fmt: skip
    after = run(Workspace(tmp_path / "other"), {"source": source})
    assert {k: v for k, v in after.items() if k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }


def test_how_fast_it_went_is_told_beside_and_not_in_the_output(workspace):
    run(workspace, SMALL)
    speed = json.loads((workspace.root / "artifacts" / "download_speed.json").read_text())
    assert speed["candidates"] == speed["images"] == 25 and speed["seconds"] > 0
    assert speed["images_per_second"] == pytest.approx(25 / speed["seconds"])


def test_progress_is_told_in_pictures(workspace, capsys):
    run(workspace, SMALL)
    assert "download: 25/25 images" in capsys.readouterr().err


async def picture(visit: Visit) -> None:
    name = visit.path.strip("/").removesuffix(".jpg")
    if name.isdigit() and int(name) % 7:
        await visit.answer(jpeg(int(name)))
    else:
        await visit.answer(b"gone", "text/plain", status=404)


def test_a_list_of_addresses_becomes_shards_with_all_its_rows_told(workspace):
    with Server(otherwise=picture) as server:
        rows = [{"url": server.url(f"/{n}.jpg"), "caption": f"number {n}", "n": n} for n in range(25)]
        put(workspace.root, {"list.jsonl": lines(*rows, {"url": "no caption"})})
        found = run(workspace, {"source": urls("list.jsonl"), "samples_per_shard": 10, **from_this_machine()})
        assert run(workspace, {"source": urls("list.jsonl"), "samples_per_shard": 10, **from_this_machine()}) == found
    raw = Shards(workspace.raw)
    assert raw.manifest["skipped"] == {"http_404": 4, "missing_caption": 1}
    assert [s.metadata["n"] for s in raw] == [n for n in range(25) if n % 7]
    told = [row for n in range(3) for row in pq.read_table(workspace.raw / f"{n:05d}.parquet").to_pylist()]
    assert Counter(row["status"] for row in told) == {"success": 21, "http_404": 4, "missing_caption": 1}
    assert {row["caption"] for row in told if row["status"] == "http_404"} == {f"number {n}" for n in (0, 7, 14, 21)}
    assert json.loads((workspace.raw / "00000_stats.json").read_text()) == {
        "count": 10, "successes": 8, "failed_to_download": 2, "failed_to_resize": 0,
        "status_dict": {"http_404": 2, "success": 8},
    }  # fmt: skip


def test_another_pace_goes_on_with_what_was_fetched_and_another_way_to_keep_does_not(workspace, monkeypatch):
    with Server(otherwise=picture) as server:
        put(workspace.root, {"list.csv": "url,caption\n" + "".join(f"{server.url(f'/{n}.jpg')},c\n" for n in (1, 2))})
        settings = {"source": urls("list.csv"), **from_this_machine()}
        with monkeypatch.context() as patch:
            patch.setattr(download, "write_manifest", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run(workspace, settings)
        assert len(server.log) == 2
        run(workspace, settings | from_this_machine(max_connections=3, total_seconds=5.0, user_agent="other"))
        assert len(server.log) == 2
        stored = config().download.stored.model_dump() | {"resize": "keep_ratio", "size_px": 16}
        run(workspace, settings | {"stored": stored})
        assert len(server.log) == 4
    assert Shards(workspace.raw)[0].metadata["height"] == 16


def test_what_only_downloading_a_part_needed_is_gone_when_its_shard_is_whole(workspace):
    with Server(otherwise=picture) as server:
        put(
            workspace.root, {"list.csv": "url,caption\n" + "".join(f"{server.url(f'/{n}.jpg')},c\n" for n in (1, 2, 3))}
        )
        settings = {"source": urls("list.csv"), "samples_per_shard": 1, **from_this_machine()}
        run(workspace, settings, "0")
        (shard,) = (workspace.root / ".state").rglob("00000.tar")
        ledgers = next((workspace.root / ".state").rglob("rows")).with_name("ledgers")
        assert shard.exists() and not list(ledgers.glob("*.ledger"))
        (ledgers / "00000.ledger").write_text("left by a process that was killed right after its shard was whole")
        run(workspace, settings, "0")
        assert not list(ledgers.glob("*.ledger"))
        run(workspace, settings)
        assert sorted(server.log) == ["/1.jpg", "/2.jpg", "/3.jpg"]


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_where_it_was_and_fetches_nothing_twice(workspace):
    """kill -9 twice, while each of two workers downloads a part."""
    rows, connections = 400, 8

    async def slow(visit: Visit) -> None:
        import asyncio

        await asyncio.sleep(0.03)
        await picture(visit)

    with Server(otherwise=slow) as server:
        table = [{"url": server.url(f"/{n}.jpg"), "caption": f"number {n}"} for n in range(rows)]
        put(workspace.root, {"list.jsonl": lines(*table)})
        settings = {
            "source": urls("list.jsonl"), "samples_per_shard": 100, "engine": {"kind": "processes", "num_workers": 2},
            **from_this_machine(max_connections=connections, max_connections_per_host=connections),
        }  # fmt: skip
        values = config(download=settings).model_dump(mode="json")
        put(workspace.root, {"params.yaml": yaml.safe_dump(values)})
        for kill_at in (60, 250, None):
            process = start(workspace.root)
            while kill_at and len(server.log) < kill_at and process.poll() is None:
                time.sleep(0.01)
            if kill_at:
                process.send_signal(signal.SIGKILL)
            _, told = process.communicate(timeout=120)
            assert process.returncode == (-signal.SIGKILL if kill_at else 0), told
            assert workspace.raw.exists() == (kill_at is None)
            time.sleep(0.5)  # the workers end with the one that is killed
        asked = Counter(server.log)
        assert len(asked) == rows
        twice = sum(count - 1 for count in asked.values())
        assert twice <= 2 * 2 * connections, "only what was under way in two workers at two kills"
        killed = contents(workspace.raw)
        assert "download: 400/400 images" in told
        again = run(
            Workspace(workspace.root / "again"), {**settings, "source": urls(str(workspace.root / "list.jsonl"))}
        )
    tars = [name for name in killed if name != "manifest.json"]
    assert len(tars) == 16 and all(killed[name] == again[name] for name in tars)


def start(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stylegan_t.cli", "run", "download"]
    return subprocess.Popen(command, cwd=root, env=os.environ, stderr=subprocess.PIPE, text=True)
