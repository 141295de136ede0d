"""The metrics page: how good the model is by the evaluation, how a training goes, how fast it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.controls import choose, choose_run, page, show_state
from dashboard.quality import Row, show_quality
from dashboard.runs import Run, read_json, root
from stylegan_t.records import LogRecord

MOST_POINTS = 400
"""Longer histories are averaged to about so many points: a browser draws them at once."""
GROUPS = {
    "Adversarial": "the hinge losses of the discriminator and the generator",
    "Logits": "the discriminator's raw output: high means real",
    "CLIP guidance": "squared spherical distance of picture and caption, before its weight",
    "Penalties": "what else is added to the losses, before its weight",
    "Health": "shares of logits on the right side of 0, of clamped activations; diversity of fakes over the reals'",
    "Gradients": "norms, on a logarithmic scale: neither should vanish nor run away",
    "Schedules": "settings that change while the training goes on",
}
HEALTH = {"reals_positive", "fakes_negative", "fakes_diversity", "clamped"}
GRADIENTS = {"g_grad_norm", "d_grad_norm"}
SPEEDS = [
    ("images_per_second", "images/s", "{:,.0f}", ".0f"),
    ("data_wait", "waiting for data", "{:.1%}", "%"),
    ("memory_mib", "memory, MiB", "{:,.0f}", ",.0f"),
]
KIMG = alt.X("kimg:Q", title="kimg", scale=alt.Scale(nice=False))
NO_RUN = "none"


def show(runs: list[Run]) -> None:
    evaluation = root() / "artifacts" / "evaluate"
    if metrics := read_json(evaluation / "metrics.json"):
        st.header("Quality", anchor="quality", divider="gray")
        show_quality(metrics, evaluation)
    if trainings := [run for run in runs if run.stage != "evaluate"]:
        st.header("Training", anchor="training", divider="gray")
        show_training(trainings)


def show_training(runs: Sequence[Run]) -> None:
    run = choose_run(runs)
    show_state(run)
    shown = {run.label: run}
    others = {other.digest: other for other in runs if other.stage == run.stage and other is not run}
    if others:
        digest = choose(
            st.selectbox, "with", "Compare with", [NO_RUN, *others], NO_RUN,
            says=lambda digest: others[digest].label if digest in others else digest, width=420,
        )  # fmt: skip
        if digest in others:
            shown[others[digest].label] = others[digest]
    terms = term_rows({label: each.log() for label, each in shown.items()})
    if not terms:
        st.info("No losses yet: the first line comes after the first images.", icon=":material/hourglass_top:")
        return
    growth = growth_rows(run.log())
    groups = {group: [row for row in terms if row["group"] == group] for group in GROUPS}
    schedules = groups.pop("Schedules")
    for place, (group, rows) in enumerate((group, rows) for group, rows in groups.items() if rows):
        if place % 2 == 0:
            columns = st.columns(2, gap="large")
        with columns[place % 2].container(key=f"terms-{place}"):
            st.subheader(group, anchor=False)
            st.caption(GROUPS[group])
            st.altair_chart(curves(rows, growth, logarithmic=group == "Gradients"))
    show_speed(run.log())
    if schedules:
        show_schedules(schedules, growth)
    with st.expander("Settings of this run"):
        st.json(run.settings)


def show_schedules(rows: list[Row], growth: list[Row]) -> None:
    """A small chart for each: their scales have nothing in common."""
    st.subheader("Schedules", anchor=False)
    st.caption(GROUPS["Schedules"])
    terms = list(dict.fromkeys(row["term"] for row in rows))
    for term, column in zip(terms, st.columns(max(len(terms), 3), gap="large"), strict=False):
        column.altair_chart(curves([row for row in rows if row["term"] == term], growth, height=200))


def group_of(term: str) -> str:
    if term in HEALTH or term in GRADIENTS:
        return "Health" if term in HEALTH else "Gradients"
    if term.startswith("logits"):
        return "Logits"
    if "guidance" in term:
        return "CLIP guidance"
    if term.startswith(("d_", "g_")):
        return "Adversarial"
    return "Penalties" if term.endswith("penalty") else "Schedules"


def thin(rows: Sequence[Row]) -> list[Row]:
    """Means of neighbouring rows, so that at most about MOST_POINTS are left."""
    stride = -(-len(rows) // MOST_POINTS)
    if stride <= 1:
        return list(rows)
    return [
        {
            name: sum(row[name] for row in part if name in row) / sum(name in row for row in part)
            for name in dict.fromkeys(name for row in part for name in row)
        }
        for part in (rows[start : start + stride] for start in range(0, len(rows), stride))
    ]


def term_rows(lines: dict[str, Sequence[LogRecord]]) -> list[Row]:
    """Run, group, term, kimg and value; long histories averaged, and what is not finite left out."""
    return [
        {"run": run, "group": group_of(term), "term": term, "kimg": row["kimg"], "value": value}
        for run, records in lines.items()
        for row in thin([{"kimg": record.kimg, **finite(record.terms)} for record in records])
        for term, value in row.items()
        if term != "kimg"
    ]


def finite(terms: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in terms.items() if math.isfinite(value)}


def growth_rows(records: Sequence[LogRecord]) -> list[Row]:
    """Where the resolution changed: kimg and the new size."""
    pairs = zip(records, records[1:], strict=False)
    return [
        {"kimg": new.kimg, "size": f"{new.resolution} px"} for old, new in pairs if new.resolution != old.resolution
    ]


def curves(rows: list[Row], growth: list[Row], height: int = 270, logarithmic: bool = False) -> alt.LayerChart:
    """The terms' lines over kimg, with a rule where the resolution grows; a second run is dashed."""
    scale = alt.Scale(zero=False, padding=8)
    if logarithmic:
        rows, scale = [row for row in rows if row["value"] > 0], alt.Scale(type="log", padding=8)
    terms, runs = (list(dict.fromkeys(row[name] for row in rows)) for name in ("term", "run"))
    lines = alt.Chart(pd.DataFrame(rows)).mark_line(strokeWidth=1.8, point=len(rows) <= len(terms)).encode(
        x=KIMG,
        y=alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(format="~g")),
        color=alt.Color("term:N", title=None, sort=terms, legend=alt.Legend(orient="top", columns=4)),
        tooltip=["term", alt.Tooltip("kimg:Q", format=".4~f"), alt.Tooltip("value:Q", format=".4~g"), "run"],
    )  # fmt: skip
    if len(runs) > 1:
        height += 60
        legend = alt.Legend(orient="bottom", labelLimit=400, direction="vertical")
        lines = lines.encode(strokeDash=alt.StrokeDash("run:N", title=None, sort=runs, legend=legend))
    marks = alt.Chart(pd.DataFrame(growth, columns=["kimg", "size"])).encode(x=KIMG)
    rules = marks.mark_rule(strokeDash=[3, 3], opacity=0.5, color="gray")
    names = marks.mark_text(align="left", dx=4, dy=-2, y=8, color="gray", fontSize=10).encode(text="size:N")
    return alt.LayerChart(layer=[lines, rules, names], height=height)


def show_speed(records: Sequence[LogRecord]) -> None:
    """The median and the curve of each figure; nothing for outputs, which do not tell it."""
    told = [{"kimg": record.kimg, **record.speed.model_dump()} for record in records if record.speed]
    if not told:
        return
    st.subheader("Speed", anchor=False)
    rows = pd.DataFrame(thin(told))
    for column, (name, title, shape, axis) in zip(st.columns(3, gap="large"), SPEEDS, strict=True):
        recent = sorted(line[name] for line in told[-10:])
        column.metric(title, shape.format(recent[len(recent) // 2]), help="median of the last ten lines")
        chart = alt.Chart(rows).mark_area(line=True, opacity=0.15).encode(
            x=KIMG,
            y=alt.Y(f"{name}:Q", title=None, axis=alt.Axis(format=axis)),
            tooltip=[
                alt.Tooltip("kimg:Q", format=".4~f"),
                alt.Tooltip(f"{name}:Q", title=title, format=axis),
            ],
        )  # fmt: skip
        column.altair_chart(chart.properties(height=170))


page("Metrics", show)
