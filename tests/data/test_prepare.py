from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylegan_t.data.prepare import PAIRS_FILE, SHARDS_FILE, new_keys, read_plan, write_plan
from stylegan_t.data.rules.split import key_hashes
from stylegan_t.data.shards import shard_name

RNG = np.random.default_rng(0)
NUM_PAIRS = 500
NUM_CAPTIONS = RNG.integers(1, 5, NUM_PAIRS)
STARTS = np.concatenate([[0], NUM_CAPTIONS.cumsum()])
CAPTION_KEPT = RNG.random(int(STARTS[-1])) < 0.7
SOME_KEPT = np.array([CAPTION_KEPT[a:b].any() for a, b in zip(STARTS[:-1], STARTS[1:], strict=True)])
KEPT = SOME_KEPT & (RNG.random(NUM_PAIRS) < 0.8)
HELDOUT = RNG.random(NUM_PAIRS) < 0.2
DATASET = RNG.integers(0, 3, NUM_PAIRS)
NEW = {7: "a key", 70: "another"}


def planned(folder, datasets=("a", "b", "c"), dataset=DATASET):
    shards = write_plan(folder, KEPT, HELDOUT, dataset, list(datasets), STARTS, CAPTION_KEPT, NEW, samples_per_shard=40)
    assert read_plan(folder) == shards
    with pq.ParquetFile(folder / PAIRS_FILE) as file:
        assert file.num_row_groups == len(shards)
        return shards, [file.read_row_group(number).to_pydict() for number in range(len(shards))]


def test_every_kept_pair_is_in_one_shard_of_its_split_and_dataset_in_the_raw_order(tmp_path):
    shards, pairs = planned(tmp_path)
    assert sorted(pair for group in pairs for pair in group["pair"]) == np.flatnonzero(KEPT).tolist()
    for shard, group in zip(shards, pairs, strict=True):
        mine = np.array(group["pair"])
        assert (np.diff(mine) > 0).all()
        assert set(HELDOUT[mine]) == {shard["split"] == "heldout"}
        assert {"abc"[number] for number in DATASET[mine]} == {shard["dataset"]}
        assert shard["num_samples"] == len(mine) <= 40
    for split in ("train", "heldout"):
        mine = [shard for shard in shards if shard["split"] == split]
        assert [shard["file"] for shard in mine] == [shard_name(number) for number in range(len(mine))]
        assert [shard["dataset"] for shard in mine] == sorted(shard["dataset"] for shard in mine)
    small = [n for n, shard in enumerate(shards) if shard["num_samples"] < 40]
    assert len(small) <= 2 * 3, "only the last of a split and dataset"


def test_the_captions_that_stay_are_named_by_their_place(tmp_path):
    shards, pairs = planned(tmp_path)
    for shard, group in zip(shards, pairs, strict=True):
        for pair, places in zip(group["pair"], group["captions"], strict=True):
            assert places == np.flatnonzero(CAPTION_KEPT[STARTS[pair] : STARTS[pair + 1]]).tolist() != []
        assert shard["num_captions"] == sum(map(len, group["captions"]))


def test_new_keys_stand_beside_their_pairs(tmp_path):
    _, pairs = planned(tmp_path)
    told = {pair: key for group in pairs for pair, key in zip(group["pair"], group["key"], strict=True) if key}
    assert told == {pair: key for pair, key in NEW.items() if KEPT[pair]} != {}


def test_repeated_keys_get_the_number_of_their_shard_or_what_nobody_has():
    keys = ["a", "b", "a", "c", "a-00001", "b", "a"]
    found = new_keys(pa.array(keys, pa.large_string()), key_hashes(keys), [2, 3, 2])
    assert found == {2: "a-00001-", 5: "b-00002", 6: "a-00002"}
    assert new_keys(pa.array([], pa.large_string()), key_hashes([]), []) == {}


def test_one_dataset_has_no_name(tmp_path):
    shards, _ = planned(tmp_path, [None], np.zeros(NUM_PAIRS, np.int64))
    assert all("dataset" not in shard for shard in shards)


def test_a_plan_that_was_cut_short_is_none(tmp_path):
    planned(tmp_path)
    (tmp_path / SHARDS_FILE).unlink()
    with pytest.raises(FileNotFoundError):
        read_plan(tmp_path)
