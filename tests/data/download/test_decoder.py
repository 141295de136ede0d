from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from stylegan_t.data.download import decoder, judging, pictures
from stylegan_t.data.download.decoder import Decoder, Judgement
from stylegan_t.data.download.pictures import Kept, Storage, keep
from tests.data.download.fragile import CRASH, CRASH_FIRST, CRASH_ONCE, CRASHED, HANG, program
from tests.data.download.server import Server, always
from tests.data.download.test_memory import bomb
from tests.data.download.world import AS_THEY_COME, fetched, jpeg, limits, picture, reasons, rows, storage, stored
from tests.imports import ROOT


def judged(*batches: list[bytes], storage: Storage = AS_THEY_COME, seconds: float = 20) -> list[list[Judgement]]:
    async def judge() -> list[list[Judgement]]:
        decoder = Decoder(storage, seconds)
        await decoder.start()
        try:
            return [await decoder.judge(batch) for batch in batches]
        finally:
            await decoder.end()

    return asyncio.run(judge())


def verdicts(judgements: list[Judgement]) -> list[str]:
    return ["kept" if isinstance(each.kept, Kept) else each.kept for each in judgements]


def test_another_process_judges_as_this_one_would():
    large = stored(Image.effect_noise((1000, 800), 100), "PNG")
    batches = [[jpeg(), b"nothing", stored(picture(), "PNG"), jpeg(1)], [large], [jpeg(2)] * 100]
    for batch, judgements in zip(batches, judged(*batches), strict=True):
        assert judgements == [Judgement(hashlib.sha256(data).hexdigest(), keep(data, AS_THEY_COME)) for data in batch]


def test_what_is_encoded_anew_comes_back():
    resized = storage(resize="centre_crop", size_px=8)
    batch = [jpeg(), b"nothing", jpeg(1)]
    assert [each.kept for each in judged(batch, storage=resized)[0]] == [keep(data, resized) for data in batch]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(CRASH, "crashed"), (HANG, "timeout_decode"), (CRASH_ONCE, "undecodable")],
    ids=["crash", "hang", "crash in company"],
)
def test_a_picture_that_ends_the_process_costs_no_other(monkeypatch, bad, reason):
    monkeypatch.setattr(decoder, "PROGRAM", program("fragile"))
    first, second = judged([jpeg(), bad, jpeg(1)], [jpeg(2)], seconds=1)
    assert verdicts(first) == ["kept", reason, "kept"] and verdicts(second) == ["kept"]


def test_a_picture_gets_a_second_chance(monkeypatch, tmp_path):
    monkeypatch.setattr(decoder, "PROGRAM", program("fragile"))
    monkeypatch.setenv(CRASHED, str(tmp_path / "crashed"))
    assert verdicts(*judged([CRASH_FIRST])) == ["undecodable"]
    assert (tmp_path / "crashed").exists()


def test_a_download_goes_on_behind_a_picture_that_crashes(monkeypatch, tmp_path):
    monkeypatch.setattr(decoder, "PROGRAM", program("fragile"))
    with Server({f"/{n}": always(CRASH if n == 7 else jpeg(n)) for n in range(20)}) as server:
        what = rows([server.url(f"/{n}") for n in range(20)])
        expected = ["success"] * 7 + ["crashed"] + ["success"] * 12
        assert reasons(fetched(what, tmp_path / "l", limits())) == expected


def test_a_process_that_does_not_even_start_is_nobodys_picture(monkeypatch):
    monkeypatch.setattr(decoder, "PROGRAM", program("stillborn"))
    with pytest.raises(RuntimeError, match="does not start"):
        judged([jpeg()])


@pytest.mark.timeout(30)
def test_a_process_that_is_never_ready_is_not_waited_for_in_vain(monkeypatch):
    monkeypatch.setattr(decoder, "PROGRAM", program("sleeper"))
    monkeypatch.setattr(decoder, "START_SECONDS", 0.1)
    with pytest.raises(RuntimeError, match="does not start"):
        judged([jpeg()])


def test_a_stop_does_not_wait_for_a_picture(monkeypatch):
    monkeypatch.setattr(decoder, "PROGRAM", program("fragile"))

    async def stop() -> None:
        one = Decoder(AS_THEY_COME, 60)
        await one.start()
        waiting = asyncio.create_task(one.judge([HANG]))
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await one.end()

    began = time.monotonic()
    asyncio.run(stop())
    assert time.monotonic() - began < 20


@pytest.mark.skipif(sys.platform != "linux", reason="only there is memory limited")
def test_a_picture_that_takes_more_memory_than_was_thought_costs_no_other(monkeypatch):
    thoughtless = f"import {pictures.__name__} as pictures; pictures._afford = lambda _: None; "
    monkeypatch.setattr(decoder, "PROGRAM", thoughtless + decoder.PROGRAM)
    batch = [jpeg(), bomb(8900), jpeg(1)]
    (judgements,) = judged(batch, storage=storage(max_pixels=80_000_000))
    assert verdicts(judgements) == ["kept", "too_many_pixels", "kept"]


@pytest.mark.skipif(sys.platform != "linux", reason="only there is memory limited")
def test_memory_is_limited_for_a_batch_and_no_longer():
    with judging.limited_memory():
        bytearray(judging.MOST_MORE_BYTES // 2)
        with pytest.raises(MemoryError):
            bytearray(2 * judging.MOST_MORE_BYTES)
    assert bytearray(2 * judging.MOST_MORE_BYTES)


def test_it_ends_with_whoever_started_it_however_that_ends():
    code = (
        "import asyncio, os, signal; from tests.data.download.world import AS_THEY_COME;"
        "from stylegan_t.data.download.decoder import Decoder; one = Decoder(AS_THEY_COME, 9);"
        "asyncio.run(one.start());"
        "print(one._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_part_of_the_downloader_needs_torch():
    modules = sorted((ROOT / "stylegan_t" / "data" / "download").glob("*.py"))
    names = ", ".join(f"stylegan_t.data.download.{path.stem}" for path in modules if path.stem != "__init__")
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0, "its processes stay small"
