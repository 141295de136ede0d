from __future__ import annotations

import io
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from stylegan_t.data.shards import (
    MANIFEST,
    Sample,
    Shards,
    index_path,
    read_manifest,
    shard_name,
    write_manifest,
    write_shards,
)
from stylegan_t.errors import DataError

KINDS = {"raw": "download", "prepared": "filter"}


def npy(value: float) -> bytes:
    out = io.BytesIO()
    np.save(out, np.full(3, value, np.float16))
    return out.getvalue()


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
            | ({"npy": npy(n)} if n % 2 else {}),
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
    assert sample.metadata == {"number": 1} and sample.c.tolist() == [1, 1, 1]


def test_the_same_samples_make_the_same_bytes(tmp_path):
    first, second = (folder_of(tmp_path / name, made(9)) for name in ("a", "b"))
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


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


def test_an_unreadable_index_is_named(tmp_path):
    index_path(folder_of(tmp_path, made(3)) / shard_name(0)).write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="not a readable index"):
        Shards(tmp_path)


def test_an_index_of_other_samples_is_found(tmp_path):
    folder = folder_of(tmp_path, made(6), per_shard=4)
    index_path(folder / shard_name(1)).replace(index_path(folder / shard_name(0)))
    folder_of(tmp_path / "other", made(6), per_shard=4)
    index_path(tmp_path / "other" / shard_name(1)).replace(index_path(folder / shard_name(1)))
    with pytest.raises(DataError, match="its index lists 2 samples, the manifest 4"):
        Shards(tmp_path)


def test_verify_finds_a_single_changed_byte(tmp_path):
    shard = folder_of(tmp_path, made(6)) / shard_name(1)
    shards = Shards(tmp_path)
    shards.verify()
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"00001\.tar.*sha256"):
        shards.verify()


@pytest.mark.parametrize(("text", "match"), [(None, "missing"), ("{", "not readable"), ("[]", "no manifest of shards")])
def test_a_folder_without_a_manifest_is_incomplete(tmp_path, text, match):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=rf"manifest\.json: .*{match}.*dvc repro"):
        read_manifest(tmp_path)
