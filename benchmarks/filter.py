"""How fast the filter's rules are, on made-up score tables: ``python benchmarks/filter.py --help``.

Rows have keys, addresses and captions as long as those of the web. What is timed is all that the stage does until it
knows which pairs stay: it reads the tables and asks the rules. The last results are in benchmarks/filter.md and, for
the plan of benchmarks/scale.py, in benchmarks/rates.json.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import environment
from stylegan_t.data.rules.captions import CaptionRules
from stylegan_t.data.rules.duplicates import Likeness
from stylegan_t.data.rules.judge import Judgement, Rules, judge
from stylegan_t.data.rules.pictures import PictureRules, Threshold
from stylegan_t.data.scores import Scores, open_scores, score_schema, write_scores_manifest, write_table
from stylegan_t.files import write_json

RATES = Path(__file__).with_name("rates.json")
ROWS_PER_TABLE = 10_000
P_COPY, P_BROKEN = 0.1, 0.001
"""Shares of the rows that are copies of another one; and, where thresholds are timed, that do not decode."""
EMBED_DIM = 512
BITS_CHANGED, NOISE = 3, 0.15
"""How far a planted near-duplicate is off: bits of the hash at most, length of the noise on a unit embedding."""
WORDS = [
    "a", "an", "the", "of", "in", "on", "at", "with", "by", "and", "for", "from", "red", "blue", "black",
    "white", "vintage", "wooden", "small", "large", "beautiful", "modern", "dog", "cat", "horse", "house",
    "kitchen", "table", "chair", "street", "city", "beach", "mountain", "sunset", "flower", "garden", "woman",
    "man", "girl", "boy", "people", "portrait", "wedding", "dress", "bag", "shoes", "print", "poster", "logo",
    "vector", "design", "photo", "image", "stock", "free", "download", "new", "home", "room", "interior",
]  # fmt: skip
BOILERPLATE = (
    r"^(a |an |the )?(image|photo|picture|pic|untitled|unnamed|thumbnail|placeholder)( of)?\W*$",
    r"^(img|dsc[nf]?|pict?|image|photo|picture|screen ?shot)[ _-]?\d+\W*$",
    "shutterstock|istock|getty ?images|alamy|dreamstime|depositphotos|123rf|royalty[- ]free",
)
OFF = Likeness(same_pixels=False, max_distance=None, min_cosine=None)
LITE = Likeness(same_pixels=True, max_distance=4, min_cosine=0.96)
EXACT = 10**7
"""A cell that all rows fit into."""

app = typer.Typer(add_completion=False, help=__doc__)
Write = Annotated[bool, typer.Option("--write", help="put the numbers into rates.json for scale.py")]


@app.command()
def thresholds(rows: int = 1_000_000, write: Write = False) -> None:
    """Rules on one pair alone, a kept fraction, exact duplicates and the split."""
    with tempfile.TemporaryDirectory() as folder:
        scores, _ = made(Path(folder), rows, 8, near=False)
        before = peak_bytes()
        seconds, judgement = timed(scores, ALL_THRESHOLDS, Path(folder))
    where = environment(torch.device("cpu"))
    bytes_per_row = (peak_bytes() - before) / rows
    print(f"{where}.\n\n| rows | s | aim, s | bytes a row | kept |\n|---|---|---|---|---|")
    kept = int(judgement.verdicts.passing.sum())
    print(f"| {rows:,} | {seconds:.1f} | {rows / 1e5:.1f} | {bytes_per_row:,.0f} | {kept:,} |\n")
    print(", ".join(f"{reason} {count:,}" for reason, count in judgement.verdicts.count().items() if count))
    if write:
        what = "the filter's rules but near-duplicates, a million pairs"
        put_rate("filter_seconds_per_million", seconds * 1e6 / rows, "s", what, where)
        put_rate("filter_bytes_per_row", bytes_per_row, "bytes", "memory of the filter's rules, a pair", where)


@app.command()
def duplicates(rows: int = 100_000, write: Write = False) -> None:
    """Near-duplicates by 64-bit hashes and by embeddings, of which a tenth are planted copies."""
    where = environment(torch.device("cpu"))
    print(f"{where}.\n\n| measure | rows | s | aim, s | planted copies found | others dropped |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        scores, is_copy = made(Path(folder), rows, EMBED_DIM, near=True)
        for name, likeness, cell_size in (
            ("perceptual hash, 4 bits", OFF._replace(max_distance=4), EXACT),
            ("perceptual hash, 8 bits", OFF._replace(max_distance=8), EXACT),
            ("embedding, cosine 0.96, each with each", OFF._replace(min_cosine=0.96), EXACT),
            ("embedding, cosine 0.96, in cells of 10,000", OFF._replace(min_cosine=0.96), 10_000),
            ("all, as in profile lite", LITE, EXACT),
        ):
            seconds, judgement = timed(scores, alone(likeness, cell_size), Path(folder))
            dropped = ~judgement.verdicts.passing
            found, others = int((dropped & is_copy).sum()), int((dropped & ~is_copy).sum())
            line = f"| {name} | {rows:,} | {seconds:.1f} | {300 * (rows / 1e5) ** 2:.0f} | "
            print(f"{line}{found:,} of {int(is_copy.sum()):,} | {others:,} |", flush=True)
            if write and likeness is LITE:
                what = "near-duplicates by hash and embedding, 100,000 pairs, each with each"
                put_rate("near_seconds_per_100k", seconds * 1e5 / rows, "s", what, where)
            if write and likeness.min_cosine and not likeness.max_distance and cell_size == EXACT:
                what = f"cosines of {EMBED_DIM} numbers"
                put_rate("cosines_per_second", rows**2 / 2 / seconds, "cosines/s", what, where)


@app.command()
def heldout(rows: int = 100_000) -> None:
    """Decontamination: the pairs of the training against a fifth that is held out, by embeddings."""
    print(
        f"{environment(torch.device('cpu'))}.\n\n| pairs | held out | compared | s | too near |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        scores, _ = made(Path(folder), rows, EMBED_DIM, near=True)
        for name, cell_size in (("each with each", EXACT), ("in cells", 1)):
            near = OFF._replace(min_cosine=0.96)
            asked = replace(alone(OFF, cell_size), decontamination=near, p_heldout=0.2)
            seconds, judgement = timed(scores, asked, Path(folder))
            held = int(judgement.heldout.sum())
            found = judgement.verdicts.count()["contaminated"]
            print(f"| {rows - held:,} | {held:,} | {name} | {seconds:.1f} | {found:,} |", flush=True)


def made(folder: Path, num_rows: int, embed_dim: int, near: bool) -> tuple[Scores, np.ndarray]:
    """Score tables, made by another process so that this one's memory tells of the rules alone; who is a copy."""
    child = multiprocessing.get_context("spawn").Process(target=make_scores, args=(folder, num_rows, embed_dim, near))
    child.start()
    child.join()
    return open_scores(folder, "", ""), copies(num_rows)[1]


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10


def put_rate(name: str, value: float, unit: str, what: str, where: str) -> None:
    known = json.loads(RATES.read_text()) if RATES.exists() else {}
    rate = {"value": value, "unit": unit, "what": what, "from": f"benchmarks/filter.md ({where})"}
    write_json(RATES, known | {name: rate})


def copies(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Whose picture each row shows, and which rows show that of another one."""
    rng = np.random.default_rng(0)
    shown = np.arange(num_rows)
    is_copy = rng.random(num_rows) < P_COPY
    is_copy[: num_rows // 10] = False
    shown[is_copy] = rng.integers(0, num_rows // 10, int(is_copy.sum()))
    return shown, is_copy


def make_scores(folder: Path, num_rows: int, embed_dim: int, near: bool) -> None:
    """Write tables in which copies have the same pixels, or, if ``near``, a few other bits and some noise."""
    shown, is_copy = copies(num_rows)
    schema, entries = score_schema(embed_dim, []), []
    for number, start in enumerate(range(0, num_rows, ROWS_PER_TABLE)):
        rows = np.arange(start, min(start + ROWS_PER_TABLE, num_rows))
        broken = 0.0 if near else P_BROKEN
        part = table(rows, shown[rows], is_copy[rows] & near, broken, embed_dim)
        entries.append(write_table(folder / f"{number:05d}.parquet", [part], schema))
    write_scores_manifest(folder, encoder="", raw="", tables=entries, evaluation=[], plugins={})


def table(rows: np.ndarray, shown: np.ndarray, is_near: np.ndarray, p_broken: float, embed_dim: int) -> pa.Table:
    """Score rows that show the picture of another number; near copies are a little off, and of other pixels."""
    rng = np.random.default_rng(rows[0])
    count = len(rows)
    decodable = rng.random(count) >= p_broken
    words = pa.array(WORDS)
    lengths = rng.integers(3, 20, count)
    said = words.take(pa.array(rng.integers(0, len(words), int(lengths.sum()))))
    captions = pc.binary_join(pa.ListArray.from_arrays(np.r_[0, lengths.cumsum()], said), " ")
    ones = np.arange(count + 1, dtype=np.int32)
    listed = lambda values: pa.ListArray.from_arrays(ones, values)
    hashes = mixed(shown, 1)
    for _ in range(BITS_CHANGED):
        hashes = np.where(is_near, hashes ^ (np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)), hashes)
    embedding = unit(np.stack([np.random.default_rng(n).standard_normal(embed_dim) for n in shown.tolist()]))
    noise = unit(rng.standard_normal((count, embed_dim)))
    embedding = unit(embedding + NOISE * is_near[:, None] * noise).astype(np.float16)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), embed_dim)
    pixels = np.stack([mixed(np.where(is_near, rows + 10**9, shown), salt) for salt in range(2, 6)], axis=1)
    name = pa.array(mixed(rows, 6)).cast(pa.string())
    return pa.table(
        [
            pc.utf8_lpad(pa.array(rows).cast(pa.string()), 9, "0"),  # originals come before their copies
            pa.array(decodable),
            pa.array(np.where(decodable, rng.integers(100, 2000, count), 0).astype(np.int32)),
            pa.array(rng.integers(100, 2000, count, np.int32)),
            pa.array(rng.integers(5_000, 500_000, count, np.int32)),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), count, [None, pa.py_buffer(pixels.tobytes())]),
            pa.array(hashes),
            pa.array(rng.random(count, np.float32) * 1000),
            pc.binary_join_element_wise("https://cdn.example.com/pictures/", name, ".jpg", ""),
            listed(captions),
            listed(pa.array(lengths.astype(np.int32))),
            listed(pa.array(np.where(rng.random(count) < 0.8, "en", "de"))),
            listed(pa.array(rng.normal(0.25, 0.06, count).astype(np.float32))),
            vectors,
            listed(vectors),
        ],
        schema=score_schema(embed_dim, []),
    )


def mixed(numbers: np.ndarray, salt: int) -> np.ndarray:
    """64 bits for each number that look random (SplitMix64)."""
    with np.errstate(over="ignore"):
        z = (numbers.astype(np.uint64) + np.uint64(salt << 40)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


ALL_THRESHOLDS = Rules(
    pictures=PictureRules(
        min_side=128,
        max_aspect=3.0,
        thresholds=(Threshold("sharpness", least=20.0), Threshold("num_bytes", least=10_000)),
    ),
    captions=CaptionRules(
        min_chars=5,
        max_chars=300,
        min_words=2,
        min_letters=0.5,
        drop_urls=True,
        boilerplate=BOILERPLATE,
        languages=("en", "und"),
        min_clip_score=0.1,
    ),
    keep_fraction=0.6,
    duplicates=OFF._replace(same_pixels=True),
    cell_size=EXACT,
    decontamination=OFF._replace(same_pixels=True),
    p_heldout=0.01,
    variant_pattern=None,
)


def alone(likeness: Likeness, cell_size: int) -> Rules:
    """Rules that drop nothing but duplicates."""
    return Rules(PictureRules(), CaptionRules(), None, likeness, cell_size, OFF, 0.01, None)


def timed(scores: Scores, asked: Rules, folder: Path) -> tuple[float, Judgement]:
    start = time.perf_counter()
    judgement = judge(scores, asked, folder)
    return time.perf_counter() - start, judgement


if __name__ == "__main__":
    app()
