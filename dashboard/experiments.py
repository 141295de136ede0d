"""The experiments page: sweeps over settings with what their points measured, and the verdicts on runs over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.controls import choose, page
from dashboard.runs import Run, root
from dashboard.sweeps import (
    Row,
    Sweep,
    Verdict,
    chart_rows,
    is_number,
    judged_first,
    list_sweeps,
    list_verdicts,
    short_names,
    sweep_rows,
    verdict_rows,
)

START = """
Nothing was swept over or judged here yet. In the repository's root,

```
python -m flows.sweep --name lr --set train_generator.generator_lr=0.006,0.012 --set seed=0,1
```

runs every combination as an experiment of DVC's; `make demo`, or `python -m flows.pipeline`, judges the model that it
evaluated. This page fills as soon as the first of them begins. `dvc exp show` lists experiments, those by hand too.
"""
COLOURS = {"done": "green", "running": "blue", "failed": "red", "stopped": "orange", "waiting": "gray"}
VERDICTS = {"accepted": "#12a594", "rejected": "#e5484d"}
LOG_FROM = 10.0
"""Values that lie further apart than so many times are drawn on a logarithmic axis."""


def show(_: list[Run]) -> None:
    sweeps, verdicts = list_sweeps(root()), list_verdicts(root())
    if not sweeps and not verdicts:
        st.info("No experiments yet.", icon=":material/science:")
        st.markdown(START)
    if sweeps:
        show_sweep(sweeps)
    if verdicts:
        show_verdicts(verdicts)


def show_sweep(sweeps: Sequence[Sweep]) -> None:
    left, middle, right = st.columns(3, vertical_alignment="bottom")
    by_name = {sweep.name: sweep for sweep in sweeps}
    with left:
        sweep = by_name[choose(st.selectbox, "sweep", "Sweep", list(by_name), sweeps[0].name)]
    metrics, varied = sweep.metrics, sweep.varied
    metric = along = None
    if metrics:
        with middle:
            metric = choose(st.selectbox, "metric", "Metric", metrics, metrics[0])
        if varied:
            with right:
                names = short_names(varied)
                along = choose(st.selectbox, "along", "Setting", varied, varied[0], says=lambda key: names[key])
    show_progress(sweep)
    beside = st.columns([3, 2], gap="large") if metric and along else [st.container()]
    with beside[0]:
        order = f" by {sweep.metric}, {sweep.better} is better" if sweep.metric else ""
        st.caption(f"Best first{order}." if order else "Nothing is measured yet.")
        st.dataframe(sweep_rows(sweep, metric), hide_index=True, column_config=columns(metric), key="points")
    if metric and along:
        with beside[1].container(key="effect"):
            st.altair_chart(effect_chart(chart_rows(sweep, metric, along), metric, short_names(varied)[along]))


def show_progress(sweep: Sweep) -> None:
    """How many points are in which state, and what is the same in all of them."""
    with st.container(horizontal=True, vertical_alignment="center", key="progress"):
        for state, colour in COLOURS.items():
            if count := sweep.count(state):
                st.badge(f"{count} {state}", color=colour)  # type: ignore[arg-type]
        same = [f"`{key}={value}`" for key, value in sweep.fixed.items()]
        st.markdown(" · ".join([*same, f"{sweep.written.astimezone():%d %b %H:%M}"]), width="content")


def columns(metric: str | None) -> dict[str, Any]:
    number = st.column_config.NumberColumn
    config: dict[str, Any] = {"minutes": number(format="%.1f")}
    config["when"] = st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm")
    return config | ({metric: number(format="%.4g")} if metric else {})


def effect_chart(rows: Sequence[Row], metric: str, setting: str) -> alt.LayerChart:
    """A dot for each point; a line through the means over seeds for each combination of the other settings."""
    values = [row["x"] for row in rows]
    frame = pd.DataFrame(rows)
    if all(map(is_number, values)):
        wide = min(values) > 0 and max(values) / min(values) >= LOG_FROM
        x = alt.X(
            "x:Q", title=setting, scale=alt.Scale(type="log" if wide else "linear", zero=False, nice=False, padding=20)
        )
    else:
        frame["x"] = frame["x"].map(str)
        x = alt.X("x:N", title=setting, sort=None, axis=alt.Axis(labelAngle=0))
    others = list(dict.fromkeys(row["others"] for row in rows))
    legend = alt.Legend(orient="top", columns=1, labelLimit=320) if others != [""] else None
    near = alt.Scale(zero=False, padding=20)
    base = alt.Chart(frame).encode(x=x, color=alt.Color("others:N", title=None, sort=others, legend=legend))
    dots = base.mark_point(size=70, filled=True, opacity=0.8).encode(
        y=alt.Y("y:Q", title=metric, scale=near),
        tooltip=[
            alt.Tooltip("x", title=setting), alt.Tooltip("y:Q", title=metric, format=".4~g"),
            "others", "seed", "experiment",
        ],
    )  # fmt: skip
    means = base.mark_line(opacity=0.6).encode(y=alt.Y("mean(y):Q", title=metric, scale=near))
    return alt.LayerChart(layer=[means, dots], height=330)


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    st.subheader("Evaluated runs", anchor=False)
    names = judged_first(verdicts)
    if not names:
        st.caption("No run measured anything.")
        return
    metric = choose(st.selectbox, "judged", "Metric of the runs", names, names[0], width=400)
    rows = verdict_rows(verdicts, metric)
    left, right = st.columns([3, 2], gap="large")
    left.dataframe(rows[::-1], hide_index=True, column_config=columns(metric), key="verdicts")
    with right.container(key="history"):
        st.altair_chart(history_chart([row | {"y": row[metric]} for row in rows if row[metric] is not None], metric))


def history_chart(rows: Sequence[Row], metric: str) -> alt.LayerChart:
    """The metric over time, a dot for each run in the colour of its verdict."""
    frame = pd.DataFrame(rows, columns=["when", "run", "verdict", "y"])
    base = alt.Chart(frame).encode(
        x=alt.X("when:T", title=None, scale=alt.Scale(padding=20)),
        y=alt.Y("y:Q", title=metric, scale=alt.Scale(zero=False, padding=20)),
    )
    colour = alt.Color(
        "verdict:N", title=None, legend=alt.Legend(orient="top"),
        scale=alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values())),
    )  # fmt: skip
    tips = [
        "run",
        "verdict",
        alt.Tooltip("y:Q", title=metric, format=".4~g"),
        alt.Tooltip("when:T", format="%d %b %H:%M"),
    ]
    dots = base.mark_point(size=70, filled=True, opacity=1).encode(color=colour, tooltip=tips)
    return alt.LayerChart(layer=[base.mark_line(color="gray", opacity=0.5), dots], height=260)


page("Experiments", show, needs_runs=False)
