"""What the oracle read in the pictures: attributes, and for pairs of figures which attribute landed on which."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

Row = dict[str, Any]

SEEN, HELDOUT = "seen combinations", "held-out combinations"
ORDER = [SEEN, HELDOUT]
OUTCOMES = {
    "correct": "#12a594",
    "misplaced": "#5b5bd6",
    "swapped": "#f5a524",
    "wrong": "#e5484d",
    "missing": "#8b8d98",
}
"""Of a picture of two figures, from right to absent: what became of both."""


def oracle_rows(metrics: Row) -> list[Row]:
    """Attribute, prompts (seen or held out) and accuracy; empty where the data has no oracle."""
    return [row for row in _read(metrics) if row["attribute"] not in OUTCOMES]


def binding_rows(metrics: Row) -> list[Row]:
    """Outcome, prompts and the share of pictures; empty where the data shows no pairs of figures."""
    return [
        {"outcome": row["attribute"], "prompts": row["prompts"], "share": row["accuracy"], "place": place}
        for place, name in enumerate(OUTCOMES)
        for row in _read(metrics)
        if row["attribute"] == name
    ]


def _read(metrics: Row) -> list[Row]:
    rows = []
    for name, value in metrics.items():
        group, _, attribute = name.partition("_")
        if group not in ("oracle", "binding") or not isinstance(value, int | float):
            continue
        if attribute.endswith(("_range", "_of_data", "_gain")):
            continue
        prompts = HELDOUT if attribute.startswith("heldout_") else SEEN
        attribute = attribute.removeprefix("heldout_").replace("_", " ")
        rows.append({"attribute": attribute, "prompts": prompts, "accuracy": value})
    return rows


def oracle_chart(rows: list[Row]) -> alt.LayerChart:
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("attribute:N", title=None, sort=None),
        yOffset=alt.YOffset("prompts:N", sort=ORDER),
        x=alt.X("accuracy:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        tooltip=["attribute", "prompts", alt.Tooltip("accuracy:Q", format=".1%")],
    )
    colour = alt.Color("prompts:N", title=None, sort=ORDER, legend=alt.Legend(orient="top"))
    names = base.mark_text(align="left", dx=4, color="gray").encode(text=alt.Text("accuracy:Q", format=".0%"))
    return alt.LayerChart(layer=[base.mark_bar(cornerRadiusEnd=3).encode(color=colour), names], height=alt.Step(20))


def binding_chart(rows: list[Row]) -> alt.Chart:
    """A bar for seen and one for held-out pairings, which the outcomes share out."""
    colours = alt.Scale(domain=list(OUTCOMES), range=list(OUTCOMES.values()))
    return alt.Chart(pd.DataFrame(rows), height=alt.Step(34)).mark_bar().encode(
        y=alt.Y("prompts:N", title=None, sort=ORDER, axis=alt.Axis(labelLimit=200)),
        x=alt.X("share:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        color=alt.Color("outcome:N", title=None, scale=colours, legend=alt.Legend(orient="top")),
        order="place:Q",
        tooltip=["outcome", "prompts", alt.Tooltip("share:Q", format=".1%")],
    )  # fmt: skip
