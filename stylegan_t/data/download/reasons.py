"""Why a row of a list became no sample: every reason that the downloader gives, in one word each.

A reason is final within one run's ledger: what deserved another try has had it (``limits.max_attempts``).
"""

from __future__ import annotations

SUCCESS = "success"

NOT_DOWNLOADED: dict[str, str] = {
    "bad_url": "not an absolute http or https address, or one with a user name in it",
    "forbidden_address": "leads to a private, loopback, link-local or otherwise not public address",
    "dns_failed": "the host has no address, or nobody told in time",
    "connection_failed": "nobody answers there",
    "connection_reset": "the server hung up before it answered",
    "tls_failed": "the host's certificate or its encryption is not accepted",
    "timeout_connect": "no connection within connect_seconds",
    "timeout_read": "silence for read_seconds in the middle of an answer",
    "timeout_total": "not whole within total_seconds",
    "bad_response": "what came back is no HTTP",
    "too_many_redirects": "redirected more than max_redirects times",
    "redirect_loop": "redirected to where it had been before",
    "opted_out": "the answer's X-Robots-Tag asks not to be used so",
    "wrong_type": "the answer says that it is no picture, or its first bytes are those of no kind that is read",
    "wrong_encoding": "the answer is compressed once more, though that was not asked for",
    "too_large": "more than max_bytes",
    "truncated": "the answer broke off: fewer bytes than announced",
    "hash_mismatch": "not the bytes whose sha256 the list gives",
}
"""Reasons for which there are no bytes to look at, and what they mean; to these comes ``http_`` with the status."""

NOT_KEPT: dict[str, str] = {
    "svg": "an SVG file: a program that draws, and can do more",
    "polyglot": "also a file of another kind (an archive, a document, a script, a program)",
    "too_many_pixels": "more than max_pixels once decoded, by its header, or more memory than a decoder may take",
    "too_many_scans": "a JPEG in more scans than any camera or program writes: it would decode for hours",
    "undecodable": "a damaged picture",
    "crashed": "its decoder crashed on it, twice",
    "timeout_decode": "not decoded within decode_seconds, twice",
    "too_small": "shorter side below min_side_px",
    "aspect": "longer side more than max_aspect_ratio times the shorter",
}
"""Reasons found in the bytes that came, and what they mean."""


def http(status: int) -> str:
    """The reason for an answer of another status than 200."""
    return f"http_{status}"


def meaning(reason: str) -> str:
    """A reason in words."""
    if reason.startswith("http_"):
        return f"the server answered with status {reason.removeprefix('http_')}"
    return (NOT_DOWNLOADED | NOT_KEPT)[reason]


def was_downloaded(reason: str) -> bool:
    """Whether the bytes had come when the row failed (img2dataset's ``failed_to_resize``)."""
    return reason in NOT_KEPT
