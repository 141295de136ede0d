from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander

from stylegan_t.data.found import INDEXED
from stylegan_t.data.index import index_path
from stylegan_t.data.shards import READ_THROUGH, Shards, pack, shard_name, write_manifest, write_shard
from stylegan_t.data.tars import index_shard, scan, split_name
from stylegan_t.errors import DataError
from tests.tars import picture, sample, write_tar

LONG = "folder with a name/" * 9 + "of_more_than_a_hundred_characters"
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def by_webdataset(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    with path.open("rb") as stream:
        rows = list(group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])))
    return [(row["__key__"], {ext: data for ext, data in row.items() if not ext.startswith("__")}) for row in rows]


def members(tar_format: int) -> list[tuple[str, bytes]]:
    """Names that take tools apart differently, and members that are no part of a sample."""
    return [
        ("__manifest__/facts.json", b"{}"),
        *sample("000000000"),
        *sample("a/b.c/000000001"),
        ("./dotted/key.seg.PNG", picture(1)),
        ("./dotted/key.seg.Json", b"{}"),
        (".hidden", b"x"),
        ("README", b"x"),
        ("folder.with.dots/README", b"x"),
        ("ä ü.txt", "grüße".encode()),
        ("empty.txt", b""),
        ("full-block.bin", b"x" * 512),
        *([] if tar_format == tarfile.USTAR_FORMAT else sample(LONG)),
    ]


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_an_indexed_tar_gives_by_number_what_webdataset_gives_in_turn(tmp_path, tar_format):
    for number in range(2):
        write_tar(tmp_path / shard_name(number), members(tar_format)[number * 4 :], tar_format)
    write_manifest(tmp_path, INDEXED, [index_shard(tmp_path / shard_name(n), hashed=bool(n)) for n in range(2)])
    expected = by_webdataset(tmp_path / shard_name(0)) + by_webdataset(tmp_path / shard_name(1))
    shards = Shards(tmp_path)
    assert [(s.key, s.fields) for s in shards] == expected
    assert [shards[n].key for n in (5, 0)] == [expected[n][0] for n in (5, 0)]


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "a.b.png",
        "a/b.c/d.e",
        "a.b/c",
        "a",
        ".a",
        "a.",
        "/a.b",
        "./a.b",
        "a//b.c",
        "..",
        "../a.b",
        "",
        ".",
    ],
)
def test_names_are_taken_apart_as_webdataset_does(name):
    assert (split_name(name) or (None, None)) == base_plus_ext(name)


def test_hidden_files_are_no_samples(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("._k.png", b"of a Mac"), ("f/._k.png", b"of a Mac"), *sample("f/k")])
    assert {member.key for member in scan(path).members} == {"f/k"}


def test_our_own_shards_are_indexed_by_their_headers_as_they_were_when_written(tmp_path):
    samples = [pack(f"{'x' * 60 * n}{n}", "png", picture(n, width=n + 1), [f"ä {n}"], {}) for n in range(5)]
    entry = write_shard(tmp_path / shard_name(0), samples)
    index = index_path(tmp_path / shard_name(0))
    written = index.read_bytes()
    index.unlink()
    assert index_shard(tmp_path / shard_name(0), hashed=True) == entry
    assert index.read_bytes() == written


def test_hashes_are_null_unless_they_are_asked_for(tmp_path):
    path = write_tar(tmp_path / "a.tar", sample("k"))
    assert index_shard(path, hashed=False)["sha256"] is None
    assert pq.read_table(index_path(path))["sha256"].null_count == 3
    assert index_shard(path, hashed=True)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    hashes = [hashlib.sha256(data).digest() for _, data in sample("k")]
    assert pq.read_table(index_path(path))["sha256"].to_pylist() == hashes


@pytest.mark.parametrize("size", [10, 100_000])
def test_members_of_a_sample_that_lie_apart_come_together_without_what_lies_between(tmp_path, monkeypatch, size):
    pictures = [(f"{key}.png", bytes([n]) * size) for n, key in enumerate("abcd")]
    captions = [(f"{key}.txt", key.encode()) for key in "dbca"]
    write_manifest(tmp_path, INDEXED, [index_shard(write_tar(tmp_path / "x.tar", pictures + captions), hashed=False)])
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda file, count, at: read.append(count) or pread(file, count, at))
    assert [(s.key, s.fields) for s in Shards(tmp_path)] == [
        (key, {"png": bytes([n]) * size, "txt": key.encode()}) for n, key in enumerate("abcd")
    ]
    assert len(read) == (4 if size == 10 else 7), "at once where little lies between, as between those of d"
    assert sum(read) < 4 * size + 4 * 2 * READ_THROUGH


def test_a_name_that_is_there_twice_is_a_problem_and_no_index_is_written(tmp_path):
    path = write_tar(tmp_path / "a.tar", [*sample("k"), *sample("l"), ("k.PNG", b"2")])
    assert scan(path).problems == ["k.png is there twice, at bytes 512 and 6656"]
    with pytest.raises(DataError, match=r"a\.tar: k\.png is there twice"):
        index_shard(path, hashed=False)
    assert not index_path(path).exists()


def test_a_missing_tar_is_named_with_the_cure(tmp_path):
    with pytest.raises(
        DataError, match=rf"a\.tar: missing; put it there, or `stylegan-t data index {tmp_path}` without"
    ):
        index_shard(tmp_path / "a.tar", hashed=False)


def test_a_tar_cut_at_any_byte_is_noticed_and_its_whole_samples_are_counted(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", [m for n in range(4) for m in sample(f"s{n}", n)])
    data, found = whole.read_bytes(), scan(whole)
    ends = [member.offset + -(-member.size // 512) * 512 for member in found.members[2::3]]
    path = tmp_path / "cut.tar"
    for length in range(1, ends[-1] + 1, 128):
        path.write_bytes(data[:length])
        cut = scan(path)
        assert len(cut.problems) == 1, length
        sure = sum(end < length for end in ends)
        assert cut.num_samples in (sure, sure - 1)
        if length >= 512:
            assert cut.problems[0].startswith(f"truncated at byte {length}")
            assert cut.problems[0].endswith(f"whole samples before that: {cut.num_samples}")
        assert cut.members == found.members[: 3 * cut.num_samples]
    path.write_bytes(data[: ends[-1] + 512])  # one of the two blocks that end a tar
    assert scan(path).problems == []


def test_a_cut_within_a_long_name_is_noticed(tmp_path):
    path = write_tar(tmp_path / "a.tar", [*sample("k"), *sample(LONG)], tarfile.PAX_FORMAT)
    data = path.read_bytes()
    start = data.index(LONG.encode()) // 512 * 512 - 512  # the header of the long name
    for length in range(start, start + 3 * 512, 100):
        path.write_bytes(data[:length])
        assert [p.split(" ")[0] for p in scan(path).problems] == ["truncated"], length


def test_a_damaged_header_hides_no_samples_silently(tmp_path):
    path = write_tar(tmp_path / "a.tar", [m for n in range(3) for m in sample(f"s{n}", n)])
    data, header = bytearray(path.read_bytes()), scan(path).members[4].offset - 512
    data[header + 3] ^= 1
    path.write_bytes(data)
    assert scan(path).problems == [f"the header at byte {header} is damaged; whole samples before that: 1"]


def test_headers_that_lead_back_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", sample("k"))
    data = bytearray(path.read_bytes())
    data[124:136] = (-(2**20)).to_bytes(12, "big", signed=True)  # a size that no tar has
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    assert "damaged" in scan(path).problems[0]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no tar: it is empty"),
        (b"<html>Not found</html>", "no tar: it begins with b'<html>Not found<'"),
        (b"x" * 2000, "no tar: it begins with b'xxxxxxxxxxxxxxxx'"),
        (
            gzip.compress(b"tar", mtime=0),
            "packed with gzip: unpack it, for no sample in it can be reached without those before",
        ),
        (bytes(10240), "holds no samples (files named KEY.EXTENSION)"),
    ],
)
def test_what_is_no_tar_of_samples_is_told(tmp_path, data: bytes, problem: str):
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    found: Any = scan(path)
    assert (found.problems, found.members) == ([problem], [])
