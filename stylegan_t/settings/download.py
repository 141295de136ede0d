"""Settings of what is fetched from the web: by whom and how patiently, and how the pictures are kept."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from stylegan_t.settings.fields import Count, Positive, Section

MOST_PIXELS = 89_478_485
"""Pillow refuses to decode more."""


def _is_network(network: str) -> str:
    try:
        ip_network(network)
    except ValueError as error:
        raise ValueError(
            f"{error}; write a network like 10.1.0.0/16 or fd00::/8, a single address with /32 or /128"
        ) from None
    return network


Network = Annotated[str, AfterValidator(_is_network)]
Word = Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")]


class Fetching(Section):
    """How pictures are fetched from the web; limits that count are for each worker process."""

    user_agent: Annotated[str, Field(min_length=1, pattern=r"^[\x20-\x7e]+$")] = Field(
        description="what servers are told; add an address at which you can be reached"
    )
    max_connections: Count = Field(description="connections open at a time")
    max_connections_per_host: Count = Field(description="connections to one host at a time")
    dns_cache_seconds: Positive = Field(description="how long a host's addresses, or that it has none, are remembered")
    connect_seconds: Positive = Field(description="longest wait for a host's address, and again for the connection")
    read_seconds: Positive = Field(description="longest silence in an answer")
    total_seconds: Positive = Field(
        description="longest time from the start of a request to its last byte; a redirect is a request of its own"
    )
    max_attempts: Count = Field(
        description="times that a row is tried in all, where trying again may help; an answer that asks to wait "
        "(Retry-After) is none of them"
    )
    backoff_seconds: Positive = Field(description="wait before the second attempt; doubled for each further one")
    max_backoff_seconds: Positive = Field(
        description="longest wait before another attempt, also where a server asks for more (Retry-After)"
    )
    max_unreached: Count | None = Field(
        description="stop, to go on later, where so many rows of a part reach nobody and no other host answers either: "
        "the network here may be down; null = never, for hosts that are really gone"
    )
    max_redirects: int = Field(ge=0, description="redirects that are followed for a row")
    max_bytes: Count = Field(description="refuse larger pictures")
    max_held_bytes: Count = Field(description="memory for pictures that are being read or wait to be decoded")
    allowed_networks: list[Network] = Field(
        description="networks that may be connected to although they are not public, e.g. 10.1.0.0/16; [] = none"
    )
    opt_outs: list[Word] = Field(
        description="directives of the header X-Robots-Tag, in small letters, that are honoured; [] = none"
    )
    opt_out_agents: list[Word] = Field(
        description="names, in small letters, under which such a directive is meant for us, beside those for everybody"
    )
    num_decoders: Count = Field(description="further processes that check, decode and resize what has come")
    decode_seconds: Positive = Field(description="longest time that one of them may take for a picture")

    @model_validator(mode="after")
    def _fits_in_memory(self) -> Fetching:
        if self.max_held_bytes < 2 * self.max_bytes:
            raise ValueError(
                f"max_held_bytes = {self.max_held_bytes}: one picture may have {self.max_bytes} bytes (max_bytes); "
                f"use {2 * self.max_bytes} or more"
            )
        return self


class Stored(Section):
    """How a fetched picture is kept, and which are refused."""

    resize: Literal["none", "keep_ratio", "centre_crop"] = Field(
        description="none keeps the bytes as they came, but turns pictures upright; keep_ratio makes the shorter side "
        "size_px; centre_crop cuts the centre square out and makes it size_px"
    )
    size_px: Count | None = Field(description="side to resize to; null with resize none, and only then")
    upscale: bool = Field(description="also enlarge pictures that are smaller")
    image_format: Literal["jpeg", "webp", "png"] = Field(description="what is resized or turned is encoded so")
    quality: int = Field(ge=1, le=100, description="of jpeg and webp (png is lossless)")
    max_pixels: int = Field(
        gt=0,
        le=MOST_PIXELS,
        description="refuse pictures of more (decompression bombs), and any that take too much memory to decode",
    )
    min_side_px: Count | None = Field(description="refuse pictures whose shorter side is smaller; null = off")
    max_aspect_ratio: float | None = Field(
        ge=1, description="refuse pictures whose longer side is more times the shorter; null = off"
    )

    @model_validator(mode="after")
    def _has_a_size_to_resize_to(self) -> Stored:
        if (self.resize == "none") != (self.size_px is None):
            raise ValueError(f"size_px = {self.size_px} with resize = {self.resize!r}: null with none, and only then")
        return self
