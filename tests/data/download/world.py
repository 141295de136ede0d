"""Rows, limits and pictures for the tests of the downloader."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylegan_t.data.download.fetch import Limits
from stylegan_t.data.download.pictures import Storage
from stylegan_t.data.download.rows import Row, fetch_rows
from stylegan_t.data.shards import Sample, Skipped

LIMITS = Limits(
    user_agent="stylegan-t-test (nobody@example.org)", max_connections=64, max_connections_per_host=64,
    dns_cache_seconds=60, connect_seconds=1, read_seconds=0.5, total_seconds=1.5, max_attempts=3, backoff_seconds=0.02,
    max_backoff_seconds=0.2, max_unreached=200, max_redirects=3, max_bytes=20_000, max_held_bytes=200_000,
    allowed_networks=["127.0.0.1/32"], opt_outs=["noai", "noimageai", "noindex", "noimageindex"],
    opt_out_agents=["stylegan-t", "img2dataset"], num_decoders=1,
    decode_seconds=20,
)  # fmt: skip
AS_THEY_COME = Storage(
    resize="none", size_px=None, upscale=False, image_format="jpeg", quality=95, max_pixels=1_000_000,
    min_side_px=None, max_aspect_ratio=None,
)  # fmt: skip


def limits(**changes: Any) -> Limits:
    return replace(LIMITS, **changes)


def storage(**changes: Any) -> Storage:
    return replace(AS_THEY_COME, **changes)


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """Smooth, so that it survives JPEG, and different for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def stored(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def jpeg(seed: int = 0, width: int = 40, height: int = 30) -> bytes:
    return stored(picture(width, height, seed), quality=90)


def rows(urls: Sequence[str], hashes: dict[int, str] | None = None) -> list[Row]:
    return [
        Row(f"{number:06d}", url, [f"picture number {number}"], (hashes or {}).get(number), {"column": number})
        for number, url in enumerate(urls)
    ]


def fetched(
    what: Sequence[Row], ledger: Path, limits: Limits = LIMITS, storage: Storage = AS_THEY_COME,
    done: Callable[[int], None] = lambda count: None,
) -> list[Sample | Skipped]:  # fmt: skip
    return list(fetch_rows(what, ledger, limits, storage, done))


def reasons(results: Sequence[Sample | Skipped]) -> list[str]:
    return [result.reason if isinstance(result, Skipped) else "success" for result in results]


def by_name(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[str]]) -> list[str]:
    """Names resolve to these addresses, to the last one for ever; returns the names asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        asked.append(host)
        addresses = answers[host]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked
