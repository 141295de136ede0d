"""How fast training pictures are read, beside a plain webdataset pipeline: ``python benchmarks/loader.py --help``.

One process, one core, one thread. The last results are in benchmarks/loader.md.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
import webdataset
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import environment, interleaved
from stylegan_t.data.images import decode, decode_batch, decode_stored, encode, square, stack
from stylegan_t.data.index import index_path
from stylegan_t.data.loader import batches
from stylegan_t.data.shards import MANIFEST, Sample, npy, pack, shard_name, write_manifest, write_shards
from stylegan_t.data.stream import find_stream, stream_batches

BATCH, C_DIM = 64, 768
PLAIN = "webdataset: tar iteration, Pillow, centre crop, Lanczos"
CPU = torch.device("cpu")

app = typer.Typer(add_completion=False, help=__doc__)

Stored = Annotated[int, typer.Option(help="side of the pictures in the shards, px")]
Wanted = Annotated[int, typer.Option(help="side that the training wants, px")]
Pictures = Annotated[
    Path | None, typer.Option(help="folder of pictures to take; default: noise with a photo's spectrum")
]
Repeats = Annotated[int, typer.Option(min=1, help="timed rounds; all cases take turns in each")]


@app.command()
def speed(
    stored_px: Stored = 256,
    wanted_px: Wanted = 64,
    count: Annotated[int, typer.Option(help="pictures a round")] = 1024,
    pictures: Pictures = None,
    repeats: Repeats = 7,
) -> None:
    """Images per second from JPEG shards to batches of the wanted size, side by side."""
    alone_on_one_core()
    with tempfile.TemporaryDirectory() as folder:
        shards = put_shards(Path(folder), jpegs(stored_px, count, pictures), 512)
        readers = {
            PLAIN: lambda: plain(shards, wanted_px),
            "indexed, decoded at reduced scale": lambda: area(indexed(shards, wanted_px), wanted_px),
            "indexed, decoded at full size, reduced by area": lambda: area(indexed(shards, stored_px), wanted_px),
            "stream, decoded at reduced scale": lambda: area(streamed(shards, wanted_px), wanted_px),
        }
        times = interleaved({name: _reads(make, count) for name, make in readers.items()}, repeats, CPU)
        num_bytes = sum(path.stat().st_size for path in shards.glob("*.tar")) / count
    print(f"{stored_px} px JPEGs of {num_bytes / 1000:.1f} kB a sample to {wanted_px} px, {environment(CPU)}.\n")
    print("| reader | images/s on one core | of the plain pipeline |\n|---|---|---|")
    for name, seconds in times.items():
        ratio = statistics.median(p / s for p, s in zip(times[PLAIN], seconds, strict=True))
        print(f"| {name} | {count / statistics.median(seconds):.0f} | {ratio:.2f} × |")


@app.command()
def resume(
    samples: Annotated[int, typer.Option(help="samples in the index, in shards of 10,000")] = 1_000_000,
    batch_size: Annotated[int, typer.Option(help="images of the first batch")] = BATCH,
) -> None:
    """Seconds from opening the shards to the first batch, at several places of the endless row."""
    alone_on_one_core()
    with tempfile.TemporaryDirectory() as folder:
        shards = put_shards(Path(folder), jpegs(256, 1000, None) * 10, 10_000)
        multiply(shards, samples // 10_000)
        print(f"{samples:,} samples, batches of {batch_size}, {environment(CPU)}.\n")
        print("| images shown before | first batch, s | the next, s |\n|---|---|---|")
        for nimg in (0, 12_345, samples - 10, 7 * samples + samples // 2, 1000 * samples + 999):
            start = time.perf_counter()
            stream = indexed(shards, 64, nimg, batch_size)
            next(stream)
            first = time.perf_counter() - start
            next(stream)
            print(f"| {nimg:,} | {first:.3f} | {time.perf_counter() - start - first:.3f} |")


@app.command()
def quality(stored_px: Stored = 256, count: int = 200, pictures: Pictures = None) -> None:
    """How near decoding at reduced scale comes to reducing the whole picture by area."""
    data = jpegs(stored_px, count, pictures)
    whole = decode_batch(data).float()
    print(f"PSNR against the mean over each area of {count} {stored_px} px JPEGs decoded whole, dB: median (worst).\n")
    print("| scale | at reduced scale | Lanczos, for comparison |\n|---|---|---|")
    for scale in (2, 4, 8):
        px = stored_px // scale
        by_area = F.interpolate(whole, size=(px, px), mode="area")
        lanczos = np.stack([square(decode(each), px) for each in data])
        cells = [
            psnr(by_area, stack([decode_stored(each, px) for each in data])),
            psnr(by_area, torch.from_numpy(lanczos).permute(0, 3, 1, 2)),
        ]
        print(f"| 1/{scale} | " + " | ".join(f"{c.median():.1f} ({c.min():.1f})" for c in cells) + " |")


def alone_on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def _reads(make, count: int):
    """One round: ``count`` pictures from a reader that has begun."""
    reader: Iterator[Tensor] = make()
    return lambda: [next(reader) for _ in range(count // BATCH)]


def plain(shards: Path, px: int) -> Iterator[Tensor]:
    """What a training on webdataset shards does without us; it decodes nothing but the picture."""

    def picture(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        return np.asarray(image.resize((px, px), Image.Resampling.LANCZOS))

    urls = sorted(map(str, shards.glob("*.tar")))
    samples = webdataset.WebDataset(urls, shardshuffle=False).to_tuple("jpg", "txt").map_tuple(picture).repeat()
    for batch in samples.batched(BATCH, collation_fn=list):
        yield torch.from_numpy(np.stack([image for image, _ in batch])).permute(0, 3, 1, 2).contiguous()


def indexed(shards: Path, px: int, nimg: int = 0, batch_size: int = BATCH) -> Iterator[Tensor]:
    stream = batches(shards, batch_size=batch_size, start_nimg=nimg, seed=0, num_workers=0, image_px=lambda nimg: px)
    return (batch.images for batch in stream)


def streamed(shards: Path, px: int) -> Iterator[Tensor]:
    stream = stream_batches(
        find_stream([f"{shards}/*.tar"], None, Path()).shards, batch_size=BATCH, start_nimg=0, seed=0, num_workers=0,
        shuffle_buffer=256, image_px=lambda nimg: px,
    )  # fmt: skip
    return (batch.images for batch in stream)


def area(images: Iterator[Tensor], px: int) -> Iterator[Tensor]:
    """As the training reduces what comes larger than it wants it."""
    for batch in images:
        yield batch if batch.shape[-1] == px else F.interpolate(batch.float(), size=(px, px), mode="area")


def jpegs(px: int, count: int, folder: Path | None) -> list[bytes]:
    """JPEGs as the filter stores them: noise whose amplitudes fall with the frequency as those of photos do."""
    if folder is not None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".png", ".webp"})
        return [encode(square(decode(path.read_bytes()), px), "jpeg") for path in paths[:count]]
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(px), np.fft.rfftfreq(px), indexing="ij"))
    frequency[0, 0] = np.inf
    made = []
    for _ in range(count):
        waves = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
        grey, *colours = np.fft.irfft2(waves / frequency**1.4, s=(px, px))
        picture = np.stack([grey, grey, grey], axis=-1) + 0.15 * np.stack([colours[0], 0 * grey, colours[1]], axis=-1)
        made.append(encode(np.clip(128 + 50 * picture / picture.std(), 0, 255).astype(np.uint8), "jpeg"))
    return made


def put_shards(folder: Path, data: list[bytes], per_shard: int) -> Path:
    """Prepared shards of some pictures, with captions and embeddings as long as those of a large CLIP."""
    rng = np.random.default_rng(1)
    samples: list[Sample] = []
    for number, picture in enumerate(data):
        c = npy(rng.normal(size=(1, C_DIM)).astype(np.float16))
        samples.append(pack(f"{number:07d}", "jpg", picture, [f"a picture of number {number}"], {"n": number}, npy=c))
    write_manifest(folder, "prepared", write_shards(folder, samples, per_shard), encoder="0" * 64)
    return folder


def multiply(shards: Path, times: int) -> None:
    """Let the folder's one shard stand for many."""
    manifest = json.loads((shards / MANIFEST).read_text())
    (entry,) = manifest["shards"]
    names = [shard_name(number) for number in range(times)]
    for name in names[1:]:
        (shards / name).symlink_to(shards / entry["file"])
        index_path(shards / name).symlink_to(index_path(shards / entry["file"]))
    write_manifest(shards, "prepared", [{**entry, "file": name} for name in names], encoder="0" * 64)


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Of each picture, dB."""
    return 10 * (255**2 / (one.float() - other.float()).square().mean(dim=(1, 2, 3))).log10()


if __name__ == "__main__":
    app()
