"""Whether the downloader's memory stays flat over a long list: ``python benchmarks/soak.py --help``, or ``make soak``.

The last results are in benchmarks/download.md.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.download import AS_THEY_COME, LIMITS, rows_of
from benchmarks.picture_server import Answer, jpegs, serving
from stylegan_t.data.download.ledger import forget
from stylegan_t.data.download.rows import fetch_rows
from stylegan_t.data.raw import write_raw_shard

MEBIBYTE = 2**20
ROWS_PER_PART = 10_000
SECONDS_BETWEEN_LOOKS = 0.2
GROWTH = 1.1
"""What the second half of the rows may need, of what the first did."""

app = typer.Typer(add_completion=False)


class Look(NamedTuple):
    """Resident memory at a moment, MiB, and the rows done by then."""

    rows: int
    downloader: float
    decoder: float


@app.command()
def main(
    rows: Annotated[int, typer.Option(min=1000, help="of the list")] = 100_000,
    most_mib: Annotated[int, typer.Option(help="fail where the processes together need more")] = 500,
) -> None:
    """Download a list of small, large and failing pictures part by part, as the stage does, and watch the memory.

    Resident memory of the process that downloads and of the one that decodes for it.
    """
    began = time.monotonic()
    with serving(answers()) as served, tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=download, args=[there, served.port, rows, Path(folder)])
        process.start()
        there.close()
        looks, states = watch(here, psutil.Process(process.pid))
        process.join()
    seconds = time.monotonic() - began
    print(f"{rows} rows in {seconds:.0f} s, {dict(sorted(states.items()))}\n")
    print("| rows done | downloader, MiB | decoder, MiB | together, MiB |")
    print("|---|---|---|---|")
    step = max(ROWS_PER_PART, rows // 10)
    for until in range(step, rows + step, step):
        some = [look for look in looks if until - step <= look.rows < until] or [looks[-1]]
        together = max(look.downloader + look.decoder for look in some)
        apart = [max(look.downloader for look in some), max(look.decoder for look in some)]
        print(f"| {min(until, rows)} | {apart[0]:.0f} | {apart[1]:.0f} | {together:.0f} |")
    halves = [[look for look in looks if (look.rows < rows / 2) == first] for first in (True, False)]
    first, second = (max(look.downloader + look.decoder for look in half) for half in halves)
    print(f"\nfirst half {first:.0f} MiB, second half {second:.0f} MiB")
    if max(first, second) > most_mib or second > GROWTH * first or sum(states.values()) != rows:
        sys.exit("not flat, too much, or not all rows")


def answers() -> list[Answer]:
    """A thousand: mostly small pictures, a few photographs of 1 to 12 megapixels, and failures."""
    small, large, huge = jpegs(128, 64), jpegs(1024, 4), jpegs(3464, 1)
    row = [Answer(small[number % len(small)]) for number in range(1000)]
    row[::50] = [Answer(large[number % len(large)]) for number in range(20)]
    row[7::500] = [Answer(huge[0])] * 2
    row[3::40] = [Answer(b"", status=404)] * 25
    row[5::100] = [Answer(b"<html>gone</html>", "text/html")] * 10
    row[9::100] = [Answer(small[0][:2000] + bytes(3000))] * 10
    return row


def download(tell: Connection, port: int, rows: int, folder: Path) -> None:
    """Runs in a process of its own, which has never heard of torch."""
    assert "torch" not in sys.modules
    for number, start in enumerate(range(0, rows, ROWS_PER_PART)):
        ledger = folder / f"{number:05d}.ledger"
        part = rows_of(port, min(ROWS_PER_PART, rows - start))
        _, states = write_raw_shard(folder, number, fetch_rows(part, ledger, LIMITS, AS_THEY_COME, tell.send))
        forget(ledger)
        for file in folder.glob(f"{number:05d}*"):
            file.unlink()
        tell.send(states)


def watch(told: Connection, process: psutil.Process) -> tuple[list[Look], Counter[str]]:
    """Look at a process and its children until it hangs up; what it tells are rows done, or what became of a part."""
    looks, states, done, next_look = [], Counter[str](), 0, 0.0
    while True:
        try:
            if told.poll(SECONDS_BETWEEN_LOOKS):
                news = told.recv()
                if isinstance(news, int):
                    done += news
                else:
                    states += news
        except EOFError:
            return looks, states
        if time.monotonic() >= next_look and process.is_running():
            next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
            looks.append(Look(done, _resident(process), sum(map(_resident, process.children()))))


def _resident(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / MEBIBYTE
    except psutil.NoSuchProcess:  # it has just ended
        return 0.0


if __name__ == "__main__":
    app()
