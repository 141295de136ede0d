from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest
from yarl import URL

from stylegan_t.data.download.fetch import Client
from stylegan_t.data.download.hosts import DOUBTED_AFTER, GIVEN_UP_AFTER, Hosts
from stylegan_t.data.download.outcomes import Body, Failure, Outcome
from tests.data.download.server import Server, always
from tests.data.download.world import fetched, jpeg, limits, reasons, rows

SILENCE, REFUSAL = Failure("timeout_read", again=True), Failure("connection_failed", again=True)


def asked_in_vain(hosts: Hosts, times: int, host: str = "a.test") -> None:
    for _ in range(times):
        hosts.asked_in_vain(host, SILENCE)


def test_a_host_is_doubted_and_then_given_up_with_its_last_failure():
    hosts = Hosts()
    asked_in_vain(hosts, DOUBTED_AFTER - 1)
    assert not hosts.is_doubted("a.test")
    asked_in_vain(hosts, 1)
    assert hosts.is_doubted("a.test") and not hosts.is_doubted("b.test")
    asked_in_vain(hosts, GIVEN_UP_AFTER - DOUBTED_AFTER - 1)
    assert hosts.given_up("a.test") is None
    hosts.asked_in_vain("a.test", REFUSAL)
    assert hosts.given_up("a.test") == REFUSAL and hosts.given_up("b.test") is None


def test_an_answer_makes_up_for_all():
    hosts = Hosts()
    asked_in_vain(hosts, GIVEN_UP_AFTER)
    hosts.answered("a.test")
    asked_in_vain(hosts, DOUBTED_AFTER - 1)
    assert not hosts.is_doubted("a.test") and hosts.given_up("a.test") is None


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What was asked for: a host's first letter, and the path. One host is silent, one answers every third time."""
    asked: list[str] = []

    async def request(self: Client, url: URL, lasting: bool = True) -> Outcome:
        asked.append(f"{url.host}"[0] + url.path)
        await asyncio.sleep(0)
        silent = url.host == "silent.test" or (url.host == "moody.test" and len(asked) % 3)
        return SILENCE if silent else Body(jpeg(), [])

    monkeypatch.setattr(Client, "request", request)
    return asked


def test_rows_of_a_silent_host_are_tried_once_and_then_not_at_all(tmp_path, asked):
    what = rows([f"http://silent.test/{n}" for n in range(100)])
    one_by_one = limits(max_connections=1, backoff_seconds=1e-9)
    assert reasons(fetched(what, tmp_path / "l", one_by_one)) == ["timeout_read"] * 100
    assert len(asked) == GIVEN_UP_AFTER
    assert asked[:3] == ["s/0"] * 3, "as often as any"
    assert max(Counter(asked[DOUBTED_AFTER:]).values()) == 1


def test_a_silent_host_costs_no_other(tmp_path, asked):
    what = rows([f"http://{name}.test/{n}" for n in range(100) for name in ("silent", "other")])
    few = limits(max_connections_per_host=4)
    assert reasons(fetched(what, tmp_path / "l", few)) == ["timeout_read", "success"] * 100
    assert Counter(name[0] for name in asked)["o"] == 100
    assert Counter(name[0] for name in asked)["s"] < GIVEN_UP_AFTER + 4, "that many were under way"


def test_a_host_that_answers_now_and_then_is_not_doubted(tmp_path, asked):
    what = rows([f"http://moody.test/{n}" for n in range(2 * GIVEN_UP_AFTER)])
    one_by_one = limits(max_connections=1, backoff_seconds=1e-9)
    assert reasons(fetched(what, tmp_path / "l", one_by_one)) == ["success"] * 2 * GIVEN_UP_AFTER
    assert len(asked) == 3 * 2 * GIVEN_UP_AFTER


def test_a_host_that_asked_for_a_rest_gets_more_at_a_time_again(tmp_path, monkeypatch):
    num_asked = itertools.count(1)
    three = asyncio.Barrier(3)

    async def request(self: Client, url: URL, lasting: bool = True) -> Outcome:
        number = next(num_asked)
        if number == 1:
            return Failure("http_429", again=True, wait_seconds=0.01)
        if number > 5:
            async with asyncio.timeout(20):
                await three.wait()
        return Body(jpeg(), [])

    monkeypatch.setattr(Client, "request", request)
    what = rows([f"http://a.test/{n}" for n in range(10)])
    assert reasons(fetched(what, tmp_path / "l", limits(max_connections_per_host=4))) == ["success"] * 10


def test_a_host_that_only_asks_to_wait_is_given_up_too(tmp_path):
    with Server(otherwise=always(status=503, headers="Retry-After: 60")) as server:
        what = rows([server.url(f"/{n}") for n in range(100)])
        short = limits(max_connections_per_host=4, backoff_seconds=0.01, max_backoff_seconds=0.01)
        assert reasons(fetched(what, tmp_path / "l", short)) == ["http_503"] * 100
    assert len(server.log) <= 4 * GIVEN_UP_AFTER
