from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from stylegan_t.data.download import decoder
from stylegan_t.data.download.decoder import Decoder
from stylegan_t.data.download.pictures import Kept, keep
from tests.data.download.fragile import CRASH, CRASH_ONCE, HANG, program
from tests.data.download.server import Server, always
from tests.data.download.world import AS_THEY_COME, fetched, jpeg, limits, picture, reasons, rows, storage, stored
from tests.imports import ROOT


@pytest.fixture
def decoding() -> Iterator[Decoder]:
    one = Decoder(AS_THEY_COME, seconds=20)
    yield one
    one.end()


@pytest.fixture
def fragile_decoding(monkeypatch) -> Iterator[Decoder]:
    monkeypatch.setattr(decoder, "PROGRAM", program("fragile"))
    one = Decoder(AS_THEY_COME, seconds=0.5)
    yield one
    one.end()


def verdicts(judgements: list[decoder.Judgement]) -> list[str]:
    return ["kept" if isinstance(each.kept, Kept) else each.kept for each in judgements]


def test_another_process_judges_as_this_one_would(decoding):
    small = stored(picture(), "PNG")
    batch = [jpeg(), b"nothing", small, jpeg(1)]
    for each, data in zip(decoding.judge(batch), batch, strict=True):
        assert each == (hashlib.sha256(data).hexdigest(), keep(data, AS_THEY_COME))


def test_what_is_encoded_anew_comes_back():
    resized = storage(resize="centre_crop", size_px=8)
    one = Decoder(resized, seconds=20)
    assert one.judge([jpeg()])[0].kept == keep(jpeg(), resized)
    one.end()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(CRASH, "crashed"), (HANG, "timeout_decode"), (CRASH_ONCE, "undecodable")],
    ids=["crash", "hang", "crash in company"],
)
def test_a_picture_that_ends_the_process_costs_no_other(fragile_decoding, bad, reason):
    assert verdicts(fragile_decoding.judge([jpeg(), bad, jpeg(1)])) == ["kept", reason, "kept"]
    assert verdicts(fragile_decoding.judge([jpeg(2)])) == ["kept"]


def test_a_download_goes_on_behind_a_picture_that_crashes(monkeypatch, tmp_path):
    monkeypatch.setattr(decoder, "PROGRAM", program("fragile"))
    with Server({f"/{n}": always(CRASH if n == 7 else jpeg(n)) for n in range(20)}) as server:
        what = rows([server.url(f"/{n}") for n in range(20)])
        expected = ["success"] * 7 + ["crashed"] + ["success"] * 12
        assert reasons(fetched(what, tmp_path / "l", limits())) == expected


def test_a_process_that_does_not_even_start_is_nobodys_picture(monkeypatch):
    monkeypatch.setattr(decoder, "PROGRAM", program("stillborn"))
    one = Decoder(AS_THEY_COME, seconds=1)
    with pytest.raises(RuntimeError, match="does not start"):
        one.judge([jpeg()])
    one.end()


def test_to_end_it_ends_who_waits_for_it(fragile_decoding):
    fragile_decoding.seconds = 60
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            fragile_decoding.judge([HANG])
        except (OSError, EOFError) as error:
            ended.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    fragile_decoding.end()
    thread.join(10)
    assert not thread.is_alive() and ended


def test_it_ends_with_whoever_started_it_however_that_ends():
    code = (
        "import os, signal; from tests.data.download.world import AS_THEY_COME;"
        "from stylegan_t.data.download.decoder import Decoder; one = Decoder(AS_THEY_COME, 9);"
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
