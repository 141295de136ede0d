"""The data page: how many pairs came in, which rule dropped how many, and what they look like."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.controls import START_HERE, page
from dashboard.curation import show_curation
from dashboard.runs import Run, read_json, root


def show(_: list[Run]) -> None:
    data = root() / "data"
    raw, report = read_json(data / "raw" / "manifest.json"), read_json(data / "prepared" / "report.json")
    if not raw and not report:
        with st.container(border=True, key="start"):
            st.subheader("No data yet", anchor=False)
            st.markdown(START_HERE)
        return
    steps = funnel(data, raw, report)
    with st.container(horizontal=True, key="funnel"):
        for name, count in steps.items():
            st.metric(name, f"{count:,}", border=True)
    left, right = st.columns(2, gap="large")
    for column, title, reasons, nothing in (
        (
            left,
            "Dropped by the filter",
            counts(report.get("dropped")),
            "The filter dropped nothing." if report else "Not filtered yet.",
        ),
        (right, "Skipped while downloading", counts(raw.get("skipped")), "Nothing was skipped."),
    ):
        column.subheader(title, anchor=False)
        if reasons:
            column.altair_chart(reason_chart(reasons))
        else:
            column.caption(nothing)
    show_curation(report, data / "prepared")
    if raw.get("source"):
        with st.expander("Source"):
            st.json(raw["source"])


def counts(value: object) -> dict[str, int]:
    """The positive counts of a JSON object, by name."""
    if not isinstance(value, dict):
        return {}
    return {str(name): count for name, count in value.items() if isinstance(count, int) and count > 0}


def funnel(data: Path, raw: dict, report: dict) -> dict[str, int]:
    """From what was downloaded to what is trained on; steps that have not run yet are absent."""
    downloaded = {"downloaded": raw.get("num_samples")}
    parts = {
        name: read_json(data / "prepared" / folder / "manifest.json").get("num_samples", report.get(folder))
        for name, folder in (("for training", "train"), ("held out for measuring", "heldout"))
    }
    dropped = {"dropped by the filter": sum(counts(report.get("dropped")).values())} if report else {}
    return {name: count for name, count in (downloaded | dropped | parts).items() if isinstance(count, int)}


def reason_chart(reasons: dict[str, int]) -> alt.LayerChart:
    frame = pd.DataFrame({"reason": [name.replace("_", " ") for name in reasons], "pairs": list(reasons.values())})
    base = alt.Chart(frame).encode(
        y=alt.Y("reason:N", sort="-x", title=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("pairs:Q", title="pairs", axis=alt.Axis(tickMinStep=1, format=",d")),
        tooltip=["reason", alt.Tooltip("pairs:Q", format=",")],
    )  # fmt: skip
    names = base.mark_text(align="left", dx=4, color="gray").encode(text=alt.Text("pairs:Q", format=","))
    return alt.LayerChart(layer=[base.mark_bar(cornerRadiusEnd=3), names], height=alt.Step(26))


page("Data", show, needs_runs=False)
