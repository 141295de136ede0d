"""Lists of what must not be trained on: keys, urls, domains, words, pictures by the hash of their pixels.

A list is a text file, an entry a line; empty lines and those that start with ``#`` say nothing.
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
NO_WORD = r"[^\p{L}\p{M}\p{N}]+"
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
        hosts = pc.utf8_rtrim(pc.utf8_lower(hosts), ".")
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

    Words and domains are compared in lower case, words without what stands between them.

    Raises:
        DataError: The file is missing, is no text, or an entry is no hash of pixels where it should be.
    """
    try:
        data = path.read_bytes()
        text = data.decode()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; filter.blocklists names it in params.yaml") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}); a blocklist is a text file, an entry a line") from None
    digest = hashlib.sha256(data).hexdigest()
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if kind == "pixels":
        return Blocklist(kind, pa.array([_hash_of(line, path) for line in lines], pa.binary(32)), digest)
    entries = pa.array(lines, pa.string())
    if kind == "domains":
        entries = pc.utf8_trim(pc.utf8_lower(entries), ".")
    elif kind == "words":
        entries = pc.utf8_trim(_spaced(entries), " ")
        entries = pc.filter(entries, pc.not_equal(entries, ""))
    return Blocklist(kind, entries, digest)


def needed_columns(blocklists: Sequence[Blocklist]) -> set[str]:
    """Columns of the score tables that the lists are compared with."""
    of_kind = {"keys": "key", "urls": "url", "domains": "url", "words": "captions", "pixels": "pixel_sha256"}
    return {of_kind[blocklist.kind] for blocklist in blocklists}


def _hash_of(line: str, path: Path) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", line):
        raise DataError(f"{path}: {line!r} is no hash of pixels; they have 64 hexadecimal digits (pixel_sha256)")
    return bytes.fromhex(line)


def _spaced(texts: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """In lower case, a single space before, after and between words, and no other sign."""
    padded = pc.binary_join_element_wise(" ", pc.utf8_lower(texts), " ", "")
    return pc.replace_substring_regex(padded, NO_WORD, " ")
