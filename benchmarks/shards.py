"""How large shards are, and how fast they are made, indexed, checked and read: ``python benchmarks/shards.py --help``.

One process, files in the page cache; speeds are by that process's time on its core. The last results are in
benchmarks/shards.md and, for the plan of benchmarks/scale.py, in benchmarks/rates.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import environment
from stylegan_t.data.images import decode, encode, square
from stylegan_t.data.index import index_path, read_index
from stylegan_t.data.scores import ROWS_PER_GROUP, score_schema, write_table
from stylegan_t.data.shards import Sample, Shards, npy, pack, shard_name, write_manifest, write_shard
from stylegan_t.data.tars import scan
from stylegan_t.data.verify import check_shard
from stylegan_t.files import write_json

RATES = Path(__file__).with_name("rates.json")
SIDES_PX, FORMATS = (64, 256, 512), ("jpeg", "webp", "png")
C_DIM = 768
CAPTION = "a man in a dark suit and a hat stands in front of a brick wall, looking into the camera"
METADATA = {"url": "https://images.example.org/2019/05/17/a-man-in-a-dark-suit.jpg", "pixel_sha256": "0" * 64}
"""As long as those of a pair from the web are."""
SHARD, NUM_SHARDS = 10_000, 100

app = typer.Typer(add_completion=False, help=__doc__)


class Rate(NamedTuple):
    """A measured number, as rates.json keeps it."""

    value: float
    unit: str
    what: str


@app.command()
def measure(
    pictures: Annotated[
        Path | None, typer.Option(help="folder of photographs; default: the one that comes with matplotlib")
    ] = None,
    count: Annotated[int, typer.Option(help="of them, at most")] = 200,
    write: Annotated[bool, typer.Option("--write", help="put the numbers into rates.json for scale.py")] = False,
) -> None:
    """Measure sizes and speeds and print them as a table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    photos = read_photos(pictures, count)
    rates = dict(of_pictures(photos)) | dict(of_shards(photos[0]))
    where = environment(torch.device("cpu"))
    print(f"{len(photos)} photograph(s); {where}.\n")
    print("| what | | unit |\n|---|---|---|")
    for rate in rates.values():
        value = f"{rate.value:,.0f}" if rate.value >= 100 else f"{rate.value:.3g}"
        print(f"| {rate.what} | {value} | {rate.unit} |")
    if write:
        source = f"benchmarks/shards.md ({len(photos)} photograph(s); {where})"
        known = json.loads(RATES.read_text()) if RATES.exists() else {}
        known |= {name: {**rate._asdict(), "from": source} for name, rate in rates.items()}
        write_json(RATES, known)


def read_photos(folder: Path | None, count: int) -> list[bytes]:
    if folder is None:
        import matplotlib

        return [Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg").read_bytes()]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    return [path.read_bytes() for path in paths[:count]]


def of_pictures(photos: list[bytes]) -> Iterator[tuple[str, Rate]]:
    """What a prepared picture takes: bytes, and the seconds to decode, cut, resize and encode it."""
    for image_format in FORMATS:
        for side in SIDES_PX:
            encoded = [encode(square(decode(photo), side), image_format) for photo in photos]
            size = sum(map(len, encoded)) / len(encoded)
            yield f"{image_format}_{side}_bytes", Rate(size, "bytes", f"a {side} px picture as {image_format}")
            call = lambda px=side, kind=image_format: [encode(square(decode(photo), px), kind) for photo in photos]
            rate = len(photos) / seconds(call)
            what = f"preparing {side} px as {image_format}: decode, cut, resize, encode"
            yield f"{image_format}_{side}_per_second", Rate(rate, "pictures/s", what)


def of_shards(photo: bytes) -> Iterator[tuple[str, Rate]]:
    """What shards of 10,000 pictures take beside the pictures, and the speed of all that is done with them."""
    picture = encode(square(decode(photo), 64), "jpeg")
    c = npy(np.random.default_rng(0).normal(size=(1, C_DIM)).astype(np.float16))

    def samples(with_c: bool) -> Iterator[Sample]:
        for number in range(SHARD):
            more = {"npy": c} if with_c else {}
            yield pack(f"{number:09d}", "jpg", picture, [CAPTION], METADATA, **more)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = write_shard(folder / "raw.tar", samples(False))
        yield (
            "raw_beside_picture_bytes",
            Rate(
                raw["num_bytes"] / SHARD - len(picture),
                "bytes",
                "a raw sample beside its picture: caption, metadata, tar",
            ),
        )
        shard = folder / shard_name(0)
        start = time.perf_counter()
        entry = write_shard(shard, samples(True))
        yield (
            "write_per_second",
            Rate(SHARD / (time.perf_counter() - start), "samples/s", "writing a shard and its index"),
        )
        yield (
            "prepared_beside_picture_bytes",
            Rate(
                entry["num_bytes"] / SHARD - len(picture),
                "bytes",
                "a prepared sample beside its picture: the same, and c",
            ),
        )
        size = index_path(shard).stat().st_size / SHARD
        yield "index_bytes", Rate(size, "bytes", "a sample in the index")
        size = len(json.dumps(entry, indent=1)) + 1
        yield "manifest_bytes", Rate(size, "bytes", "a shard in the manifest")
        yield "score_bytes", Rate(score_row_bytes(folder), "bytes", f"a row of the score tables, c_dim {C_DIM}")
        yield from of_checks(shard, entry)
        for number in range(1, NUM_SHARDS):
            os.link(shard, folder / shard_name(number))
            os.link(index_path(shard), index_path(folder / shard_name(number)))
        write_manifest(folder, "prepared", [{**entry, "file": shard_name(n)} for n in range(NUM_SHARDS)])
        yield from of_reading(folder)


def score_row_bytes(folder: Path) -> float:
    rows, rng = 4 * ROWS_PER_GROUP, np.random.default_rng(0)
    embedding = [*rng.normal(size=(rows, C_DIM)).astype(np.float16)]
    columns = {
        "key": [f"{number:09d}" for number in range(rows)], "decodable": [True] * rows, "width": [640] * rows,
        "height": [480] * rows, "num_bytes": rng.integers(10_000, 200_000, rows).astype(np.int32),
        "pixel_sha256": [rng.bytes(32) for _ in range(rows)], "url": [METADATA["url"]] * rows,
        "perceptual_hash": rng.integers(0, 2**63, rows).astype(np.uint64),
        "sharpness": rng.random(rows).astype(np.float32), "captions": [[f"{CAPTION} {n}"] for n in range(rows)],
        "caption_words": [[19]] * rows, "language": [["en"]] * rows,
        "clip_score": [[score] for score in rng.random(rows)],
        "image_embedding": embedding, "text_embedding": [[vector] for vector in embedding],
    }  # fmt: skip
    schema = score_schema(C_DIM, [])
    entry = write_table(folder / "scores.parquet", [pa.table(columns, schema)], schema)
    return entry["num_bytes"] / rows


def of_checks(shard: Path, entry: dict) -> Iterator[tuple[str, Rate]]:
    size = entry["num_bytes"]
    for name in ("sha256", "md5"):
        with shard.open("rb") as file:
            took = seconds(lambda n=name, f=file: (f.seek(0), hashlib.file_digest(f, n)))
        yield f"{name}_bytes_per_second", Rate(size / took, "bytes/s", f"hashing files with {name}")
    took = seconds(lambda: scan(shard))
    yield "scan_per_second", Rate(SHARD / took, "samples/s", "`stylegan-t data index`: reading headers")
    took = seconds(lambda: check_shard(shard, entry, quick=False))
    yield (
        "verify_per_second",
        Rate(SHARD / took, "samples/s", "`stylegan-t data verify`, of small samples"),
    )


def of_reading(folder: Path) -> Iterator[tuple[str, Rate]]:
    total = SHARD * NUM_SHARDS
    yield "open_seconds", Rate(seconds(lambda: Shards(folder)), "s", f"opening a folder of {total:,} samples")
    paths = [folder / shard_name(number) for number in range(NUM_SHARDS)]
    took = seconds(lambda: [read_index(path) for path in paths]) / NUM_SHARDS
    yield "index_seconds", Rate(took, "s", f"reading the index of {SHARD:,} samples, once a shard is first needed")
    shards = Shards(folder)
    numbers = np.random.default_rng(0).integers(0, total, SHARD).tolist()
    took = seconds(lambda: [shards[number] for number in numbers])
    yield "reads_per_second", Rate(SHARD / took, "samples/s", "reading samples at random")


def seconds(call: Callable[[], object], least: float = 1.0) -> float:
    """A core's median time for a call, over several of ``least`` seconds in all, after one that is not counted."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        start = time.process_time()  # what others do on this core meanwhile does not count
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        app()
