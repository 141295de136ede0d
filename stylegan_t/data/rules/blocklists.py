"""Lists of what must not be trained on: keys, urls, domains, words, pictures by the hash of their pixels.

A list is a text file, an entry a line; empty lines and those that start with ``#`` say nothing. Behind a domain, a word
or a hash, which hold no such sign, ``#`` after a space begins a comment too; keys and urls are taken whole. An entry
that could never be found, or that would stand for more than it says, is an error: nobody would notice it otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool
from yarl import URL

from stylegan_t.data.rules.columns import bools, pc, some_true
from stylegan_t.data.scores import flat
from stylegan_t.errors import DataError

Kind = Literal["keys", "urls", "domains", "words", "pixels"]
REASONS: dict[Kind, str] = {
    "keys": "blocked_key", "urls": "blocked_url", "domains": "blocked_domain", "pixels": "blocked_pixels",
    "words": "blocked_word",
}  # fmt: skip
"""In the order in which they are asked."""

HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]+)"
A_HOST = r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\]"
NO_WORD = r"[^\p{L}\p{M}\p{N}]+"
WITHOUT_SPACES = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
"""Scripts in which words stand side by side: each character counts as a word, and a word as a phrase of them."""
A_PHRASE = r"^[\p{L}\p{M}\p{N}](?:[^\p{S}#%*@\\]*[\p{L}\p{M}\p{N}])?$"
"""Nothing but words, and between them what joins or parts them, which captions are compared without."""
PHRASES_AT_ONCE = 100


@dataclass(frozen=True)
class Blocklist:
    """Entries of one kind, in the form in which they are compared; get one from ``read_blocklist``."""

    kind: Kind
    entries: pa.Array
    sha256: str
    """Of the file."""

    def hits(self, table: pa.Table) -> Bool[np.ndarray, " n"]:
        """Rows of a score table that the list names: by a caption of theirs, if it is one of words."""
        if self.kind == "words":
            starts, captions = flat(table["captions"])
            return some_true(self._holds_word(captions), starts)
        if self.kind == "domains":
            return self._of_domain(table["url"])
        column = {"keys": "key", "urls": "url", "pixels": "pixel_sha256"}[self.kind]
        return bools(pc.is_in(table[column], value_set=self.entries))

    def _of_domain(self, urls: pa.ChunkedArray) -> Bool[np.ndarray, " n"]:
        hosts = pc.struct_field(pc.extract_regex(urls, HOST), "host")
        hosts = pc.utf8_lower(hosts)
        others = bools(pc.invert(pc.string_is_ascii(hosts)))
        names = pa.array(map(_ascii, pc.filter(hosts, pa.array(others)).to_pylist()), pa.string())
        hosts = pc.utf8_rtrim(pc.replace_with_mask(hosts, pa.array(others), names), ".")
        hit = np.zeros(len(hosts), bool)
        while pc.any(pc.is_valid(hosts)).as_py():  # a.b.example.com, then b.example.com, …: a label less each time
            hit |= bools(pc.is_in(hosts, value_set=self.entries))
            hosts = pc.struct_field(pc.extract_regex(hosts, r"^[^.]*\.(?P<host>.+)$"), "host")
        return hit

    def _holds_word(self, captions: pa.ChunkedArray) -> Bool[np.ndarray, " m"]:
        spaced = _spaced(captions)
        phrases = [entry for entry in self.entries.to_pylist() if " " in entry]
        starts, words = flat(pc.split_pattern(spaced, " "))
        hit = some_true(bools(pc.is_in(words, value_set=self.entries)), starts)
        for start in range(0, len(phrases), PHRASES_AT_ONCE):
            some = "|".join(map(re.escape, phrases[start : start + PHRASES_AT_ONCE]))
            hit |= bools(pc.match_substring_regex(spaced, f" (?:{some}) "))
        return hit


def read_blocklist(kind: Kind, path: Path) -> Blocklist:
    """The list in a file.

    Domains are compared in the form in which DNS knows them, words in lower case and without what stands between them.

    Raises:
        DataError: The file is missing or is no text, or an entry is not of its kind.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; filter.blocklists names it in params.yaml") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}); a blocklist is a text file, an entry a line") from None
    entries = {}
    for number, whole in enumerate(text.splitlines(), 1):
        line = whole if kind in ("keys", "urls") else re.sub(r"\s#.*", "", whole)
        if (line := line.strip()) and not line.startswith("#"):
            entries[f"{path}, line {number}: {line!r}"] = line
    if kind == "pixels":
        compared = pa.array([_hash_of(line, place) for place, line in entries.items()], pa.binary(32))
    elif kind == "domains":
        compared = pa.array([_host_of(line, place) for place, line in entries.items()], pa.string())
    else:
        compared = pa.array(entries.values(), pa.string())
        if kind == "words":
            compared = _words(compared, list(entries))
    return Blocklist(kind, compared, hashlib.sha256(data).hexdigest())


def needed_columns(blocklists: Sequence[Blocklist]) -> set[str]:
    """Columns of the score tables that the lists are compared with."""
    of_kind = {"keys": "key", "urls": "url", "domains": "url", "words": "captions", "pixels": "pixel_sha256"}
    return {of_kind[blocklist.kind] for blocklist in blocklists}


def _hash_of(line: str, place: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", line):
        raise DataError(f"{place} is no hash of pixels; they have 64 hexadecimal digits (pixel_sha256)")
    return bytes.fromhex(line)


def _host_of(line: str, place: str) -> str:
    host = _ascii(line.lower()).strip(".")
    if not re.fullmatch(A_HOST, host):
        raise DataError(
            f"{place} is no host; use example.com, which covers those below it, or an address (192.0.2.1, "
            "[2001:db8::1]), without http://, *, port or path"
        )
    return host


def _ascii(host: str) -> str:
    """``xn--mller-kva.de`` of ``müller.de``, by the rules of the library that fetches; what is no host as it is."""
    if host.isascii():
        return host
    try:
        return URL.build(scheme="http", host=host).raw_host or host
    except ValueError:
        return host


def _words(entries: pa.Array, places: Sequence[str]) -> pa.Array:
    compared = pc.utf8_trim(_spaced(entries), " ")
    for row in np.flatnonzero(~bools(pc.match_substring_regex(entries, A_PHRASE)))[:1].tolist():
        means = repr(compared[row].as_py()) if compared[row].as_py() else "nothing"
        raise DataError(
            f"{places[row]} would stand for {means}, since captions are compared without other signs; use words of "
            "letters and digits, with spaces, hyphens, apostrophes, commas and the like between them"
        )
    return compared


def _spaced(texts: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """In lower case, a single space before, after and between words, and no other sign."""
    padded = pc.binary_join_element_wise(" ", pc.utf8_lower(texts), " ", "")
    padded = pc.replace_substring_regex(padded, WITHOUT_SPACES, r" \1 ")
    return pc.replace_substring_regex(padded, NO_WORD, " ")
