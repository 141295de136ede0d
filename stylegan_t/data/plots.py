"""Plots of what the rules did, as PNG files: the same bytes for the same numbers (and the same matplotlib)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Bool, Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stylegan_t.files import atomic

KEPT, DROPPED, DROPPED_HERE = "#12a594", "#c4c4cc", "#e5484d"
NUM_BINS = 60
TAIL_PERCENT = 0.5
"""So much of either end may lie outside a histogram: a single outlier must not flatten all others."""


def plot_funnel(path: Path, total: int, dropped: dict[str, int]) -> None:
    """How many pairs are left after each rule that dropped any, from the top down.

    Args:
        path: The file.
        total: Pairs at first.
        dropped: By reason, in the order of the rules.
    """
    names, left = ["scored"], [total]
    for reason, count in dropped.items():
        if count:
            names.append(f"− {reason.replace('_', ' ')}")
            left.append(left[-1] - count)
    with _figure(path, height=0.9 + 0.32 * len(names)) as axes:
        before = np.array([total, *left[:-1]])
        axes.barh(names, before, color=DROPPED_HERE)
        axes.barh(names, left, color=KEPT)
        for row, (count, gone) in enumerate(zip(left, before - left, strict=True)):
            text = f"{count:,}" + (f"  (−{gone:,})" if gone else "")
            axes.annotate(text, (0, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("pairs left after each rule; in red, what it dropped")


def plot_histogram(
    path: Path,
    title: str,
    values: Float32[np.ndarray, " n"],
    kept: Bool[np.ndarray, " n"],
    dropped_here: Bool[np.ndarray, " n"],
    thresholds: Sequence[float],
) -> None:
    """How a number is distributed among kept and dropped pairs, with the thresholds on it marked.

    Args:
        path: The file.
        title: What the number is.
        values: NaN where there is none.
        kept: Pairs that stay.
        dropped_here: Pairs that the thresholds on this number dropped.
        thresholds: Where they lie.
    """
    there = np.isfinite(values)
    groups = [values[there & group] for group in (kept, dropped_here, ~kept & ~dropped_here)]
    labels = ["kept", "dropped by this rule", "dropped by another rule"]
    with _figure(path, height=3.0) as axes:
        bins = _bins(values[there], thresholds)
        colours = [KEPT, DROPPED_HERE, DROPPED]
        axes.hist(groups, bins, stacked=True, histtype="stepfilled", color=colours, label=labels)  # type: ignore
        for threshold in thresholds:
            axes.axvline(threshold, color="black", linewidth=1, linestyle="--", label=f"threshold {threshold:.4g}")
        axes.set_xlabel(title)
        axes.set_ylabel("pairs")
        axes.legend(fontsize=8)


def _bins(values: Float32[np.ndarray, " n"], thresholds: Sequence[float]) -> np.ndarray:
    shown = np.percentile(values, [TAIL_PERCENT, 100 - TAIL_PERCENT]) if len(values) else np.zeros(0)
    shown = np.concatenate([shown, np.array(thresholds, np.float64)])
    low, high = (float(shown.min()), float(shown.max())) if len(shown) else (0.0, 1.0)
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, NUM_BINS + 1)


@contextmanager
def _figure(path: Path, height: float) -> Iterator[Axes]:
    """Axes to draw on, saved in the end; neither a user's matplotlibrc nor a date finds its way into the file."""
    with matplotlib.rc_context(), atomic(path) as temporary:
        matplotlib.rcdefaults()
        figure = Figure(figsize=(7.0, height), dpi=110, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        figure.savefig(temporary, format="png", metadata={"Software": None})
