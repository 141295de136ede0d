"""Downloads that are killed, and go on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stylegan_t.data.download.ledger import Ledger
from tests.data.download.server import Server, Visit
from tests.data.download.world import jpeg
from tests.imports import ROOT

COUNT = 300
WAIT_SECONDS = 120


@pytest.fixture
def server() -> Iterator[Server]:
    """Pictures and failures of all kinds, each after a moment."""

    async def handler(visit: Visit) -> None:
        number = int(visit.path[1:])
        await asyncio.sleep(0.01 + number % 7 / 100)
        if number % 10 == 3:
            await visit.answer(status=404)
        elif number % 10 == 4 and visit.times == 1:
            await visit.answer(status=503)
        elif number % 10 == 5:
            await visit.redirect(f"/{number + 1}")
        else:
            await visit.answer(jpeg(number))

    with Server(otherwise=handler) as running:
        yield running


def start(server: Server, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    args = [str(folder / "ledger"), server.url(""), str(COUNT), str(folder / "result")]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.data.download.worker", *args],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (background jobs ignore it)
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    """What it said at its end."""
    return process.communicate(timeout=WAIT_SECONDS)[1]


def finished_rows(folder: Path) -> set[int]:
    with Ledger(folder / "ledger") as ledger:
        return {row for row in range(COUNT) if row in ledger}


def wait_for_requests(server: Server, count: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while len(server.log) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_loses_no_finished_row_and_fetches_none_twice(server, tmp_path, kills):
    draw = random.Random(kills)
    assert ended(start(server, tmp_path / "unbroken")) == ""
    server.log.clear()
    finished: set[int] = set()
    since: dict[int, int] = {}
    for asked in sorted(draw.sample(range(5, COUNT), kills)):
        process = start(server, tmp_path / "broken")
        wait_for_requests(server, asked)
        time.sleep(draw.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        ended(process)
        now = finished_rows(tmp_path / "broken")
        assert finished <= now
        since |= dict.fromkeys(now - finished, len(server.log))
        finished = now
    assert 0 < len(finished) < COUNT
    assert ended(start(server, tmp_path / "broken")) == ""
    again = {row for row, count in since.items() if row % 10 not in (6,) and f"/{row}" in server.log[count:]}
    assert again == set(), "rows ending in 6 are asked for by redirects as well"
    assert (tmp_path / "broken" / "result").read_text() == (tmp_path / "unbroken" / "result").read_text()


def test_a_polite_stop_is_prompt_and_keeps_what_is_finished(server, tmp_path):
    process = start(server, tmp_path / "stopped")
    wait_for_requests(server, 100)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = ended(process)
    assert said.endswith("KeyboardInterrupt\n") and "decoder.py" not in said, "that is for one process only"
    assert time.monotonic() - began < 5
    finished, asked = finished_rows(tmp_path / "stopped"), len(server.log)
    assert len(finished) > 50
    assert ended(start(server, tmp_path / "stopped")) == ""
    assert not {row for row in finished if row % 10 != 6 and f"/{row}" in server.log[asked:]}
