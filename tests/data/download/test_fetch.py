from __future__ import annotations

import pytest
from yarl import URL

from stylegan_t.data.download.fetch import parse
from tests.data.download.server import Server, always, moved
from tests.data.download.world import fetched, jpeg, reasons, rows

BASE = URL("https://b.example:8443/x/y?z", encoded=True)
WRITTEN = [
    "/a%3Ab%40c%2Cd%27e?x=%3A%2F",
    "/a:b@c,d'e?x=:/",
    "/%7e?sig=ab%2Bc%3d%3D&e=a+b",
    "/a//b/.c/d..?up=/../",
    "/[1]!$&()*;~?a[]=?/",
    "?x=%2f",
]


def written(url: URL | None) -> str:
    """As it is asked for."""
    assert url is not None
    return f"{url.scheme}://{url.host_port_subcomponent}{url.raw_path_qs}"


@pytest.mark.parametrize("rest", WRITTEN)
def test_what_follows_the_host_is_asked_for_as_it_was_written(rest):
    asked = "http://a.example" + (rest if rest.startswith("/") else f"/{rest}")
    assert written(parse(f" HTTP://A.example:80{rest}#part%zz ")) == asked
    assert written(parse(f"http://a.example{rest}", BASE)) == asked


@pytest.mark.parametrize("rest", WRITTEN[:-1])
def test_so_is_what_a_redirect_gives(rest):
    assert written(parse(rest, BASE)) == f"https://b.example:8443{rest}"
    assert written(parse(f"z{rest}", BASE)) == f"https://b.example:8443/x/z{rest}"


def test_servers_are_sent_the_very_text(tmp_path):
    with Server({"/moved": moved(WRITTEN[2])}, otherwise=always(jpeg())) as server:
        what = rows([server.url(path) for path in (*WRITTEN[:2], "/moved")])
        assert reasons(fetched(what, tmp_path / "ledger")) == ["success"] * 3
        assert sorted(server.log) == sorted([*WRITTEN[:3], "/moved"])


@pytest.mark.parametrize(
    ("rest", "asked"),
    [
        ("/a b", "/a%20b"),
        ("/é?ü=ü", "/%C3%A9?%C3%BC=%C3%BC"),
        ("/100%", "/100%25"),
        ("/%zz%41", "/%25zzA"),
        ('/<">{|}^`', "/%3C%22%3E%7B%7C%7D%5E%60"),
        ("/a/../b?x=1", "/b?x=1"),
        ("/a/./b", "/a/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/..", "/"),
    ],
)
@pytest.mark.parametrize("base", [None, BASE])
def test_what_cannot_be_sent_so_is_quoted(rest, asked, base):
    assert written(parse(f"http://a.example{rest}", base)) == f"http://a.example{asked}"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://Bücher.example/%7e", "xn--bcher-kva.example", 80),
        ("https://A.EXAMPLE:8443/%7e", "a.example", 8443),
        ("http://[::1]:99/%7e", "::1", 99),
        ("//C.example/%7e", "c.example", 443),
        ("/%7e", "b.example", 8443),
    ],
)
def test_hosts_are_written_as_they_are_looked_up(url, host, port):
    parsed = parse(url, BASE)
    assert parsed is not None and (parsed.raw_host, parsed.port, parsed.raw_path) == (host, port, "/%7e")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/", "file:///etc/passwd", "javascript:alert(1)", "http://", "http:///a", "http://?a", "http://#a",
        "http://me@a.example/", "http://me:secret@a.example/?x", "http://:secret@a.example/",
        "http://a.example:0/", "http://a.example:99999/", "http://a.example:x/", "http://a.example:-1/",
        "http://[::1", "http://[::1]x/", "http://[::1]@", "http://a\\b/", "http://a\\@b.example/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("base", [None, BASE])
def test_other_addresses_are_none(url, base):
    assert parse(url, base) is None


@pytest.mark.parametrize("url", ["", "/a.jpg", "a.jpg", "//a.example/", "a.example/a.jpg"])
def test_an_address_of_a_row_is_absolute(url):
    assert parse(url) is None
