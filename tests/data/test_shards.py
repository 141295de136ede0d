from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from webdataset.tariterators import group_by_keys, tar_file_expander

from stylegan_t.data import shards as module
from stylegan_t.data.index import index_path, read_index
from stylegan_t.data.shards import (
    MANIFEST,
    Sample,
    Shards,
    npy,
    pack,
    read_manifest,
    shard_name,
    write_manifest,
    write_shard,
    write_shards,
)
from stylegan_t.errors import DataError
from stylegan_t.stages.workspace import Workspace
from tests.imports import ROOT

KINDS = {"raw": "download", "prepared": "filter"}


def made(count: int) -> list[Sample]:
    """Samples of every size class of tar padding, one with a key that no plain tar header can hold."""
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            f"sample-{n:03d}" + "x" * (200 if n == 3 else 0),
            {
                "png": rng.bytes(int(rng.integers(1, 1500)) if n % 4 else 512),
                "txt": f"caption ä {n}".encode(),
                "json": f'{{"number": {n}}}'.encode(),
            }
            | ({"npy": npy(np.full((1, 3), n, np.float16))} if n % 2 else {}),
        )
        for n in range(count)
    ]
    samples[0].fields["txt"] = b""
    return samples


def folder_of(path: Path, samples: list[Sample], kind: str = "raw", per_shard: int = 4) -> Path:
    write_manifest(path, kind, write_shards(path, samples, per_shard), note="kept")
    return path


def test_every_sample_comes_back_with_every_byte_from_any_position(tmp_path):
    samples = made(11)
    shards = Shards(folder_of(tmp_path, samples))
    assert len(shards) == 11 and shards.shard_sizes == [4, 4, 3] and shards.manifest["note"] == "kept"
    assert [shards[n] for n in (10, 0, 7, 3)] == [samples[n] for n in (10, 0, 7, 3)]
    assert list(shards) == samples
    assert [list(shards.shard_range(s)) for s in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_webdataset_reads_the_tars(tmp_path):
    samples = made(5)
    folder_of(tmp_path, samples, per_shard=5)
    with (tmp_path / shard_name(0)).open("rb") as stream:
        read = list(group_by_keys(tar_file_expander([{"url": "shard", "stream": stream}])))
    assert [{k: v for k, v in row.items() if not k.startswith("__")} for row in read] == [s.fields for s in samples]
    assert [row["__key__"] for row in read] == [s.key for s in samples]


def test_a_sample_names_its_parts():
    sample = made(2)[1]
    assert sample.image == sample.fields["png"] and sample.caption == "caption ä 1"
    assert sample.metadata == {"number": 1} and sample.c.tolist() == [[1, 1, 1]]


def test_captions_are_lines_of_even_white_space_without_the_empty_ones():
    sample = pack("k", "png", b"", ["a  cat\n asleep ", " \t", "ein Kätzchen"], {"z": 1, "ä": None})
    assert sample.captions == ["a cat asleep", "ein Kätzchen"] and sample.caption == "a cat asleep"
    assert sample.metadata == {"z": 1, "ä": None}
    with pytest.raises(ValueError, match="sample k: no caption"):
        pack("k", "png", b"", [" "], {})


def test_the_same_samples_make_the_same_bytes(tmp_path):
    first, second = (folder_of(tmp_path / name, made(9)) for name in ("a", "b"))
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_a_key_that_comes_twice_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"00000\.tar: two samples of the key 'sample-001'"):
        write_shard(tmp_path / shard_name(0), [*made(3), made(2)[1]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [-1, 11])
def test_a_number_beyond_the_samples_is_an_index_error(tmp_path, number):
    with pytest.raises(IndexError, match=f"sample {number} of 11"):
        Shards(folder_of(tmp_path, made(11)))[number]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_what_the_parent_reads(tmp_path, start):
    shards = Shards(folder_of(tmp_path, made(6)))
    parent = [shards[n] for n in range(6)]  # opens the files before the fork
    with multiprocessing.get_context(start).Pool(1) as pool:
        assert pool.map(shards.__getitem__, range(6)) == parent


def test_a_pickled_reader_opens_the_files_anew(tmp_path):
    shards = Shards(folder_of(tmp_path, made(6)))
    first = shards[0]
    copy = pickle.loads(pickle.dumps(shards))
    del shards
    assert copy[0] == first


@pytest.mark.parametrize(("kind", "stage"), KINDS.items())
def test_a_truncated_shard_is_named_with_the_stage_that_makes_it_anew(tmp_path, kind, stage):
    shard = folder_of(tmp_path, made(6), kind) / shard_name(1)
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DataError, match=rf"00001\.tar: damaged: 700 bytes.*stylegan-t run {stage}"):
        Shards(tmp_path)


def test_a_shard_that_shrinks_while_it_is_open_is_damaged(tmp_path):
    shards = Shards(folder_of(tmp_path, made(3)))
    (tmp_path / shard_name(0)).write_bytes(b"")
    with pytest.raises(DataError, match="truncated"):
        shards[2]


@pytest.mark.parametrize("missing", [Path(shard_name(0)), index_path(Path(shard_name(0)))])
def test_a_missing_file_is_named(tmp_path, missing):
    (folder_of(tmp_path, made(3)) / missing).unlink()
    with pytest.raises(DataError, match=f"{missing}: listed in manifest.json, but missing"):
        Shards(tmp_path)


@pytest.mark.parametrize("table", [pa.table({"key": ["a"]}), pa.table({"key": ["a"], "ext": ["b"]}), b"PAR1", None])
def test_an_unreadable_index_is_named(tmp_path, table):
    path = index_path(folder_of(tmp_path, made(3)) / shard_name(0))
    shards = Shards(tmp_path)
    if isinstance(table, pa.Table):
        pq.write_table(table, path)
    elif table is not None:
        path.write_bytes(table)
    else:
        path.unlink()  # after it was opened
    with pytest.raises(DataError, match=rf"{path.name}: not a readable index .*stylegan-t run download"):
        shards[0]


def test_an_index_of_other_samples_is_found(tmp_path):
    folder = folder_of(tmp_path, made(6), per_shard=4)
    index_path(folder / shard_name(1)).replace(index_path(folder / shard_name(0)))
    folder_of(tmp_path / "other", made(6), per_shard=4)
    index_path(tmp_path / "other" / shard_name(1)).replace(index_path(folder / shard_name(1)))
    with pytest.raises(DataError, match="its index lists 2 samples, the manifest 4"):
        Shards(tmp_path)[0]


def test_an_index_of_as_many_samples_of_another_tar_is_found(tmp_path):
    folder, other = folder_of(tmp_path / "a", made(4)), folder_of(tmp_path / "b", made(8)[4:])
    index_path(other / shard_name(0)).replace(index_path(folder / shard_name(0)))
    with pytest.raises(DataError, match=r"00000\.tar: damaged: its index is of a tar of \d+ bytes, not"):
        Shards(folder)[0]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_verify_names_the_member_in_which_a_single_byte_changed(tmp_path):
    shard = folder_of(tmp_path, made(6)) / shard_name(1)
    shards = Shards(tmp_path)
    shards.verify()
    position = shard.read_bytes().index(shards[5].fields["txt"])
    flip(shard, position)
    with pytest.raises(DataError, match=r"00001\.tar: damaged: .*sha256 differs\): sample-005\.txt; make it anew"):
        shards.verify()


def test_verify_finds_a_changed_byte_between_the_members(tmp_path):
    shard = folder_of(tmp_path, made(6)) / shard_name(1)
    flip(shard, 140)  # a header's date
    with pytest.raises(DataError, match="sha256 differs.: nothing but what lies between its members"):
        Shards(tmp_path).verify()


def test_the_index_tells_key_extension_place_and_hash_of_every_member(tmp_path):
    samples = made(5)
    shard = folder_of(tmp_path, samples, per_shard=5) / shard_name(0)
    rows = pq.read_table(index_path(shard)).to_pylist()
    data = shard.read_bytes()
    expected = [(s.key, ext, field) for s in samples for ext, field in sorted(s.fields.items())]
    assert [(r["key"], r["ext"], data[r["offset"] :][: r["size"]]) for r in rows] == expected
    assert [r["sha256"] for r in rows] == [hashlib.sha256(field).digest() for _, _, field in expected]


def test_keys_are_those_of_the_samples_in_order_and_tell_their_numbers(tmp_path):
    samples = made(11)
    keys = Shards(folder_of(tmp_path, samples)).keys
    assert list(keys) == [s.key for s in samples] == [keys[n] for n in range(len(keys))]
    assert keys.index(samples[9].key) == 9
    with pytest.raises(ValueError, match="no sample 'nobody'"):
        keys.index("nobody")


def test_opening_reads_no_index_and_a_sample_reads_that_of_its_shard(tmp_path, monkeypatch):
    folder_of(tmp_path, made(11))
    read: list[str] = []
    monkeypatch.setattr(module, "read_index", lambda path: read.append(path.name) or read_index(path))
    shards = Shards(tmp_path)
    assert read == []
    assert shards[9].key == shards[8].key.replace("8", "9") and read == [shard_name(2)]


def test_more_shards_are_read_than_may_be_open(tmp_path, monkeypatch):
    samples = made(11)
    monkeypatch.setattr(module, "OPEN_SHARDS", 2)
    shards = Shards(folder_of(tmp_path, samples, per_shard=1))
    before = len(os.listdir("/proc/self/fd"))
    assert [shards[n] for n in (0, 5, 10, 0, 5, 10)] == [samples[n] for n in (0, 5, 10, 0, 5, 10)]
    assert list(shards) == samples
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_threads_share_a_reader_though_shards_close_under_their_hands(tmp_path, monkeypatch):
    samples = made(12)
    monkeypatch.setattr(module, "OPEN_SHARDS", 1)
    shards = Shards(folder_of(tmp_path, samples, per_shard=1))
    numbers = np.random.default_rng(0).integers(0, 12, 2000).tolist()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(shards.__getitem__, numbers)) == [samples[n] for n in numbers]


@pytest.mark.parametrize(("stage", "folder"), [("download", "data/raw"), ("filter", "data/prepared")])
def test_dvc_keeps_the_folder_that_holds_manifest_and_shards(stage, folder):
    outs = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["outs"]
    assert folder in outs  # without options such as cache: false
    assert getattr(Workspace(Path()), folder.split("/")[1]) == Path(folder)


@pytest.mark.parametrize(("text", "match"), [(None, "missing"), ("{", "not readable"), ("[]", "no manifest of shards")])
def test_a_folder_without_a_manifest_is_incomplete(tmp_path, text, match):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=rf"manifest\.json: .*{match}.*dvc repro"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"num_bytes": None}, "num_bytes = None"), ({"file": 1}, "file = 1"), ({"sha256": 1}, "sha256 = 1")],
)
def test_what_a_manifest_says_of_a_shard_is_of_the_right_kind(tmp_path, change, match):
    manifest = read_manifest(folder_of(tmp_path, made(5)))
    manifest["shards"][1] |= change
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        DataError, match=rf"manifest\.json: incomplete: entry 1 of its shards has {match}; make it anew"
    ):
        Shards(tmp_path)
