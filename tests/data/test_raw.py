from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from stylegan_t.data.raw import stats, write_raw_shard
from stylegan_t.data.shards import Sample, Shards, Skipped, pack, write_manifest

PAIRS = [
    pack("a", "png", b"A", ["one", "two"], {"url": "u1", "width": 8, "height": 6, "score": 0.5, "tags": ["ä"]}),
    Skipped("b", "http_404", {"url": "u2", "captions": None, "score": 1}, ["c\nd", "e"]),
    Skipped("c", "missing_url", {}),
    pack("d", "jpg", b"D", ["three"], {"width": "wide", "height": 2**40, "url": None}),
]


def test_every_candidate_has_a_row_and_every_sample_its_place_in_the_tar(tmp_path):
    entry, states = write_raw_shard(tmp_path, 7, PAIRS)
    write_manifest(tmp_path, "raw", [entry])
    assert list(Shards(tmp_path)) == [PAIRS[0], PAIRS[3]]
    assert pq.read_table(tmp_path / "00007.parquet").to_pylist() == [
        {"key": "a", "status": "success", "caption": "one\ntwo", "url": "u1", "width": 8, "height": 6,
         "metadata": '{"score": 0.5, "tags": ["ä"]}'},
        {"key": "b", "status": "http_404", "caption": "c d\ne", "url": "u2", "width": None, "height": None,
         "metadata": '{"captions": null, "score": 1}'},
        {"key": "c", "status": "missing_url", "caption": None, "url": None, "width": None, "height": None,
         "metadata": None},
        {"key": "d", "status": "success", "caption": "three", "url": None, "width": None, "height": None,
         "metadata": '{"height": 1099511627776, "url": null, "width": "wide"}'},
    ]  # fmt: skip
    assert states == {"success": 2, "http_404": 1, "missing_url": 1}
    assert json.loads((tmp_path / "00007_stats.json").read_text()) == stats(states)


def test_counts_are_told_apart_as_img2dataset_does_and_add_up():
    states = Counter({"success": 5, "http_404": 4, "timeout_read": 3, "undecodable": 2, "missing_caption": 1})
    assert stats(states) == {
        "count": 15, "successes": 5, "failed_to_download": 7, "failed_to_resize": 2, "status_dict": dict(states),
    }  # fmt: skip
    assert sum(stats(states)["status_dict"].values()) == 15
    assert stats(Counter()) == {
        "count": 0, "successes": 0, "failed_to_download": 0, "failed_to_resize": 0, "status_dict": {},
    }  # fmt: skip


def test_the_same_pairs_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_raw_shard(tmp_path / name, 0, PAIRS)
    names = [path.name for path in (tmp_path / "a").iterdir()]
    assert sorted(names) == ["00000.index.parquet", "00000.parquet", "00000.tar", "00000_stats.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_a_shard_that_was_not_finished_leaves_none_of_its_files(tmp_path):
    def broken() -> Iterator[Sample | Skipped]:
        yield from PAIRS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_raw_shard(tmp_path, 0, broken())
    assert list(tmp_path.iterdir()) == []


def test_one_pair_is_in_memory_at_a_time(tmp_path):
    def pairs() -> Iterator[Sample | Skipped]:
        for number in range(3000):
            yield pack(f"{number}", "png", bytes(20_000), ["caption"], {"n": number})

    tracemalloc.start()
    write_raw_shard(tmp_path, 0, pairs())
    assert tracemalloc.get_traced_memory()[1] < 15_000_000, "60 MB were written"
    tracemalloc.stop()
    assert pq.read_metadata(tmp_path / "00000.parquet").num_row_groups == 3, "rows are written by the thousand"
