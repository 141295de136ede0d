"""What a file is by its bytes: which kind of picture, and whether it is something else as well.

A *polyglot* is a picture that a reader of another kind would take for a file of its own. Most readers insist on the
first bytes of a file, which here are a picture's, so only those that do not can be deceived: archives are found from
their end or anywhere, documents somewhere in the first kilobyte, tapes and disks at a fixed place far in, and scripts
and web pages wherever their first tag stands. A program that a picture carries is refused as well. What else trails a
picture (a phone's film or second photograph, a maker's notes) is harmless and common, and is left alone.
"""

from __future__ import annotations

import re

JPEG, PNG, GIF, WEBP, AVIF = "JPEG", "PNG", "GIF", "WEBP", "AVIF"
EXTENSIONS: dict[str, str] = {JPEG: "jpg", PNG: "png", GIF: "gif", WEBP: "webp", AVIF: "avif"}
"""Kinds of pictures that are read, by Pillow's names, and their file extensions."""

MOST_SCANS = 100
"""Of a JPEG. Programs write about ten; each further one makes a decoder go over the whole picture again."""
MOST_SEGMENTS = 10_000
"""Of a JPEG whose scans are counted; a camera or program writes dozens."""
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""What begins a segment of a JPEG, or ends the picture; pixels hold FF only before 00 or a marker without a segment."""

ZIP_END, ZIP_ENTRY, LONGEST_ZIP_END = b"PK\x05\x06", b"PK\x01\x02", 22 + 65535
ANYWHERE = (
    b"Rar!\x1a\x07",
    b"7z\xbc\xaf\x27\x1c",
    b"!This program cannot be run in DOS mode",
    b"__HALT_COMPILER();",
)
"""Archives that unpack themselves, programs, PHP archives."""
ELF = b"\x7fELF"
AT_A_PLACE = ((257, b"ustar"), (128, b"DICM"), (32769, b"CD001"))
"""Tapes, medical pictures, disks: their readers skip what comes before."""
PDF, PDF_WITHIN = b"%PDF-", 1024
TAG = re.compile(rb"<(?:script|html|iframe|body|svg|object|embed|!doctype|\?php)[ \t\r\n\f/>]", re.IGNORECASE)


def kind_of(data: bytes) -> str | None:
    """The kind of picture that the first bytes tell of; None where it is none that is read."""
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WEBP
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return AVIF
    return None


def is_svg(data: bytes) -> bool:
    """Whether the bytes are an SVG file, or XML that holds one."""
    start = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith(b"<") and b"<svg" in start


def is_polyglot(data: bytes) -> bool:
    """Whether the bytes of a picture are a file of another kind as well."""
    return _has_archive(data) or _has_document(data) or _has_script(data)


def has_too_many_scans(data: bytes) -> bool:
    """Whether a JPEG starts more scans than ``MOST_SCANS``: a few hundred kilobytes can ask for hours of work.

    Only those within the picture count, which are what a decoder sees: thumbnails have their own, and the megabytes of
    a film behind the picture have the two bytes by chance.
    """
    return data.count(START_OF_SCAN) > MOST_SCANS and _starts_more_scans(data, MOST_SCANS)


def _starts_more_scans(jpeg: bytes, most: int) -> bool:
    num_scans, place = 0, 2
    for _ in range(MOST_SEGMENTS):
        marker = MARKER.search(jpeg, place)
        if marker is None or marker[0] == END_OF_IMAGE:
            return False
        num_scans += marker[0] == START_OF_SCAN
        if num_scans > most:
            return True
        length = jpeg[marker.end() : marker.end() + 2]
        place = marker.end() + max(len(length), int.from_bytes(length))
    return True


def _has_archive(data: bytes) -> bool:
    if data.rfind(ZIP_END, max(0, len(data) - LONGEST_ZIP_END)) >= 0 and ZIP_ENTRY in data:
        return True
    elf = data.find(ELF)
    while elf >= 0:
        if data[elf + 4 : elf + 7] in (b"\1\1\1", b"\1\2\1", b"\2\1\1", b"\2\2\1"):
            return True
        elf = data.find(ELF, elf + 1)
    return any(mark in data for mark in ANYWHERE)


def _has_document(data: bytes) -> bool:
    if data.find(PDF, 0, PDF_WITHIN) >= 0:
        return True
    return any(data.startswith(mark, place) for place, mark in AT_A_PLACE)


def _has_script(data: bytes) -> bool:
    if data[4:6] == b"/*" or (data.startswith(b"GIF") and data[6:8] == b"/*"):  # a size that opens a comment
        return True
    return TAG.search(data) is not None
