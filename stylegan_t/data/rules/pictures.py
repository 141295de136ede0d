"""Rules on the picture: whether it decodes, its size and shape, thresholds on what was measured, blocklists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from stylegan_t.data.rules import blocklists
from stylegan_t.data.rules.blocklists import Blocklist
from stylegan_t.data.rules.columns import bools, floats
from stylegan_t.data.rules.verdicts import Verdicts

COLUMNS = {"decodable", "width", "height"}


class Threshold(NamedTuple):
    """What a number of the score tables must be like; None asks nothing.

    Attributes:
        column: Its name, e.g. ``sharpness`` or ``plugin_aesthetic``.
        least, most: Where it may lie.
        keep_fraction: Share of the distinct pictures to keep, of those with the highest numbers.
    """

    column: str
    least: float | None = None
    most: float | None = None
    keep_fraction: float | None = None

    @property
    def low(self) -> str:
        """The reason of a row that lies too low."""
        return f"low_{self.column}"

    @property
    def high(self) -> str:
        return f"high_{self.column}"


@dataclass(frozen=True)
class PictureRules:
    """What a picture must be like; None (or nothing in the list) asks nothing.

    Attributes:
        min_side: The shorter side, pixels.
        max_aspect: The longer side over the shorter.
        thresholds: On other columns.
        blocklists: What must not be trained on.
    """

    min_side: int | None = None
    max_aspect: float | None = None
    thresholds: tuple[Threshold, ...] = ()
    blocklists: tuple[Blocklist, ...] = ()

    @property
    def columns(self) -> set[str]:
        """Of the score tables: what is read."""
        return (
            COLUMNS | {threshold.column for threshold in self.thresholds} | blocklists.needed_columns(self.blocklists)
        )


def reasons(thresholds: Sequence[Threshold]) -> list[str]:
    """In the order in which they are asked; kept fractions alone come later."""
    of_columns: list[str] = []
    for threshold in thresholds:
        if threshold.keep_fraction is None or threshold.least is not None:
            of_columns.append(threshold.low)
        of_columns.append(threshold.high)
    return list(dict.fromkeys(["undecodable", "too_small", "aspect", *of_columns, *blocklists.REASONS.values()]))


def judge_pictures(table: pa.Table, rules: PictureRules, verdicts: Verdicts) -> None:
    """Drop the rows of a score table whose picture breaks a rule; kept fractions are asked later, of all tables."""
    verdicts.drop("undecodable", ~bools(table["decodable"]))
    shorter, aspect = sides(table)
    if rules.min_side is not None:
        verdicts.drop("too_small", shorter < rules.min_side, shorter)
    if rules.max_aspect is not None:
        verdicts.drop("aspect", aspect > np.float32(rules.max_aspect), aspect)
    for threshold in rules.thresholds:
        values = floats(table[threshold.column])
        if threshold.least is not None:
            verdicts.drop(threshold.low, ~(values >= np.float32(threshold.least)), values)
        if threshold.most is not None:
            verdicts.drop(threshold.high, ~(values <= np.float32(threshold.most)), values)
    for kind, reason in blocklists.REASONS.items():
        for blocklist in rules.blocklists:
            if blocklist.kind == kind:
                verdicts.drop(reason, blocklist.hits(table))


def sides(table: pa.Table) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """The shorter side, pixels, and the longer over the shorter (NaN where the picture does not decode)."""
    width, height = floats(table["width"]), floats(table["height"])
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    return shorter, np.divide(longer, shorter, out=np.full_like(shorter, np.nan), where=shorter > 0)
