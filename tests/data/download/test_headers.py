from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stylegan_t.data.download.headers import may_be_picture, opted_out, retry_after_seconds

DIRECTIVES, AGENTS = ["noai", "noindex"], ["stylegan-t", "img2dataset"]


@pytest.mark.parametrize(
    "values",
    [
        ["noai"],
        [" NOINDEX "],
        ["nofollow,noai"],
        ["all", "noai"],
        ["max-snippet: 10, noindex"],
        ["unavailable_after: 25 Jun 2010 15:00:00 PST, noindex"],
        ["unavailable_after: Friday, 25-Jun-10 15:00:00 PST, noindex"],
        ["img2dataset: noai"],
        ["Stylegan-T: nofollow, noindex"],
        ["*: noai"],
        ["googlebot: nofollow", "noai"],
        ["noai, otherbot: nofollow"],
        ["otherbot: nofollow, stylegan-t: noai"],
        ["none"],
        ["googlebot: nofollow, Stylegan-T: NONE"],
    ],
)
def test_these_ask_not_to_be_used(values):
    assert opted_out(values, DIRECTIVES, AGENTS)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["all"],
        ["noarchive, nosnippet"],
        ["noaind"],
        ["googlebot: none"],
        ["nonesuch"],
        ["googlebot: noindex"],
        ["googlebot: nofollow, noindex"],
        ["otherbot: noai, googlebot: noindex"],
        ["max-image-preview: noai"],
        [":", ",,", "a:b:noai"],
    ],
)
def test_these_do_not(values):
    assert not opted_out(values, DIRECTIVES, AGENTS)


def test_none_counts_where_what_it_stands_for_does():
    assert opted_out(["none"], ["nofollow"], []) and opted_out(["none"], ["none"], [])
    assert not opted_out(["none"], ["noai"], [])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("120", 120),
        (" 7 ", 7),
        ("-5", 0),
        ("soon", 0),
        ("Wed, 21 Oct 99999999999999999999 07:28:30 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30),
        ("9" * 400, float("inf")),
    ],
)
def test_how_long_to_wait(value, seconds):
    assert retry_after_seconds(value, datetime(2015, 10, 21, 7, 28, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("kind", [None, "", "image/jpeg", "IMAGE/PNG; charset=x", "application/octet-stream"])
def test_these_may_be_pictures(kind):
    assert may_be_picture(kind)


@pytest.mark.parametrize(
    "kind", ["text/html", "text/plain; charset=utf-8", "application/pdf", "video/mp4", "x-image/a"]
)
def test_these_are_none(kind):
    assert not may_be_picture(kind)
