"""What the evaluation found: the headline figures, the sweep over psi, the oracle's accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.controls import stage_title
from dashboard.runs import read_json, read_table

Row = dict[str, Any]

HEADLINES = {
    "frechet_distance": "Fréchet distance",
    "clip_score": "CLIP score",
    "retrieval_accuracy": "caption found",
    "mean_accuracy": "oracle, seen",
    "mean_accuracy_heldout": "oracle, held out",
    "position_spread_relative": "position spread",
}
SHARES = ("retrieval_accuracy", "mean_accuracy", "position_spread_relative")
SEEN, HELDOUT = "seen combinations", "held-out combinations"


def show_quality(metrics: Row, evaluation: Path) -> None:
    with st.container(horizontal=True, key="headline"):
        for prefix, title in HEADLINES.items():
            if name := full_name(metrics, prefix):
                value = format(metrics[name], ".1%" if prefix.startswith(SHARES) else ".4g")
                st.metric(title, value, border=True, help=context(metrics, prefix, name))
    left, right = st.columns(2, gap="large")
    if sweep := sweep_rows(evaluation / "psi_sweep.csv"):
        with left.container(key="sweep"):
            st.subheader("Fréchet distance against CLIP score", anchor=False)
            st.caption("One point for each truncation psi. Down and to the right is better.")
            st.altair_chart(sweep_chart(sweep))
    if accuracies := oracle_rows(metrics):
        with right.container(key="oracle"):
            st.subheader("Attributes the oracle reads back", anchor=False)
            st.caption("Share of pictures that show what their caption asks for, read from the pixels.")
            st.altair_chart(oracle_chart(accuracies))
    if stages := stage_rows(evaluation / "stages.csv"):
        st.subheader("From stage to stage", anchor=False)
        number = st.column_config.NumberColumn
        columns = {
            name: number(title, format="percent" if name.startswith(SHARES) else "%.4g")
            for name, title in HEADLINES.items()
        }
        st.dataframe(stages, hide_index=True, column_config=columns)
    with st.expander("All figures"):
        speed = read_json(evaluation.with_name("evaluate_speed.json"))
        figures = flat(metrics) | {f"speed / {name}": value for name, value in flat(speed).items()}
        st.dataframe([{"figure": name, "value": value} for name, value in figures.items()], hide_index=True)


def full_name(figures: Row, prefix: str) -> str | None:
    """The figure that a headline means: its name goes on with the judge and the count of pictures."""
    exact = [name for name in figures if name == prefix]
    longer = [name for name in figures if name.startswith(prefix) and not name.endswith(("_range", "_heldout"))]
    return min((name for name in exact or longer if isinstance(figures[name], int | float)), key=len, default=None)


def context(metrics: Row, prefix: str, name: str) -> str:
    """A figure's full name, its range over repetitions, what real pictures and an untrained generator get."""
    lines = [f"`{name}`"]
    if f"{name}_range" in metrics:
        lines.append(f"range over repetitions: {metrics[f'{name}_range']:.3g}")
    reals = metrics.get("reals")
    groups = {f"real pictures, {size}": facts for size, facts in reals.items()} if isinstance(reals, dict) else {}
    for title, figures in (groups | {"untrained generator": metrics.get("untrained")}).items():
        if isinstance(figures, dict) and (other := full_name(figures, prefix)):
            lines.append(f"{title}: {figures[other]:.4g}")
    return "\n\n".join(lines)


def flat(figures: Row, above: str = "") -> dict[str, str]:
    """Nested figures by their path, as text."""
    result: dict[str, str] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            result |= flat(value, f"{above}{name} / ")
        else:
            result[above + name] = f"{value:.5g}" if isinstance(value, float) else str(value)
    return result


def means(rows: Sequence[Row], by: Sequence[str], of: Sequence[str]) -> list[Row]:
    """Means of the columns ``of`` over the rows that agree in the columns ``by``."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return [
        dict(zip(by, key, strict=True)) | {name: sum(row[name] for row in group) / len(group) for name in of}
        for key, group in groups.items()
    ]


def stage_rows(path: Path) -> list[Row]:
    """The headline figures of each stage's model, means over the repetitions."""
    rows = read_table(path)
    present = [name for name in HEADLINES if rows and all(isinstance(row.get(name), float) for row in rows)]
    if not present or "stage" not in rows[0]:
        return []
    return [row | {"stage": stage_title(row["stage"])} for row in means(rows, ["stage"], present)]


def oracle_rows(metrics: Row) -> list[Row]:
    """Attribute, prompts (seen or held out) and accuracy; empty where the data has no oracle."""
    rows = []
    for name, value in metrics.items():
        if name.startswith("oracle_") and not name.endswith("_range") and isinstance(value, int | float):
            attribute = name.removeprefix("oracle_")
            prompts = HELDOUT if attribute.startswith("heldout_") else SEEN
            attribute = attribute.removeprefix("heldout_").replace("_", " ")
            rows.append({"attribute": attribute, "prompts": prompts, "accuracy": value})
    return rows


def oracle_chart(rows: list[Row]) -> alt.LayerChart:
    order = [SEEN, HELDOUT]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("attribute:N", title=None, sort=None),
        yOffset=alt.YOffset("prompts:N", sort=order),
        x=alt.X("accuracy:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        tooltip=["attribute", "prompts", alt.Tooltip("accuracy:Q", format=".1%")],
    )
    colour = alt.Color("prompts:N", title=None, sort=order, legend=alt.Legend(orient="top"))
    names = base.mark_text(align="left", dx=4, color="gray").encode(text=alt.Text("accuracy:Q", format=".0%"))
    return alt.LayerChart(layer=[base.mark_bar(cornerRadiusEnd=3).encode(color=colour), names], height=alt.Step(20))


def sweep_rows(path: Path) -> list[Row]:
    """Stage, psi, Fréchet distance and CLIP score; rows that miss a figure are left out."""
    figures = ["frechet_distance", "clip_score"]
    rows = [row for row in read_table(path) if all(isinstance(row.get(n), float) for n in ("psi", *figures))]
    return [
        row | {"stage": stage_title(str(row["stage"]))}
        for row in means([{"stage": ""} | row for row in rows], ["stage", "psi"], figures)
    ]


def sweep_chart(rows: list[Row]) -> alt.LayerChart:
    near = alt.Scale(zero=False, padding=20)
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X("clip_score:Q", title="CLIP score", scale=near),
        y=alt.Y("frechet_distance:Q", title="Fréchet distance", scale=near),
        color=alt.Color("stage:N", title=None, sort=stages, legend=alt.Legend(orient="top")),
        order="psi:Q",
        tooltip=[
            "stage",
            "psi",
            alt.Tooltip("frechet_distance:Q", format=".4f"),
            alt.Tooltip("clip_score:Q", format=".4f"),
        ],
    )
    names = base.mark_text(dx=12, dy=-9, fontSize=12).encode(text=alt.Text("psi:Q", format=".2~f"))
    return alt.LayerChart(layer=[base.mark_line(), base.mark_point(size=60, filled=True, opacity=1), names], height=330)
