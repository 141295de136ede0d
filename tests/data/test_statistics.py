from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylegan_t.data.found import find_shards
from stylegan_t.data.shards import npy, pack, shard_name, write_manifest, write_shards
from stylegan_t.data.statistics import measure, statistics, to_measure
from stylegan_t.errors import DataError
from tests.tars import picture, sample, write_tar


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two shards, of 3 and 2 samples, with pictures of 2 to 6 px width and 1 to 2 captions."""
    samples = [
        pack(
            f"s{n}", "png" if n % 2 else "jpg", picture(n, n + 2, 9, "PNG" if n % 2 else "JPEG"),
            ["a"] if n % 2 else ["two words", "three words here"], {}, npy=npy(pa.array([n]).to_numpy()),
        )
        for n in range(5)
    ]  # fmt: skip
    entries = write_shards(tmp_path, samples, 3)
    entries = [entry | {"dataset": name} for entry, name in zip(entries, ("ours", "theirs"), strict=True)]
    write_manifest(tmp_path, "prepared", entries)
    return tmp_path


def of(path: Path, looked_at: int = 0) -> dict:
    [place] = find_shards([path])
    found = statistics(place, [measure(*shard) for shard in to_measure(place, looked_at)])
    assert json.loads(json.dumps(found)) == found
    return found


def test_counts_and_bytes_are_those_of_the_files(folder):
    found = of(folder)
    assert (found["kind"], found["num_shards"], found["num_samples"]) == ("prepared", 2, 5)
    assert found["tar_bytes"] == sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert found["datasets"] == {"ours": 3, "theirs": 2} and found["candidates"] == {}
    assert {ext: members["count"] for ext, members in found["members"].items()} == {
        "jpg": 3, "json": 5, "npy": 5, "png": 2, "txt": 5,
    }  # fmt: skip
    assert found["members"]["npy"]["bytes"] == 5 * 136 and found["members"]["json"]["bytes"] == 5 * 2
    assert found["members"]["png"]["bytes"] == sum(len(picture(n, n + 2, 9)) for n in (1, 3))


def test_pictures_and_captions_are_measured(folder):
    seen = of(folder)["looked_at"]
    assert (seen["num_samples"], seen["unreadable"], seen["formats"]) == (5, 0, {"jpeg": 3, "png": 2})
    assert seen["width_px"] == {"min": 2, "median": 4, "max": 6}
    assert seen["height_px"] == {"min": 9, "median": 9, "max": 9}
    assert seen["captions"] == {"min": 1, "median": 2, "max": 2}
    assert seen["words"] == {"min": 1, "median": 2, "max": 3}
    assert seen["chars"] == {"min": 1, "median": 9, "max": 16}


@pytest.mark.parametrize(("wanted", "looked_at"), [(1, 2), (2, 2), (4, 4), (99, 5), (0, 5)])
def test_as_many_as_wanted_are_looked_at_spread_over_the_shards(folder, wanted, looked_at):
    assert of(folder, wanted)["looked_at"]["num_samples"] == looked_at


def test_what_cannot_be_read_is_counted_not_hidden(tmp_path):
    write_tar(tmp_path / "a.tar", [*sample("k"), ("l.png", b"x"), ("l.txt", b"x"), ("m.txt", b"no picture")])
    seen = of(tmp_path)["looked_at"]
    assert (seen["num_samples"], seen["unreadable"], seen["formats"]) == (3, 2, {"png": 1})
    write_tar(tmp_path / "a.tar", [("l.txt", b"x")])
    assert of(tmp_path)["looked_at"]["width_px"] is None


def test_candidates_that_were_lost_are_counted_by_reason_from_the_files_beside_the_shards(folder):
    status = {"status_dict": {"success": 3, "http_404": 2}, "duration": 1.5}
    (folder / "00000_stats.json").write_text(json.dumps(status))
    pq.write_table(pa.table({"status": ["success", "success", "too_small", "http_404"]}), folder / "00001.parquet")
    assert of(folder)["candidates"] == {"http_404": 3, "success": 5, "too_small": 1}
    pq.write_table(pa.table({"url": ["a table of somebody else"]}), folder / "00001.parquet")
    assert of(folder)["candidates"] == {"http_404": 2, "success": 3}


@pytest.mark.parametrize("text", ["{", "[]", '{"status_dict": {"success": "many"}}'])
def test_a_damaged_file_of_reasons_is_named(folder, text):
    (folder / "00000_stats.json").write_text(text)
    with pytest.raises(DataError, match=r"00000_stats\.json: not readable"):
        of(folder)


def test_a_missing_or_truncated_shard_is_an_error_and_no_smaller_number(folder):
    shard = folder / shard_name(1)
    shard.write_bytes(shard.read_bytes()[:4000])
    with pytest.raises(DataError, match=r"00001\.tar: truncated at byte 4000"):
        of(folder)
    shard.unlink()
    with pytest.raises(DataError, match=r"00001\.tar: missing"):
        of(folder)
