"""What the sections of ``params.yaml`` are made of: the kinds of values that several of them use."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LOCAL_BATCH_NORM_GROUP = 8

Augmentation = Literal["brightness", "saturation", "contrast", "translation", "cutout"]


class Section(BaseModel):
    """A group of settings: unknown keys are errors, values keep their written type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _power_of_two(px: int) -> int:
    if px < 8 or px & (px - 1):
        raise ValueError("a resolution is a power of two from 8 on (8, 16, 32, 64, …)")
    return px


def _splits_into_groups(batch_size: int) -> int:
    group = LOCAL_BATCH_NORM_GROUP
    if batch_size % group:
        below, above = batch_size // group * group, (batch_size // group + 1) * group
        use = f"{below} or {above}" if below else f"{above}"
        raise ValueError(f"a batch splits into groups of {group} for the discriminator's local batch norm; use {use}")
    return batch_size


def compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


def found_by_re2(pattern: str) -> str:
    """A pattern that Arrow's search knows; its syntax is another one than that of ``re``."""
    try:
        pyarrow = import_module("pyarrow")  # here: few commands need it, and it takes a third of a second
        search: Any = import_module("pyarrow.compute").match_substring_regex
    except ModuleNotFoundError:
        return pattern  # without the extra `train` nothing is searched, and profiles can be written all the same
    try:
        search(pyarrow.array([""]), pattern)
    except pyarrow.ArrowInvalid as error:
        reason = str(error).removeprefix("Invalid regular expression: ")
        raise ValueError(
            f"RE2 does not understand it ({' '.join(reason.split())}); it has no look-ahead, look-behind or "
            "back-references (https://github.com/google/re2/wiki/Syntax)"
        ) from None
    return pattern


Resolution = Annotated[int, AfterValidator(_power_of_two)]
BatchSize = Annotated[int, Field(gt=0), AfterValidator(_splits_into_groups)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
