"""What the headers of an answer say: what kind of thing it is, whether it may be used, when to come again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

PICTURE_TYPES = ("image/", "application/octet-stream", "binary/octet-stream")
RULES_WITH_A_VALUE = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
MEANS: dict[str, tuple[str, ...]] = {"none": ("noindex", "nofollow")}
"""Directives that stand for others."""
AGENT = re.compile(r"[a-z0-9*][a-z0-9*._/-]*")


def may_be_picture(content_type: str | None) -> bool:
    """Whether a Content-Type leaves hope for a picture; a server that gives none, or says "bytes", often sends one."""
    return not content_type or content_type.strip().lower().startswith(PICTURE_TYPES)


def is_svg_type(content_type: str | None) -> bool:
    return (content_type or "").strip().lower().startswith("image/svg")


def opted_out(values: Iterable[str], directives: Sequence[str], agents: Sequence[str]) -> bool:
    """Whether an answer's X-Robots-Tag headers ask not to be used.

    A header is a list of directives, for everybody, or from an agent's name and a colon on for that agent alone:
    ``noai, noimageai``; ``googlebot: noindex``; ``noindex, max-snippet: 10, otherbot: noai``. ``none`` is short for
    ``noindex, nofollow``.

    Args:
        values: The headers' values.
        directives: Those that are honoured, in small letters.
        agents: Names, in small letters, under which one is addressed.
    """
    return any(
        directive in directives and (agent in agents or agent in ("", "*"))
        for value in values
        for agent, directive in _directives(value)
    )


def _directives(value: str) -> Iterable[tuple[str, str]]:
    agent = ""
    for item in value.lower().split(","):
        name, colon, rest = (part.strip() for part in item.partition(":"))
        if colon and name not in RULES_WITH_A_VALUE and AGENT.fullmatch(name):
            agent, name = name, rest
        for directive in (name, *MEANS.get(name, ())):
            yield agent, directive


def retry_after_seconds(value: str | None, now: datetime | None = None) -> float:
    """How long a server asks to be left alone: Retry-After in seconds or as a date; 0 where it does not, or badly."""
    if not value:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
