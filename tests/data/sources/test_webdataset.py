from __future__ import annotations

import gzip
import json
import logging
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylegan_t.data.found import INDEXED
from stylegan_t.data.raw import write_raw_shard
from stylegan_t.data.shards import Sample, Skipped, pack, write_manifest
from stylegan_t.data.sources import webdataset as webdataset_module
from stylegan_t.data.sources.webdataset import Webdataset
from stylegan_t.data.tars import index_shard
from stylegan_t.errors import DataError
from tests.sources import all_of, parts_of, put, serve
from tests.tars import picture, sample, write_tar

BLOCK = 512


def webdataset(root: Path, *shards: str, captions: tuple[str, ...] = ("txt",), **changes: Any) -> Webdataset:
    settings = {"key_column": "key", "metadata_columns": None, **changes}
    return Webdataset(shards, captions, root=root, **settings)


def img2dataset(folder: Path, number: int = 0, good: int = 3, bad: int = 2) -> list[str]:
    """A shard and its table as img2dataset writes them; the keys of the good samples."""
    keys = [f"{number:05d}{n:04d}" for n in range(good + bad)]
    write_tar(folder / f"{number:05d}.tar", [m for n, key in enumerate(keys[:good]) for m in sample(key, n, f"c{n}")])
    rows = [
        {
            "key": key, "url": f"http://a/{key}", "caption": f"c{n}", "similarity": n / 10,
            "status": "success" if n < good else "failed_to_download",
            "error_message": None if n < good else "HTTP Error 404",
        }
        for n, key in enumerate(keys)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05d}.parquet")
    return keys[:good]


def test_samples_come_with_json_and_table_and_what_failed_there_is_told(tmp_path):
    keys = img2dataset(tmp_path)
    samples, skipped = all_of(webdataset(tmp_path, "00000.tar"), tmp_path / "work")
    assert [s.key for s in samples] == keys and [s.captions for s in samples] == [["c0"], ["c1"], ["c2"]]
    assert samples[1].fields["png"] == picture(1)
    assert samples[1].metadata == {"caption": "c1", "value": 1, "url": f"http://a/{keys[1]}", "similarity": 0.1}
    assert skipped == dict.fromkeys(["000000003", "000000004"], "failed_to_download")


def test_a_part_is_a_shard_whatever_names_it(tmp_path):
    keys = [img2dataset(tmp_path, number, bad=0) for number in range(3)]
    for patterns in (["{00000..00002}.tar"], ["*.tar"], [str(tmp_path)], ["00000.tar", "0000[12].tar"], ["."]):
        parts = parts_of(webdataset(tmp_path, *patterns), tmp_path / "work" / "-".join(patterns).replace("/", "-"))
        assert [[pair.key for pair in part] for part in parts] == keys, patterns


def test_values_and_captions_are_taken_from_where_the_settings_say(tmp_path):
    members = [("a.jpg", b"x"), ("a.json", json.dumps({"text": ["one", "two"], "n": None, "e": [1], "s": 2}).encode())]
    write_tar(tmp_path / "a.tar", [*members, ("a.txt", b"from\nthe text"), ("a.cls", b"5"), ("a.npy", b"6")])
    rows = [{"id": "a", "long": "three", "aesthetic": 0.5, "embedding": [0.1] * 9}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    keep = {"key_column": "id", "metadata_columns": ["s", "aesthetic"]}
    source = webdataset(tmp_path, "a.tar", captions=("txt", "text", "long"), **keep)
    (found,), _ = all_of(source, tmp_path / "work")
    assert found.captions == ["from the text", "one", "two", "three"]
    assert found.metadata == {"aesthetic": 0.5, "s": 2}
    assert set(found.fields) == {"jpg", "txt", "json"}
    source = webdataset(tmp_path, "a.tar", key_column="id")
    (found,), _ = all_of(source, tmp_path / "all")
    told = {name: value for name, value in rows[0].items() if name != "id"}
    assert found.metadata == {"text": ["one", "two"], "e": [1], "s": 2, **told}


def test_a_caption_that_stands_in_two_places_is_one(tmp_path):
    write_tar(tmp_path / "a.tar", sample("a", caption="the same"))
    (found,), _ = all_of(webdataset(tmp_path, "a.tar", captions=("txt", "caption")), tmp_path / "work")
    assert found.captions == ["the same"]


def test_a_member_that_is_no_picture_by_its_length_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("stylegan_t.data.sources.webdataset.MOST_BYTES", 1000)
    write_tar(tmp_path / "a.tar", [*sample("a"), ("b.png", b"x" * 1001), ("b.txt", b"long")])
    samples, skipped = all_of(webdataset(tmp_path, "a.tar"), tmp_path / "work")
    assert [s.key for s in samples] == ["a"] and skipped == {"b": "missing_image"}


def test_what_lacks_picture_or_caption_or_cannot_be_read_is_told(tmp_path):
    members = [
        *sample("good"), ("blind.txt", b"no picture"), ("mute.png", b"x"), ("empty.png", b"x"), ("empty.txt", b" \n"),
        ("odd.png", b"x"), ("odd.txt", b"caf\xe9"), ("list.png", b"x"), ("list.txt", b"t"), ("list.json", b"[1]"),
        ("dict.png", b"x"), ("dict.json", b'{"text": {"en": "a cat"}}'),
    ]  # fmt: skip
    write_tar(tmp_path / "a.tar", members)
    samples, skipped = all_of(webdataset(tmp_path, "a.tar", captions=("txt", "text")), tmp_path / "work")
    assert [s.key for s in samples] == ["good"]
    assert skipped == {
        "blind": "missing_image", "mute": "missing_caption", "empty": "missing_caption",
        "odd": "malformed_row", "list": "malformed_row", "dict": "malformed_row",
    }  # fmt: skip


def test_keys_are_made_fit_and_stay_apart(tmp_path):
    write_tar(tmp_path / "a.tar", [*sample("x/y"), *sample("x_y"), *sample("d.ir/z")])
    samples, _ = all_of(webdataset(tmp_path, "a.tar"), tmp_path / "work")
    assert [s.key for s in samples] == ["x_y", "x_y-2", "d_ir_z"]
    assert [s.metadata["original_key"] for s in samples] == ["x/y", "x_y", "d.ir/z"]


def test_a_column_of_the_table_may_be_called_captions_and_hold_anything(tmp_path):
    write_tar(tmp_path / "a.tar", sample("a"))
    rows = [{"key": key, "status": status, "captions": 3} for key, status in (("a", "success"), ("b", "failed"))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    ((found, failed),) = parts_of(webdataset(tmp_path, "a.tar"), tmp_path / "work")
    assert isinstance(found, Sample) and found.metadata["captions"] == 3
    assert failed == Skipped("b", "failed", {"captions": 3})


def our_shards(folder: Path) -> Path:
    """Two raw shards of ours, with candidates that failed."""
    entries = []
    for number in range(2):
        pairs = [
            pack(f"k{number}{n}", "png", picture(n), ["one", "two"], {"url": f"u{n}", "width": 8, "tags": ["ä"]})
            for n in range(3)
        ]
        failed = Skipped(f"k{number}9", "http_404", {"url": "u9", "tags": ["b"], "captions": 3}, ["c"])
        entries.append(write_raw_shard(folder, number, [*pairs, failed])[0])
    write_manifest(folder, "raw", entries)
    return folder


def test_our_own_shards_come_out_as_they_went_in(tmp_path):
    ours = our_shards(tmp_path / "ours")
    source = webdataset(tmp_path, "ours")
    assert source.plan(tmp_path / "work") == 2 and source.num_candidates(tmp_path / "work") == 6
    for part in range(2):
        write_raw_shard(tmp_path / "again", part, source.pairs(part, tmp_path / "work"))
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (ours / path.name).read_bytes(), path.name
    assert len(list((tmp_path / "again").iterdir())) == 8


def test_an_empty_shard_of_ours_is_not_taken_for_a_damaged_one(tmp_path):
    entry, _ = write_raw_shard(tmp_path / "ours", 0, [Skipped("a", "http_404", {"url": "u"})])
    write_manifest(tmp_path / "ours", "raw", [entry])
    assert all_of(webdataset(tmp_path, "ours"), tmp_path / "work") == ([], {"a": "http_404"})


def test_foreign_text_of_several_lines_is_one_caption_indexed_or_not(tmp_path):
    tar = write_tar(tmp_path / "a.tar", [("a.png", b"x"), ("a.txt", b"one\ncaption")])
    before = webdataset(tmp_path, "a.tar").fingerprint()
    for number, manifest in enumerate([None, INDEXED, "[1]", "{"]):
        entry = index_shard(tar, hashed=False)
        if manifest == INDEXED:
            write_manifest(tmp_path, INDEXED, [entry])
        elif manifest:
            put(tmp_path, {"manifest.json": manifest})
        source = webdataset(tmp_path, "a.tar")
        assert all_of(source, tmp_path / f"work-{number}")[0][0].captions == ["one caption"]
        assert source.fingerprint() == before


def test_our_own_shards_are_known_however_they_are_named_and_foreign_ones_beside_are_not(tmp_path):
    our_shards(tmp_path / "ours")
    write_tar(tmp_path / "ours" / "x.tar", [("a.png", b"x"), ("a.txt", b"one\ncaption")])
    source = webdataset(tmp_path, "ours/*.tar")
    parts = parts_of(source, tmp_path / "work")
    assert [part[0].captions for part in parts if isinstance(part[0], Sample)] == [["one", "two"]] * 2 + [
        ["one caption"]
    ]
    before = source.fingerprint()
    (tmp_path / "ours" / "manifest.json").unlink()
    assert source.fingerprint() != before
    assert all_of(source, tmp_path / "again")[0][0].captions == ["one two"]


@pytest.mark.parametrize("table", [True, False], ids=["table", "no table"])
@pytest.mark.parametrize("damage", ["cut in a picture", "cut at a header", "overwritten header"])
def test_what_lies_before_a_damage_is_kept_and_the_rest_is_told(tmp_path, caplog, damage, table):
    keys = img2dataset(tmp_path, good=6)
    tar = tmp_path / "00000.tar"
    data = tar.read_bytes()
    header = data.index(f"{keys[4]}.png".encode())
    place = header + BLOCK + 10 if damage == "cut in a picture" else header
    tar.write_bytes(data[:place] if damage.startswith("cut") else data[:place] + b"?" * BLOCK + data[place + BLOCK :])
    if not table:
        (tmp_path / "00000.parquet").unlink()
    with caplog.at_level(logging.WARNING):
        samples, skipped = all_of(webdataset(tmp_path, "00000.tar"), tmp_path / "work")
    kept = [s.key for s in samples]
    assert kept in (keys[:3], keys[:4]) and [s.fields["png"] for s in samples] == [picture(n) for n in range(len(kept))]
    assert "00000.tar: " in caplog.text and "what follows is lost" in caplog.text
    if table:
        assert [key for key, reason in skipped.items() if reason == "damaged_shard"] == keys[len(kept) :]
        assert sorted(skipped.values())[-2:] == ["failed_to_download"] * 2
    else:
        assert skipped == {"00000": "damaged_shard"}


def test_one_damaged_shard_is_no_reason_to_lose_the_others(tmp_path):
    put(tmp_path, {"0.tar": "<html>not found</html>"})
    write_tar(tmp_path / "1.tar", sample("good"))
    samples, skipped = all_of(webdataset(tmp_path, "*.tar"), tmp_path / "work")
    assert [s.key for s in samples] == ["good"] and skipped == {"0": "damaged_shard"}


@pytest.mark.parametrize("cut", [False, True])
def test_a_packed_tar_is_unpacked(tmp_path, cut):
    img2dataset(tmp_path, good=200)
    data = gzip.compress((tmp_path / "00000.tar").read_bytes())
    (tmp_path / "00000.tar.gz").write_bytes(data[: len(data) // 2] if cut else data)
    samples, skipped = all_of(webdataset(tmp_path, "00000.tar.gz"), tmp_path / "work")
    assert (0 < len(samples) < 200) if cut else (len(samples) == 200)
    assert len(samples) + len(skipped) == 202, "the table beside a packed tar tells what is lost"
    assert not list((tmp_path / "work").glob("copies-*/*"))


def test_shards_behind_an_address_are_copied_one_at_a_time_and_read_the_same(tmp_path):
    for number in range(2):
        img2dataset(tmp_path / "there", number)
    here, _ = all_of(webdataset(tmp_path / "there", "*.tar"), tmp_path / "work-here")

    def answer(path: str) -> bytes | int:
        file = tmp_path / "there" / path.strip("/")
        return file.read_bytes() if file.is_file() else 404

    with serve(answer) as (address, _):
        over_http = webdataset(tmp_path, f"{address}/{{00000..00001}}.tar")
        assert all_of(over_http, tmp_path / "work-http")[0] == here
    memory = fsspec.filesystem("memory")
    for file in (tmp_path / "there").iterdir():
        memory.pipe_file(f"/bucket/{file.name}", file.read_bytes())
    for number, pattern in enumerate(["memory://bucket/*.tar", "memory://bucket/"]):
        assert all_of(webdataset(tmp_path, pattern), tmp_path / f"work-memory-{number}")[0] == here
    piped = webdataset(tmp_path, *(f"pipe:cat {tmp_path}/there/0000{n}.tar" for n in range(2)))
    assert [s.fields["png"] for s in all_of(piped, tmp_path / "work-pipe")[0]] == [s.fields["png"] for s in here]
    assert not [path for path in tmp_path.glob("work*/**/*") if path.suffix == ".tar"]


def test_a_table_without_keys_or_damaged_is_named(tmp_path):
    img2dataset(tmp_path)
    source = webdataset(tmp_path, "00000.tar", key_column="uid")
    source.plan(tmp_path / "work")
    with pytest.raises(
        DataError, match=r"00000\.parquet: no column uid .*there are key, url.*download.source.key_column"
    ):
        list(source.pairs(0, tmp_path / "work"))
    put(tmp_path, {"00000.parquet": "PAR1"})
    with pytest.raises(DataError, match=r"00000\.parquet: not a readable parquet file"):
        all_of(webdataset(tmp_path, "00000.tar"), tmp_path / "again")


@pytest.mark.parametrize("files", [{}, {"manifest.json": "{}"}])
def test_a_folder_without_shards_is_named(tmp_path, files):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder.*(no tar, and no folder with tars|no manifest of shards)"):
        webdataset(put(tmp_path / "folder", files).parent, "folder").plan(tmp_path / "work")


def test_the_fingerprint_follows_shards_tables_and_settings(tmp_path):
    img2dataset(tmp_path)
    found = [webdataset(tmp_path, "*.tar").fingerprint() for _ in range(2)]
    assert found[0] == found[1]
    found.append(webdataset(tmp_path, "*.tar", captions=("caption",)).fingerprint())
    found.append(webdataset(tmp_path, "*.tar", metadata_columns=["a"]).fingerprint())
    img2dataset(tmp_path, bad=1)
    found.append(webdataset(tmp_path, "*.tar").fingerprint())
    shutil.copy(tmp_path / "00000.tar", tmp_path / "00001.tar")
    found.append(webdataset(tmp_path, "*.tar").fingerprint())
    assert len(set(found[1:])) == 5


def test_shards_on_a_server_are_looked_up_together_and_told_in_order(tmp_path, monkeypatch):
    asking, most, lock = 0, 0, threading.Lock()

    def answer(path: str) -> bytes | int:
        nonlocal asking, most
        with lock:
            asking += 1
            most = max(most, asking)
        time.sleep(0.02)
        with lock:
            asking -= 1
        return path.encode() if path.endswith(".tar") else 404

    with serve(answer) as (address, asked):
        source = webdataset(tmp_path, f"{address}/{{0..19}}.tar")
        together = source.fingerprint()
        assert asked.count("/manifest.json") == 1 and len(asked) <= 1 + 2 * 20
        assert 4 <= most <= webdataset_module.LOOKS_AT_ONCE
        monkeypatch.setattr(webdataset_module, "LOOKS_AT_ONCE", 1)
        assert source.fingerprint() == together
        assert webdataset(tmp_path, f"{address}/{{19..0}}.tar").fingerprint() != together


def test_our_shards_in_an_archive_are_known_too(tmp_path):
    shutil.make_archive(str(tmp_path / "ours"), "zip", our_shards(tmp_path / "ours"))
    for number, shards in enumerate([f"zip://*.tar::{tmp_path}/ours.zip", f"zip://00000.tar::{tmp_path}/ours.zip"]):
        samples, _ = all_of(webdataset(tmp_path, shards), tmp_path / f"work-{number}")
        assert {tuple(sample.captions) for sample in samples} == {("one", "two")}
