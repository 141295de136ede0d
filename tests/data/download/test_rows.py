"""Whole downloads, from a server that does everything that servers do."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import socket
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from stylegan_t.data.download import crew, names
from stylegan_t.data.download.crew import MOST_WAITS
from stylegan_t.data.download.decoder import Decoder, Judgement
from stylegan_t.data.download.ledger import forget
from stylegan_t.data.download.reasons import meaning
from stylegan_t.data.download.rows import Row, fetch_rows
from stylegan_t.data.shards import Sample, Skipped
from stylegan_t.errors import SettingsError
from tests.data.download.server import Handler, Server, Visit, always, moved
from tests.data.download.world import (
    AS_THEY_COME,
    LIMITS,
    by_name,
    fetched,
    jpeg,
    limits,
    picture,
    reasons,
    rows,
    stored,
)
from tests.imports import ROOT

HARD_DEADLINE_SECONDS = 60
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def after(failures: int, fail: Handler) -> Handler:
    """Fails so many times, then sends a picture."""

    async def handler(visit: Visit) -> None:
        await (fail if visit.times <= failures else always(jpeg()))(visit)

    return handler


async def late(visit: Visit) -> None:
    await asyncio.sleep(0.2)
    await visit.answer(jpeg())


async def silent(visit: Visit) -> None:
    await asyncio.sleep(30)


async def silent_in_the_middle(visit: Visit) -> None:
    await visit.answer(jpeg()[:100], length=len(jpeg()))
    await asyncio.sleep(30)


async def drip(visit: Visit) -> None:
    await visit.answer(length=10_000)
    for _ in range(300):
        await visit.send(b"x")
        await asyncio.sleep(0.1)


async def drip_of_headers(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(300):
        await visit.send(f"X-{number}: x\r\n".encode())
        await asyncio.sleep(0.1)


async def hung_up(visit: Visit) -> None:
    visit.hang_up()


async def reset(visit: Visit) -> None:
    visit.reset()


async def reset_in_the_middle(visit: Visit) -> None:
    await visit.answer(jpeg()[:100], length=len(jpeg()))
    await asyncio.sleep(0.05)
    visit.reset()


async def cut_off(visit: Visit) -> None:
    await visit.answer(jpeg()[:-50], length=len(jpeg()))
    visit.hang_up()


async def in_chunks(visit: Visit, data: bytes, whole: bool = True, size: int = 500) -> None:
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(data), size):
        part = data[start : start + size]
        await visit.send(b"%x\r\n%s\r\n" % (len(part), part))
    if whole:
        await visit.send(b"0\r\n\r\n")
    else:
        visit.hang_up()


async def chunked(visit: Visit) -> None:
    await in_chunks(visit, jpeg())


async def chunked_and_cut_off(visit: Visit) -> None:
    await in_chunks(visit, jpeg(), whole=False)


async def endless(visit: Visit) -> None:
    await in_chunks(visit, b"\xff" * 50_000_000)


async def until_hung_up(visit: Visit) -> None:
    await visit.send(b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg())
    visit.hang_up()


async def garbage(visit: Visit) -> None:
    await visit.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    visit.hang_up()


def bomb() -> bytes:
    return stored(Image.new("1", (4000, 4000)), "PNG")


def with_archive(data: bytes) -> bytes:
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("a.js", "alert(1)")
    return out.getvalue()


WORLD: dict[str, tuple[Handler, str]] = {
    "/plain": (always(jpeg()), "success"),
    "/late": (late, "success"),
    "/png": (always(stored(picture(), "PNG"), "image/png"), "success"),
    "/webp": (always(stored(picture(), "WEBP"), "image/webp"), "success"),
    "/gif": (always(stored(picture(), "GIF"), "image/gif"), "success"),
    "/wrongly-declared": (always(stored(picture(), "PNG"), "image/jpeg"), "success"),
    "/undeclared": (always(jpeg(), ""), "success"),
    "/bytes": (always(jpeg(), "application/octet-stream"), "success"),
    "/chunked": (chunked, "success"),
    "/until-hung-up": (until_hung_up, "success"),
    "/404": (always(b"none", "text/html", 404), "http_404"),
    "/410": (always(status=410), "http_410"),
    "/206": (always(jpeg(), status=206), "http_206"),
    "/304": (always(status=304), "http_304"),
    "/500": (always(status=500), "http_500"),
    "/500-once": (after(1, always(status=500)), "success"),
    "/503-twice": (after(2, always(status=503)), "success"),
    "/429-once": (after(1, always(status=429, headers="Retry-After: 0")), "success"),
    "/hung-up": (hung_up, "connection_reset"),
    "/reset": (reset, "connection_reset"),
    "/reset-once": (after(1, reset), "success"),
    "/reset-in-the-middle": (reset_in_the_middle, "truncated"),
    "/cut-off": (cut_off, "truncated"),
    "/cut-off-once": (after(1, cut_off), "success"),
    "/chunked-and-cut-off": (chunked_and_cut_off, "truncated"),
    "/silent": (silent, "timeout_read"),
    "/silent-once": (after(1, silent), "success"),
    "/silent-in-the-middle": (silent_in_the_middle, "timeout_read"),
    "/drip": (drip, "timeout_total"),
    "/drip-of-headers": (drip_of_headers, "timeout_total"),
    "/garbage": (garbage, "bad_response"),
    "/moved": (moved("/plain"), "success"),
    "/moved-for-ever": (moved("/plain", 308), "success"),
    "/moved-thrice": (moved("/moved-twice"), "success"),
    "/moved-twice": (moved("/moved"), "success"),
    "/moved-four-times": (moved("/moved-thrice"), "too_many_redirects"),
    "/moved-to-itself": (moved("/moved-to-itself"), "redirect_loop"),
    "/there": (moved("/and-back"), "redirect_loop"),
    "/and-back": (moved("/there"), "redirect_loop"),
    "/moved-nowhere": (always(status=302), "http_302"),
    "/moved-to-a-file": (moved("file:///etc/passwd"), "bad_url"),
    "/moved-to-another-protocol": (moved("ftp://127.0.0.1/a.jpg"), "bad_url"),
    "/moved-with-a-password": (moved("http://me:secret@127.0.0.1/"), "bad_url"),
    "/moved-inside": (moved("http://10.0.0.1/latest/meta-data"), "forbidden_address"),
    "/moved-to-the-metadata": (moved("http://169.254.169.254/latest/meta-data"), "forbidden_address"),
    "/moved-to-a-neighbour": (moved("http://127.0.0.2/"), "forbidden_address"),
    "/moved-to-loopback": (moved("http://[::1]/"), "forbidden_address"),
    "/large": (always(b"\xff\xd8\xff" + bytes(30_000)), "too_large"),
    "/endless": (endless, "too_large"),
    "/page": (always(b"<html>not found</html>", "text/html"), "wrong_type"),
    "/page-that-lies": (always(b"<html>not found</html>", "image/jpeg"), "wrong_type"),
    "/empty": (always(), "wrong_type"),
    "/compressed": (always(gzip.compress(bytes(10**7)), headers="Content-Encoding: gzip"), "wrong_encoding"),
    "/svg": (always(gzip.compress(SVG), "image/svg+xml"), "svg"),
    "/svg-that-lies": (always(SVG, "image/png"), "svg"),
    "/archive": (always(with_archive(jpeg())), "polyglot"),
    "/bomb": (always(bomb(), "image/png"), "too_many_pixels"),
    "/damaged": (always(jpeg()[:-200] + bytes(200)), "undecodable"),
    "/no-ai": (always(jpeg(), headers="X-Robots-Tag: NoAI"), "opted_out"),
    "/no-index": (always(jpeg(), headers="X-Robots-Tag: nofollow, noindex"), "opted_out"),
    "/second-header": (always(jpeg(), headers="X-Robots-Tag: all\nX-Robots-Tag: noimageai"), "opted_out"),
    "/not-for-us": (always(jpeg(), headers="X-Robots-Tag: img2dataset: noai"), "opted_out"),
    "/not-for-others": (always(jpeg(), headers="X-Robots-Tag: googlebot: noindex"), "success"),
    "/moved-without-consent": (always(status=302, headers="Location: /plain\nX-Robots-Tag: noai"), "opted_out"),
}


@pytest.fixture
def no_names(monkeypatch) -> None:
    """Nobody outside this machine is asked for a name."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, *args: object, **more: object) -> object:
        if host.endswith((".invalid", ".test")):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return look_up(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.timeout(HARD_DEADLINE_SECONDS)
def test_every_row_ends_in_the_known_state_and_the_totals_add_up(server, tmp_path, no_names):
    server.handlers = {path: handler for path, (handler, _) in WORLD.items()}
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    others = {
        f"http://127.0.0.1:{closed}/": "connection_failed",
        "http://192.168.1.1/a.jpg": "forbidden_address",
        "http://[fe80::1]/a.jpg": "forbidden_address",
        "http://0x7f.2/": "forbidden_address",
        "http://2130706434/": "bad_url",
        "http://no.such.host.invalid/": "dns_failed",
        "http://127.0.0.1:99999/": "bad_url",
        "https://.leading.dot.test/": "dns_failed",
        "http://" + "a" * 70 + ".test/": "dns_failed",
        f"https://127.0.0.1:{server.port}/plain": "tls_failed",
        "file:///etc/passwd": "bad_url",
        "/plain": "bad_url",
        "": "bad_url",
        "http://": "bad_url",
        "http://[::1": "bad_url",
        "\ud800": "bad_url",
    }
    expected = {**{server.url(path): reason for path, (_, reason) in WORLD.items()}, **others}
    counted: list[int] = []
    began = time.monotonic()
    results = fetched(rows(list(expected)), tmp_path / "ledger", done=counted.append)
    assert dict(zip(expected, reasons(results), strict=True)) == expected
    assert time.monotonic() - began < 20
    assert sum(counted) == len(expected) == sum(Counter(reasons(results)).values())
    assert all(meaning(reason) for reason in reasons(results) if reason != "success")


def test_a_sample_holds_the_picture_its_captions_and_all_that_is_known_of_it(server, tmp_path):
    server.handlers["/a.jpg"] = always(jpeg())
    row = Row("000007", server.url("/a.jpg#part"), ["a  cat", "a feline"], None, {"licence": "CC0", "width": "unknown"})
    (sample,) = fetched([row], tmp_path / "ledger")
    assert isinstance(sample, Sample)
    assert (sample.key, sample.captions, sample.fields["jpg"]) == ("000007", ["a cat", "a feline"], jpeg())
    assert sample.metadata == {
        "licence": "CC0", "list_width": "unknown", "url": row.url, "width": 40, "height": 30, "original_width": 40,
        "original_height": 30, "sha256": hashlib.sha256(jpeg()).hexdigest(),
    }  # fmt: skip


def test_what_cannot_be_had_keeps_its_columns(server, tmp_path):
    (skipped,) = fetched(rows([server.url("/gone")]), tmp_path / "ledger")
    told = rows([server.url("/gone")])[0].captions
    assert skipped == Skipped("000000", "http_404", {"column": 0, "url": server.url("/gone")}, list(told))


def test_a_hash_in_the_list_decides_whether_these_are_the_bytes(server, tmp_path):
    server.handlers["/a"] = always(jpeg())
    right, wrong = hashlib.sha256(jpeg()).hexdigest(), hashlib.sha256(jpeg(1)).hexdigest()
    what = rows([server.url("/a")] * 3, hashes={0: right.upper(), 1: wrong})
    assert reasons(fetched(what, tmp_path / "ledger")) == ["success", "hash_mismatch", "success"]


def test_a_server_learns_who_asks_and_gets_nothing_of_ours(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.otherwise = always(jpeg())
    one_by_one = limits(max_connections=1)
    assert reasons(fetched(rows([server.url("/a"), server.url("/b")]), tmp_path / "l", one_by_one)) == ["success"] * 2
    assert server.log == ["/a", "/b"]
    assert set(server.headers["/b"]) - {"connection"} == {"host", "user-agent", "accept", "accept-encoding"}
    assert server.headers["/b"]["user-agent"] == LIMITS.user_agent
    assert server.headers["/b"]["accept-encoding"] == "identity"


def test_cookies_are_forgotten(server, tmp_path, monkeypatch):
    by_name(monkeypatch, {"a.test": ["127.0.0.1"]})
    server.otherwise = always(jpeg(), headers="Set-Cookie: id=7; Path=/")
    what = rows([server.url(path, "a.test") for path in ("/a", "/b")])
    assert reasons(fetched(what, tmp_path / "l", limits(max_connections=1))) == ["success"] * 2
    assert server.log == ["/a", "/b"] and "cookie" not in server.headers["/b"]


def test_opt_outs_that_the_settings_do_not_list_are_not_heard(server, tmp_path):
    server.handlers["/a"] = always(jpeg(), headers="X-Robots-Tag: noindex")
    server.handlers["/b"] = always(jpeg(), headers="X-Robots-Tag: noai")
    what = rows([server.url("/a"), server.url("/b")])
    assert reasons(fetched(what, tmp_path / "1", limits(opt_outs=["noai"]))) == ["success", "opted_out"]
    assert reasons(fetched(what, tmp_path / "2", limits(opt_outs=[]))) == ["success", "success"]


def test_a_second_call_asks_nothing_and_gives_the_same(server, tmp_path):
    server.handlers = {f"/{n}": always(jpeg(n)) for n in range(20)}
    what = rows([server.url(f"/{n}") for n in range(22)])
    first = fetched(what, tmp_path / "ledger")
    asked, counted = len(server.log), []
    assert fetched(what, tmp_path / "ledger", done=counted.append) == first
    assert len(server.log) == asked and sum(counted) == 22
    forget(tmp_path / "ledger")
    assert fetched(what, tmp_path / "ledger") == first
    assert len(server.log) == 2 * asked


def test_rows_that_fail_are_tried_as_often_as_told(server, tmp_path):
    server.handlers = {"/500": always(status=500), "/moved": moved("/500"), "/404": always(status=404)}
    what = rows([server.url(path) for path in server.handlers])
    assert reasons(fetched(what, tmp_path / "1", limits(max_attempts=4))) == ["http_500", "http_500", "http_404"]
    assert Counter(server.log) == {"/500": 8, "/moved": 4, "/404": 1}


def test_no_redirect_is_followed_where_none_is_allowed(server, tmp_path):
    server.handlers = {"/moved": moved("/a"), "/a": always(jpeg())}
    what = rows([server.url("/moved"), server.url("/a")])
    assert reasons(fetched(what, tmp_path / "l", limits(max_redirects=0))) == ["too_many_redirects", "success"]


def test_a_name_that_changes_its_mind_does_not_lead_inside(server, tmp_path, monkeypatch):
    async def once(visit: Visit) -> None:
        await always(jpeg())(visit)
        visit.hang_up()

    server.otherwise = once
    asked = by_name(monkeypatch, {"rebound.test": ["127.0.0.1", "127.0.0.2"]})
    what = rows([server.url("/1", "rebound.test"), server.url("/2", "rebound.test")])
    careful = limits(max_connections=1, dns_cache_seconds=1e-9)
    assert reasons(fetched(what, tmp_path / "l", careful)) == ["success", "forbidden_address"]
    assert server.log == ["/1"] and asked == ["rebound.test"] * 2


def test_a_name_is_looked_up_once_for_all_its_rows(server, tmp_path, monkeypatch):
    server.otherwise = always(jpeg())
    asked = by_name(monkeypatch, {"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]})
    what = rows([server.url(f"/{n}", f"{name}.test") for n in range(20) for name in "ab"])
    assert reasons(fetched(what, tmp_path / "l")) == ["success"] * 40
    assert sorted(asked) == ["a.test", "b.test"]


def test_a_name_that_fails_for_now_is_asked_again_when_the_row_is_tried_again(server, tmp_path, monkeypatch):
    answers: list[OSError | None] = [socket.gaierror(socket.EAI_AGAIN, "later"), None]

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        if failure := answers.pop(0):
            raise failure
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(names, "PASSING_SECONDS", LIMITS.backoff_seconds / 10)
    server.otherwise = always(jpeg())
    what = rows([server.url("/a", "a.test")])
    assert reasons(fetched(what, tmp_path / "l", limits(max_attempts=2))) == ["success"]


def test_names_that_nobody_answers_for_end_too(tmp_path, monkeypatch):
    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        time.sleep(3 if host == "slow.test" else 0)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    began = time.monotonic()
    what = rows(["http://slow.test/", "http://unknown.test/"])
    assert reasons(fetched(what, tmp_path / "l", limits(connect_seconds=0.2))) == ["dns_failed"] * 2
    assert time.monotonic() - began < 2.5


def test_a_lookup_that_hangs_keeps_no_process_from_ending(tmp_path):
    code = (
        "import socket, sys, time; from pathlib import Path;"
        "from tests.data.download.world import fetched, limits, rows;"
        "socket.getaddrinfo = lambda *_, **__: time.sleep(3600);"
        "fetched(rows(['http://slow.test/']), Path(sys.argv[1]), limits(connect_seconds=0.1))"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "l"], cwd=ROOT, timeout=50).returncode == 0


def test_one_host_never_gets_more_requests_at_once_than_told(server, tmp_path, monkeypatch):
    async def busy(visit: Visit) -> None:
        await asyncio.sleep(0.02)
        await visit.answer(jpeg())

    server.otherwise = busy
    by_name(monkeypatch, {"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]})
    server.handlers["/moved"] = moved(server.url("/there", "a.test"))
    urls = [server.url(f"/{n}", "a.test") for n in range(30)] + [server.url(f"/{n}", "b.test") for n in range(15)]
    urls += [server.url("/moved", "b.test")] * 15
    assert reasons(fetched(rows(urls), tmp_path / "l", limits(max_connections_per_host=3))) == ["success"] * 60
    assert server.most_at_once == {"a.test": 3, "b.test": 3}


def test_a_slow_host_at_the_start_of_the_list_holds_no_other_up(server, tmp_path, monkeypatch):
    async def slow(visit: Visit) -> None:
        await asyncio.sleep(0.05)
        await visit.answer(jpeg())

    server.otherwise = slow
    server.handlers = {f"/fast{n}": always(jpeg()) for n in range(20)}
    by_name(monkeypatch, {"slow.test": ["127.0.0.1"], "fast.test": ["127.0.0.1"]})
    urls = [server.url(f"/slow{n}", "slow.test") for n in range(40)]
    urls += [server.url(path, "fast.test") for path in server.handlers]
    few = limits(max_connections=4, max_connections_per_host=2)
    assert reasons(fetched(rows(urls), tmp_path / "l", few)) == ["success"] * 60
    assert max(server.log.index(path) for path in server.handlers) < 30


def test_a_host_that_asks_for_a_rest_gets_it_from_all_rows(server, tmp_path):
    times: list[float] = []

    async def tired_at_first(visit: Visit) -> None:
        times.append(time.monotonic())
        tired = len(times) == 1
        await visit.answer(jpeg(), status=429 if tired else 200, headers="Retry-After: 3600" if tired else "")

    server.otherwise = tired_at_first
    what = rows([server.url(f"/{n}") for n in range(6)])
    assert reasons(fetched(what, tmp_path / "l", limits(max_connections=1))) == ["success"] * 6
    rest = times[1] - times[0]
    assert LIMITS.max_backoff_seconds <= rest < 1, "as long as asked, but no longer than max_backoff_seconds"


def asks_to_wait(headers: str = "Retry-After: 3600") -> Handler:
    return always(status=429, headers=headers)


def test_to_wait_as_asked_costs_no_attempt(server, tmp_path):
    server.otherwise = after(2, asks_to_wait())
    what = rows([server.url(f"/{n}") for n in range(4)])
    patient = limits(max_attempts=1, max_backoff_seconds=0.05)
    assert reasons(fetched(what, tmp_path / "l", patient)) == ["success"] * 4
    assert Counter(server.log) == {f"/{n}": 3 for n in range(4)}


def test_who_asks_to_wait_for_ever_is_asked_a_known_number_of_times(server, tmp_path):
    server.otherwise = asks_to_wait()
    once = limits(max_attempts=1, max_backoff_seconds=0.01)
    assert reasons(fetched(rows([server.url("/a")]), tmp_path / "l", once)) == ["http_429"]
    assert len(server.log) == MOST_WAITS + 1


def test_a_rest_that_a_lost_row_was_asked_for_is_kept_by_the_others(server, tmp_path, monkeypatch):
    times: list[float] = []

    async def timed(visit: Visit) -> None:
        times.append(time.monotonic())
        await (asks_to_wait() if visit.path == "/0" else always(jpeg()))(visit)

    monkeypatch.setattr(crew, "MOST_WAITS", 0)
    server.otherwise = timed
    what = rows([server.url(f"/{n}") for n in range(2)])
    assert reasons(fetched(what, tmp_path / "l", limits(max_attempts=1, max_connections=1))) == ["http_429", "success"]
    assert times[1] - times[0] >= LIMITS.max_backoff_seconds


def test_connections_are_kept_for_hosts_with_more_to_do_and_for_no_others(server, tmp_path):
    server.otherwise = always(jpeg())
    fetched(rows([server.url(f"/{n}") for n in range(30)]), tmp_path / "1", limits(max_connections_per_host=2))
    assert server.num_connections <= 2 + 3, "two for most rows, one for each of those for which nobody waited any more"
    assert server.headers["/29"]["connection"] == "close"


def test_long_bodies_of_unknown_length_do_not_wait_for_each_other(server, tmp_path):
    halfway: list[str] = []

    async def long(visit: Visit) -> None:
        await in_chunks(visit, jpeg() + bytes(1_100_000), whole=False, size=100_000)
        halfway.append(visit.path)
        while len(set(halfway)) < 6:
            await asyncio.sleep(0.01)
        await visit.send(b"%x\r\n%s\r\n0\r\n\r\n" % (400_000, bytes(400_000)))

    server.otherwise = long
    what = rows([server.url(f"/{n}") for n in range(6)])
    few = limits(max_bytes=1_600_000, max_held_bytes=1_600_000 + 6_000_000)
    assert reasons(fetched(what, tmp_path / "l", few)) == ["success"] * 6


@pytest.mark.parametrize("size", [15_000, 1_500_000], ids=["what the buffers hold", "more"])
def test_waiting_for_memory_counts_against_no_deadline(server, tmp_path, monkeypatch, size):
    judge = Decoder.judge

    async def slow(self: Decoder, batch: list[bytes]) -> list[Judgement]:
        await asyncio.sleep(0.6 * len(batch))
        return await judge(self, batch)

    monkeypatch.setattr(Decoder, "judge", slow)
    server.otherwise = always(jpeg() + bytes(size))
    what = rows([server.url(f"/{n}") for n in range(4)])
    tight = limits(max_bytes=2 * size, max_held_bytes=4 * size, total_seconds=1.5, read_seconds=1.4, max_attempts=1)
    began = time.monotonic()
    assert reasons(fetched(what, tmp_path / "l", tight)) == ["success"] * 4
    assert time.monotonic() - began > 4 * 0.6, "one at a time"


def test_more_connections_than_a_process_may_have_are_refused_beforehand(tmp_path):
    with pytest.raises(SettingsError, match=r"max_connections = 100000000.*use \d+ or fewer"):
        fetched(rows(["http://127.0.0.1/"]), tmp_path / "l", limits(max_connections=100_000_000))


def test_a_key_that_could_name_a_file_elsewhere_is_refused(server, tmp_path):
    server.otherwise = always(jpeg())
    with pytest.raises(ValueError, match=r"\.\./a"):
        fetched([Row("../a", server.url("/a"), ["a"], None, {})], tmp_path / "l")


def in_another_process(ledger: Path) -> str:
    code = "import sys; from tests.data.download.worker import open_ledger; open_ledger(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(ledger)], cwd=ROOT, capture_output=True, text=True)
    return done.stderr


def test_a_ledger_belongs_to_one_process_at_a_time(server, tmp_path):
    server.otherwise = always(jpeg())
    results = fetch_rows(rows([server.url(f"/{n}") for n in range(3)]), tmp_path / "l", LIMITS, AS_THEY_COME)
    assert next(results).key == "000000"
    assert "InUse" in in_another_process(tmp_path / "l")
    results.close()
    assert in_another_process(tmp_path / "l") == ""
