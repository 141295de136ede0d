"""Lists in JSON files of any length, value by value."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

CHUNK = 2**16
SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


def values_of(file: BufferedIOBase, name: str | None) -> Iterator[Any]:
    """The values of the list that the file is or, where it is an object, of its list ``name``; one at a time.

    Raises:
        ValueError: The file is no such thing; says what there is.
    """
    text = _Text(file)
    if text.next() == "[":
        if name is None:
            yield from _values(text)
            return
        raise ValueError(f"it is a list, not an object with a list {name!r}")
    if text.next() != "{":
        raise ValueError(f"it begins with {text.next()!r}, not with a list or an object")
    if name is None:
        names = ", ".join(key for key, value in _members(text) if value is _List)
        raise ValueError(f"it is an object; name its list of rows in download.source.records: {names or 'it has none'}")
    seen = []
    for key, value in _members(text, stop_at=name):
        seen.append(key)
        if key == name:
            if value is not _List:
                raise ValueError(f"{name!r} is no list")
            yield from _values(text)
            return
    raise ValueError(f"no list {name!r}; there are {', '.join(seen) or 'none'}")


class _List:
    """Stands for a list that is not read."""


class _Text:
    """The text of a file, of which only the part at hand is in memory."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._text, self._at, self._ended = "", 0, False

    def next(self) -> str:
        """The next character that is no white space, which stays; an error at the end."""
        while True:
            self._at = SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            self._more()

    def take(self, expected: str) -> str:
        """Pass the next character, one of ``expected``."""
        found = self.next()
        if found not in expected:
            raise ValueError(f"{found!r} where one of {' '.join(expected)} is expected")
        self._at += 1
        return found

    def value(self) -> Any:
        """Pass the next value."""
        self.next()
        while True:
            try:
                value, end = _decode(self._text, self._at)
                if end < len(self._text) or self._ended:  # else a number may go on
                    self._at = end
                    return value
            except ValueError:
                if self._ended:
                    raise
            self._more()

    def _more(self) -> None:
        if self._ended:
            raise ValueError("it ends in the middle")
        # As much again as there is, so that a long value is tried only a few times.
        data = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._ended = not data
        self._text = self._text[self._at :] + self._decoder.decode(data, final=self._ended)
        self._at = 0


def _values(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.next() == "]":
        text.take("]")
        return
    while True:
        yield text.value()
        if text.take(",]") == "]":
            return


def _members(text: _Text, stop_at: str | None = None) -> Iterator[tuple[str, Any]]:
    """Names and values of an object; lists are passed value by value, except that before ``stop_at``'s it waits."""
    text.take("{")
    if text.next() == "}":
        return
    while True:
        key = text.value()
        text.take(":")
        if text.next() == "[":
            yield key, _List
            if key == stop_at:
                return
            for _ in _values(text):
                pass
        else:
            yield key, text.value()
        if text.take(",}") == "}":
            return
