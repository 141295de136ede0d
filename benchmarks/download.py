"""How fast pictures are downloaded, beside a client that throws them away: ``python benchmarks/download.py --help``.

The last results are in benchmarks/download.md.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, NamedTuple

import aiohttp
import psutil
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.picture_server import Answer, Kind, Served, jpegs, serving
from stylegan_t.data.download.fetch import Limits
from stylegan_t.data.download.pictures import Storage
from stylegan_t.data.download.rows import Row, fetch_rows
from stylegan_t.data.raw import write_raw_shard
from stylegan_t.data.shards import Sample, Skipped

LIMITS = Limits(
    user_agent="stylegan-t (benchmark)", max_connections=128, max_connections_per_host=128, dns_cache_seconds=300,
    connect_seconds=10, read_seconds=10, total_seconds=60, max_attempts=3, backoff_seconds=2, max_backoff_seconds=60,
    max_unreached=200, max_redirects=5, max_bytes=30_000_000, max_held_bytes=120_000_000,
    allowed_networks=["127.0.0.1/32"],
    opt_outs=["noai", "noimageai", "noindex", "noimageindex"], opt_out_agents=["stylegan-t"], num_decoders=1,
    decode_seconds=60,
)  # fmt: skip
AS_THEY_COME = Storage(
    resize="none", size_px=None, upscale=False, image_format="jpeg", quality=95, max_pixels=40_000_000,
    min_side_px=None, max_aspect_ratio=None,
)  # fmt: skip

app = typer.Typer(add_completion=False)


class Job(NamedTuple):
    """What a worker process does once: fetch ``count`` pictures, and do something with them."""

    what: str
    count: int
    storage: Storage = AS_THEY_COME


@cache
def rows_of(port: int, count: int) -> list[Row]:
    """A list of addresses; made once, since its reading is not what is timed."""
    urls = [f"http://127.0.0.1:{port}/pictures/2019/{number:08d}.jpg" for number in range(count)]
    words = ["a picture of something, in a few words"]
    return [Row(f"{number:08d}", url, words, None, {"similarity": 0.3}) for number, url in enumerate(urls)]


@app.command()
def main(
    side_px: Annotated[int, typer.Option(help="side of the pictures served, px")] = 128,
    size_px: Annotated[int, typer.Option(help="side to resize to, px")] = 64,
    count: Annotated[int, typer.Option(help="pictures a process and round")] = 10_000,
    connections: Annotated[int, typer.Option(help="of a process")] = 128,
    server: Annotated[Kind, typer.Option(help="whose pictures are fetched; see benchmarks/picture_server.py")] = "lean",
    repeats: Annotated[int, typer.Option(min=1, help="timed rounds; all cases take turns in each")] = 5,
) -> None:
    """Pictures per second from a server on the same cores, which answers from memory and does nothing else.

    The bare client is aiohttp as its documentation shows it. Stored: fetched, checked, decoded, recorded in the ledger,
    and read back as samples in the list's order.
    """
    limits = replace(LIMITS, max_connections=connections, max_connections_per_host=connections)
    resized = replace(AS_THEY_COME, resize="centre_crop", size_px=size_px)
    jobs = {
        "a bare client, bodies thrown away": Job("bare", count),
        "stored as they came": Job("stored", count),
        f"resized to {size_px} px and encoded anew": Job("stored", count // 2, resized),
        "stored as they came and written as a shard": Job("shard", count // 2),
    }
    cases = {(name, workers): job for name, job in jobs.items() for workers in (1, 2)}
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    costs: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    pictures = jpegs(side_px)
    with serving([Answer(picture) for picture in pictures], server) as served, Workers(served, limits) as workers:
        for turn in range(repeats + 1):
            for (name, number), job in cases.items():
                wall, cpu = workers.run(job, number)
                if turn:
                    rates[name, number].append(number * job.count / wall)
                    costs[name, number].append(1000 * cpu / (number * job.count))
    kilobytes = statistics.mean(map(len, pictures)) / 1000
    place = f"the {server} server, {connections} connections a process"
    report(f"JPEGs of {side_px} px, {kilobytes:.1f} kB, from {place}", rates, costs)


class Workers:
    """Two processes that wait for jobs, and start them at the same time."""

    def __init__(self, served: Served, limits: Limits) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(2):
            here, there = context.Pipe()
            process = context.Process(target=work, args=[there, served.port, limits])
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def __enter__(self) -> Workers:
        for pipe in self.pipes:
            pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def run(self, job: Job, number: int) -> tuple[float, float]:
        """Seconds until the last of ``number`` processes has done the job, and seconds of CPU of all of them."""
        began = time.perf_counter()
        for pipe in self.pipes[:number]:
            pipe.send(job)
        cpu = sum(pipe.recv() for pipe in self.pipes[:number])
        return time.perf_counter() - began, cpu


def work(pipe: Connection, port: int, limits: Limits) -> None:
    pipe.send("ready")
    while True:
        job = pipe.recv()
        before = cpu_seconds()
        do(job, port, limits)
        pipe.send(cpu_seconds() - before)


def cpu_seconds() -> float:
    """Of this process and those that it started, ended ones too."""
    process = psutil.Process()
    return sum(sum(each.cpu_times()[:4]) for each in [process, *process.children(recursive=True)])


def do(job: Job, port: int, limits: Limits) -> None:
    rows = rows_of(port, job.count)
    if job.what == "bare":
        asyncio.run(bare(rows, limits.max_connections))
        return
    with fetched(rows, limits, job.storage) as (folder, pairs):
        if job.what == "shard":
            write_raw_shard(folder, 0, checked(pairs))
        else:
            assert sum(1 for _ in checked(pairs)) == job.count


async def bare(rows: Sequence[Row], connections: int) -> None:
    """What aiohttp does at most: so many at a time ask and read, one after the other."""
    waiting = iter(rows)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

        async def ask() -> None:
            for row in waiting:
                async with session.get(row.url) as response:
                    await response.read()

        await asyncio.gather(*(ask() for _ in range(connections)))


@contextmanager
def fetched(rows: Sequence[Row], limits: Limits, storage: Storage) -> Iterator[tuple[Path, Iterator[Sample | Skipped]]]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder), fetch_rows(rows, Path(folder) / "ledger", limits, storage)


def checked(pairs: Iterable[Sample | Skipped]) -> Iterator[Sample]:
    for pair in pairs:
        assert isinstance(pair, Sample), pair
        yield pair


def report(
    what: str,
    rates: dict[tuple[str, int], list[float]], costs: dict[tuple[str, int], list[float]],
) -> None:  # fmt: skip
    import torch

    from benchmarks.timing import environment

    place = environment(torch.device("cpu"))
    print(f"{what}, {place}.\n")
    print("| what | processes | pictures/s | lowest … highest | of the bare client | CPU ms a picture |")
    print("|---|---|---|---|---|---|")
    (bare, _), *_ = rates
    middle = {case: statistics.median(values) for case, values in rates.items()}
    for (name, number), values in rates.items():
        shares = [v / b for v, b in zip(values, rates[bare, 1], strict=True)]
        same = [v / b for v, b in zip(values, rates[bare, number], strict=True)]
        share = f"{statistics.median(same):.0%}" + (f"; {statistics.median(shares):.0%} of one" if number > 1 else "")
        cells = [
            name, str(number), f"{middle[name, number]:.0f}", f"{min(values):.0f} … {max(values):.0f}", share,
            f"{statistics.median(costs[name, number]):.3f}",
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    app()
