"""The network here goes down: what is seen then is no result."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from stylegan_t.data.download.ledger import Ledger
from stylegan_t.errors import Unreachable
from tests.data.download.server import Server, Visit, always
from tests.data.download.world import fetched, jpeg, limits, reasons, rows

LIMITS = limits(max_unreached=10, total_seconds=20)
IMPATIENT = limits(max_unreached=10, total_seconds=0.2)


class Network:
    """Whether names are found; those that end in ``.dead`` never are."""

    is_up = True


@pytest.fixture
def network(monkeypatch) -> Network:
    network = Network()

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        if not network.is_up or host.endswith(".dead"):
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return network


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(otherwise=always(jpeg())) as running:
        yield running


def dead(count: int) -> list[str]:
    return [f"http://{n}.dead/" for n in range(count)]


def test_an_outage_makes_no_row_final_and_the_same_call_goes_on(server, tmp_path, network):
    what = rows([server.url("/", f"{n % 8}.test") for n in range(40)])
    network.is_up = False
    told = (
        r"download: 10 rows reached nobody \(10 dns_failed; hosts: \d, as \d\.test\), and no other host answers; .*"
        r"the same command again: it goes on\. .* download\.fetching\.max_unreached = null"
    )
    with pytest.raises(Unreachable, match=told):
        fetched(what, tmp_path / "l", IMPATIENT)
    with Ledger(tmp_path / "l") as ledger:
        assert len(ledger) == 0
    network.is_up = True
    assert reasons(fetched(what, tmp_path / "l", LIMITS)) == ["success"] * 40


def test_answers_of_hosts_that_are_known_already_hide_no_outage(server, tmp_path, network):
    async def as_the_network_goes_down(visit: Visit) -> None:
        network.is_up = False
        await visit.answer(jpeg())

    server.otherwise = as_the_network_goes_down
    known = [server.url(f"/{n}", "known.test") for n in range(100)]
    others = [server.url("/", f"{n}.test") for n in range(100)]
    what = rows([known[0], *(url for pair in zip(others, known[1:], strict=False) for url in pair)])
    with pytest.raises(Unreachable):
        fetched(what, tmp_path / "l", limits(max_unreached=10, max_connections=1, backoff_seconds=1e-3))
    with Ledger(tmp_path / "l") as ledger:
        assert all(ledger[row].facts.status == "success" for row in ledger)


def test_dead_hosts_that_are_left_at_the_end_are_final(server, tmp_path, network):
    what = rows([server.url("/", "a.test"), *dead(50)])
    assert reasons(fetched(what, tmp_path / "l", LIMITS)) == ["success"] + ["dns_failed"] * 50


def test_dead_hosts_that_an_earlier_run_left_are_final(server, tmp_path, network):
    what = rows([server.url("/", "a.test"), *dead(50)])
    fetched(what[:1], tmp_path / "l", LIMITS)
    assert reasons(fetched(what, tmp_path / "l", LIMITS)) == ["success"] + ["dns_failed"] * 50


def test_dead_hosts_at_the_start_wait_for_a_slow_one(server, tmp_path, network):
    async def slow(visit: Visit) -> None:
        await asyncio.sleep(0.3)
        await visit.answer(jpeg())

    server.otherwise = slow
    what = rows([*dead(50), server.url("/", "a.test")])
    patient = limits(max_unreached=10, total_seconds=20, read_seconds=20)
    assert reasons(fetched(what, tmp_path / "l", patient)) == ["dns_failed"] * 50 + ["success"]


def test_a_dead_list_can_be_finished(tmp_path, network):
    assert reasons(fetched(rows(dead(30)), tmp_path / "1", limits(max_unreached=None))) == ["dns_failed"] * 30
    assert reasons(fetched(rows(dead(9)), tmp_path / "2", IMPATIENT)) == ["dns_failed"] * 9, "too few to tell"


def test_a_name_server_that_knows_no_such_host_is_no_outage(tmp_path, monkeypatch):
    def getaddrinfo(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert reasons(fetched(rows(dead(30)), tmp_path / "l", IMPATIENT)) == ["dns_failed"] * 30
