"""Prepared shards: which kept pairs go into which, and how one is made from raw shards and score tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64, UInt64

from stylegan_t.data.images import EXTENSION, UndecodableImage, decode, encode, square
from stylegan_t.data.rules.split import key_hashes
from stylegan_t.data.scores import Scores, flat, vectors
from stylegan_t.data.shards import Sample, Shards, npy, pack, shard_name, write_shard
from stylegan_t.errors import DataError
from stylegan_t.files import atomic, write_json

SPLITS = ("train", "heldout")
SHARDS_FILE, PAIRS_FILE = "shards.json", "pairs.parquet"


def write_plan(
    folder: Path,
    kept: Bool[np.ndarray, " n"],
    heldout: Bool[np.ndarray, " n"],
    dataset: Int64[np.ndarray, " n"],
    datasets: Sequence[str | None],
    caption_starts: Int64[np.ndarray, " n_plus_1"],
    caption_kept: Bool[np.ndarray, " m"],
    keys: Mapping[int, str],
    samples_per_shard: int,
) -> list[dict[str, Any]]:
    """Share the kept pairs out to prepared shards, and write down which go where; ``shards.json`` is written last.

    The pairs of a shard are of one split and one dataset, and in the order of the raw ones. ``pairs.parquet`` has a row
    group for each shard: the number of each pair, its new key if it gets one, and which of its captions stay.

    Args:
        folder: Where to.
        kept: Which pairs stay.
        heldout: Which of them are for measuring.
        dataset: Number of each pair's dataset.
        datasets: Their names; None = there is but one.
        caption_starts: Where the captions of each pair begin among all, and how many there are.
        caption_kept: Which captions stay.
        keys: Of the pairs that get another one; see ``new_keys``.
        samples_per_shard: At most.
    """
    shards: list[dict[str, Any]] = []
    with atomic(folder / PAIRS_FILE) as temporary:
        schema = pa.schema([("pair", pa.int64()), ("key", pa.string()), ("captions", pa.list_(pa.int32()))])
        with pq.ParquetWriter(temporary, schema) as writer:
            for split, side in zip(SPLITS, (~heldout, heldout), strict=True):
                count = 0
                for number, name in enumerate(datasets):
                    pairs = np.flatnonzero(kept & side & (dataset == number))
                    for start in range(0, len(pairs), samples_per_shard):
                        mine = pairs[start : start + samples_per_shard]
                        captions = _places(mine, caption_starts, caption_kept)
                        new = pa.array([keys.get(pair) for pair in mine.tolist()], pa.string())
                        writer.write_table(pa.table([mine, new, captions], schema=schema), row_group_size=len(mine))
                        facts = {"num_samples": len(mine), "num_captions": len(captions.values)}
                        of_dataset = {} if name is None else {"dataset": name}
                        shards.append({"split": split, "file": shard_name(count), **facts, **of_dataset})
                        count += 1
    write_json(folder / SHARDS_FILE, shards)
    return shards


def new_keys(keys: pa.LargeStringArray, hashes: UInt64[np.ndarray, " n"], shard_sizes: Sequence[int]) -> dict[int, str]:
    """For each pair whose key an earlier one has, a key that none has: with the number of its raw shard behind it.

    Raw keys are unique within a shard only: those of foreign tars often begin anew in each.

    Args:
        keys: Of all pairs.
        hashes: Of the keys, 64 bits.
        shard_sizes: Pairs in each raw shard.
    """
    known, first = np.unique(hashes, return_index=True)
    repeated = np.setdiff1d(np.arange(len(hashes)), first, assume_unique=True)
    shards = np.searchsorted(np.cumsum(shard_sizes), repeated, side="right")

    def taken(key: str) -> bool:
        (hash_of_key,) = key_hashes([key])
        return bool(known[min(int(np.searchsorted(known, hash_of_key)), len(known) - 1)] == hash_of_key)

    new: dict[int, str] = {}
    for pair, shard in zip(repeated.tolist(), shards.tolist(), strict=True):
        key = f"{keys[pair].as_py()}-{shard:05d}"
        while taken(key):
            key += "-"
        new[pair] = key
    return new


def read_plan(folder: Path) -> list[dict[str, Any]]:
    """What ``write_plan`` returned. Raises FileNotFoundError where it has not come to its end."""
    return json.loads((folder / SHARDS_FILE).read_text())


def _places(
    pairs: Int64[np.ndarray, " k"], starts: Int64[np.ndarray, " n_plus_1"], kept: Bool[np.ndarray, " m"]
) -> pa.ListArray:
    """For each of the pairs, the places of those of its captions that stay."""
    counts = starts[pairs + 1] - starts[pairs]
    ends = counts.cumsum()
    place = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    stays = kept[np.repeat(starts[pairs], counts) + place]
    before = np.concatenate([np.zeros(1, np.int64), stays.cumsum()])
    offsets = before[np.concatenate([np.zeros(1, np.int64), ends])]
    return pa.ListArray.from_arrays(offsets.astype(np.int32), place[stays].astype(np.int32))


@dataclass(frozen=True)
class PrepareShard:
    """Makes a prepared shard; see ``run_parts``.

    Attributes:
        plan: Folder of ``write_plan``.
        folder: Where to.
        raw: Folder of the raw shards.
        scores: Their score tables.
        image_px: Side of the stored pictures.
        image_format: See ``encode``.
    """

    plan: Path
    folder: Path
    raw: Path
    scores: Scores
    image_px: int
    image_format: str

    def __call__(self, number: int) -> dict[str, Any]:
        """Write shard ``number`` of the plan and its index; returns the manifest's entry for it."""
        planned = dict(self._shards[number])
        path = self.folder / planned.pop("split") / planned["file"]
        return planned | write_shard(path, self._samples(number, planned.get("dataset")))

    def _samples(self, number: int, dataset: str | None) -> Iterator[Sample]:
        with pq.ParquetFile(self.plan / PAIRS_FILE) as file:
            planned = file.read_row_group(number)
        pairs, keys, kept = planned["pair"].to_numpy(), planned["key"].to_pylist(), planned["captions"].to_pylist()
        shard_of = np.searchsorted(self._ends, pairs, side="right")
        of_dataset = {} if dataset is None else {"dataset": dataset}
        for shard in np.unique(shard_of).tolist():
            table = self.scores.read(["pixel_sha256", "text_embedding"], shard)
            starts, embeddings = flat(table["text_embedding"])
            c, first = vectors(embeddings), self._raw.shard_range(shard).start
            for at in np.flatnonzero(shard_of == shard).tolist():
                row = int(pairs[at]) - first
                facts = {"pixel_sha256": table["pixel_sha256"][row].as_py().hex()} | of_dataset
                raw = self._raw[int(pairs[at])]
                if keys[at] is not None:
                    facts |= {"original_key": raw.metadata.get("original_key", raw.key)}
                    raw = replace(raw, key=keys[at])
                yield self._sample(raw, kept[at], c[starts[row] + np.array(kept[at])], facts)

    def _sample(self, raw: Sample, captions: list[int], c: np.ndarray, facts: dict[str, str]) -> Sample:
        try:
            picture = square(decode(raw.image), self.image_px)
        except UndecodableImage as error:
            raise DataError(
                f"{self.raw}: sample {raw.key}: {error}, though it was when it was scored; look for damage with "
                f"`stylegan-t data verify {self.raw}`"
            ) from None
        image, said = encode(picture, self.image_format), raw.captions
        metadata = raw.metadata | facts
        return pack(raw.key, EXTENSION[self.image_format], image, [said[i] for i in captions], metadata, npy=npy(c))

    @cached_property
    def _shards(self) -> list[dict[str, Any]]:
        return read_plan(self.plan)

    @cached_property
    def _raw(self) -> Shards:
        return Shards(self.raw)

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " s"]:
        return np.cumsum(self._raw.shard_sizes)
