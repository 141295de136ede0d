"""The paper's curves, as pictures and as Vega-Lite: quality against agreement as truncation grows stronger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from stylegan_t.files import atomic, write_json

Row = dict[str, Any]

STAGE_WORDS = {
    "train_generator": "stage one",
    "finetune_text_encoder": "stage two (text encoder trained)",
    "train_super_resolution": "super-resolution",
}
WIDTH, HEIGHT, SCALE = 460, 320, 2.0


def curve(rows: Sequence[Row], x: str, y: str, titles: tuple[str, str, str]) -> alt.LayerChart:
    """A line for each stage, a point for each psi.

    Args:
        rows: ``stage``, ``resolution`` (at which distances compare: a line of another one is another scale), ``psi``
            and the columns x and y.
        titles: Of the chart and of both axes.
    """
    title, x_title, y_title = titles
    data = [{"stage": _named(row), "psi": row["psi"], x: row[x], y: row[y]} for row in rows]
    order = list(dict.fromkeys(row["stage"] for row in data))
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(zero=False, padding=12)),
        y=alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=False, padding=12)),
        color=alt.Color("stage:N", title=None, sort=order, legend=alt.Legend(orient="top", labelLimit=300)),
        tooltip=["stage:N", "psi:Q", alt.Tooltip(f"{x}:Q", format=".4g"), alt.Tooltip(f"{y}:Q", format=".4g")],
    )
    lines = base.mark_line(opacity=0.7).encode(order=alt.Order("psi:Q"))
    points = base.mark_point(filled=True, size=45)
    names = base.mark_text(dx=8, dy=-6, align="left", fontSize=9).encode(text=alt.Text("psi:Q", format="~g"))
    return alt.LayerChart(layer=[lines, points, names], title=title, width=WIDTH, height=HEIGHT)


def _named(row: Row) -> str:
    return f"{STAGE_WORDS.get(row['stage'], row['stage'])}, {row['resolution']} px"


def write_chart(png: Path, vega: Path, chart: alt.LayerChart) -> None:
    """The same chart as a picture and as Vega-Lite, which any page can draw."""
    with atomic(png) as temporary:
        chart.save(str(temporary), format="png", scale_factor=SCALE)
    write_json(vega, chart.to_dict())
