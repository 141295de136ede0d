"""What the evaluation found: the headline figures, the sweep over psi, the oracle's accuracies, the speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.controls import stage_title
from dashboard.evaluations import (
    SEEN_IN_TRAINING,
    TITLES,
    Figure,
    Found,
    absent,
    by_judge,
    facts,
    figures,
    first_of_each,
    headline,
    read_found,
    title,
)
from dashboard.oracle import binding_chart, binding_rows, oracle_chart, oracle_rows
from dashboard.runs import read_json, read_table
from stylegan_t.config import STAGES

Row = dict[str, Any]

CARDS = ("frechet", "kernel", "cmmd", "clip_score")
FACTS = {
    "mean_accuracy": ("oracle, seen", "mean share of attributes as asked for, combinations that were drawn"),
    "mean_accuracy_heldout": ("oracle, held out", "the same for combinations that were never drawn"),
    "binding_correct": ("bound right, seen", "share of pictures with both figures as asked for, each in its place"),
    "binding_heldout_correct": ("bound right, held out", "the same for pairings that were never drawn"),
    "position_spread_relative": ("position spread", "of positions over the latents of a prompt, of the data's"),
    "size_diversity_relative": ("size diversity", "of prompts that leave the size open, of the data's"),
}
FLAG = f":orange-badge[{SEEN_IN_TRAINING}]"
FEW = ":gray-badge[few pictures]"
LABEL = {True: SEEN_IN_TRAINING, False: "not in training", None: "not known"}
OLDER = "These outputs hold no records of single metrics: `dvc repro evaluate` makes them."


def show_quality(metrics: Row, evaluation: Path) -> None:
    found = read_found(evaluation)
    if found:
        show_headline(found)
    else:
        st.info(OLDER, icon=":material/history:")
    show_charts(metrics, evaluation, found)
    if found and (stages := stage_rows(evaluation / "stages.csv", stage_columns(found))):
        st.subheader("From stage to stage", anchor=False)
        st.dataframe(stages, hide_index=True, column_config=stage_config(found))
    speed = read_json(evaluation.with_name("evaluate_speed.json"))
    if rows := speed_rows(speed):
        with st.container(key="speed"):
            st.subheader("Speed of painting", anchor=False)
            st.caption(
                f"On {speed.get('device', 'a device not named')}. Latency: from one prompt to one picture, warm."
            )
            st.dataframe(rows, hide_index=True, column_config=SPEED_COLUMNS)
    if found:
        show_every_metric(found)
    with st.expander("All figures"):
        numbers = flat(metrics) | {f"speed / {name}": value for name, value in flat(speed).items()}
        st.dataframe([{"figure": name, "value": value} for name, value in numbers.items()], hide_index=True)


def show_headline(found: Found) -> None:
    """A card for the first figure of every metric, those that lead first, and for what the oracle read."""
    with st.container(horizontal=True, key="headline"):
        for figure in cards(found):
            m = figure.measurement
            label = " ".join([title(m), *([FLAG] if m.in_training else []), *([] if m.leads else [FEW])])
            around = figure.interval()
            st.metric(
                label, figure.words(figure.value), around, border=True, help=context(figure),
                delta_color="off", delta_arrow="off", delta_description="95 %" if around else None,
            )  # fmt: skip
    known = {name: fact for name, fact in facts(found).items() if name in FACTS}
    if known:
        with st.container(horizontal=True, key="facts"):
            for name, (value, spread) in known.items():
                short, meaning = FACTS[name]
                lines = [f"`{name}`: {meaning}", *([f"range over repetitions: {spread:.1%}"] if spread else [])]
                st.metric(short, f"{value:.1%}", border=True, help="\n\n".join(lines))


def cards(found: Found) -> list[Figure]:
    """The figures that a reader looks for first."""
    listed = first_of_each(figures(found))
    return [each for each in listed if (metric := each.measurement.metric) in CARDS or metric.startswith("retrieval")]


def context(figure: Figure) -> str:
    """A figure's full name and uncertainty, and what real pictures and an untrained generator get."""
    m = figure.measurement
    lines = [f"`{m.name}`, {m.better} is better"]
    if m.in_training:
        lines.append(f"{SEEN_IN_TRAINING}: the judge's network took part, so the figure flatters")
    if around := figure.interval():
        lines.append(f"95 %: {around}, from {m.uncertainty or 'its scatter'}")
    if figure.spread is not None:
        lines.append(f"range over repetitions: {figure.spread:.3g}")
    for who, other in (("real pictures", figure.reals), ("untrained generator", figure.untrained)):
        if other and other.value is not None:
            lines.append(f"{who}: {figure.words(other.value)} (`{other.name}`)")
    return "\n\n".join([*lines, *([m.note] if m.note else [])])


def show_charts(metrics: Row, evaluation: Path, found: Found | None) -> None:
    left, right = st.columns(2, gap="large")
    if sweep := sweep_rows(evaluation / "psi_sweep.csv"):
        with left.container(key="sweep"):
            st.subheader("Fréchet distance against CLIP score", anchor=False)
            st.caption("One point for each truncation psi. Down and to the right is better." + sweep_note(found))
            st.altair_chart(sweep_chart(sweep, *sweep_titles(found)))
    elif lacking := lacking_of_sweep(found):
        left.caption(f"No curve over psi: no {' and no '.join(lacking)} by a judge that took no part in the training.")
    if accuracies := oracle_rows(metrics):
        with right.container(key="oracle"):
            st.subheader("Attributes the oracle reads back", anchor=False)
            st.caption("Share of what the captions ask for that the pictures show, read from the pixels.")
            st.altair_chart(oracle_chart(accuracies))
    if outcomes := binding_rows(metrics):
        with right.container(key="binding"):
            st.subheader("Which attribute landed on which figure", anchor=False)
            limit = metrics.get("binding_correct_of_data")
            reals = f" Of real pictures, {limit:.1%} are read as correct." if isinstance(limit, float) else ""
            st.caption("Share of pictures by what became of the two figures." + reals)
            st.altair_chart(binding_chart(outcomes))


def show_every_metric(found: Found) -> None:
    """All that was measured by every judge, and why the rest was not."""
    with st.expander("Every metric, by every judge"):
        number = st.column_config.NumberColumn(format="%.4g")
        numbers = ("value", "95 % from", "95 % to", "real pictures", "untrained")
        st.dataframe(metric_rows(found), hide_index=True, column_config=dict.fromkeys(numbers, number))
    if missing := absent(found):
        with st.expander(f"Not measured ({len(missing)}), and why"):
            st.dataframe([{"metric": m.name, "reason": m.absent or ""} for m in missing], hide_index=True)


def metric_rows(found: Found) -> list[Row]:
    return [
        {
            "metric": title(m := figure.measurement),
            "judge": m.extractor,
            "its network": LABEL[m.in_training],
            "value": figure.value,
            "95 % from": m.low,
            "95 % to": m.high,
            "better": m.better,
            "real pictures": figure.reals.value if figure.reals else None,
            "untrained": figure.untrained.value if figure.untrained else None,
            "full name": m.name,
            "note": m.note or "",
        }
        for figure in figures(found)
    ]


def flat(numbers: Row, above: str = "") -> dict[str, str]:
    """Nested figures by their path, as text."""
    result: dict[str, str] = {}
    for name, value in numbers.items():
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


def stage_columns(found: Found) -> list[str]:
    """Columns of ``stages.csv`` that the cards are of."""
    return [*(figure.column for figure in cards(found)), *(name for name in facts(found) if name in FACTS)]


def stage_config(found: Found) -> dict[str, Any]:
    number = st.column_config.NumberColumn
    config: dict[str, Any] = {}
    for figure in cards(found):
        m = figure.measurement
        heading = f"{title(m)} ({SEEN_IN_TRAINING})" if m.in_training else title(m)
        config[figure.column] = number(heading, help=by_judge(m), format="percent" if figure.is_share else "%.4g")
    return config | {name: number(short, format="percent") for name, (short, _) in FACTS.items()}


def stage_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Those columns for each stage's model, means over the repetitions; what any row lacks is left out."""
    rows = read_table(path)
    present = [name for name in columns if rows and all(isinstance(row.get(name), float) for row in rows)]
    if not present or "stage" not in rows[0]:
        return []
    return [row | {"stage": stage_title(row["stage"])} for row in means(rows, ["stage"], present)]


SPEED_COLUMNS = {
    "images/s": st.column_config.NumberColumn(format="%.1f", help="in batches, text encoding included"),
    "latency p50, ms": st.column_config.NumberColumn(format="%.1f"),
    "latency p95, ms": st.column_config.NumberColumn(format="%.1f"),
}


def speed_rows(speed: Row) -> list[Row]:
    """How fast each stage's model paints, in the pipeline's order."""
    return [
        {
            "stage": stage_title(stage),
            "px": told.get("resolution"),
            "batch": told.get("batch_size"),
            "images/s": told["images_per_second"],
            "latency p50, ms": 1000 * told["latency_p50_seconds"],
            "latency p95, ms": 1000 * told["latency_p95_seconds"],
        }
        for stage in STAGES
        if isinstance(told := speed.get(stage), dict)
        and {"images_per_second", "latency_p50_seconds", "latency_p95_seconds"} <= told.keys()
    ]


def sweep_titles(found: Found | None) -> tuple[str, str]:
    """Of the axes: whose CLIP score and Fréchet distance these are."""
    score, distance = (headline(found.swept, metric) if found else None for metric in ("clip_score", "frechet"))
    return by_judge(score) if score else "CLIP score", by_judge(distance) if distance else "Fréchet distance"


def sweep_note(found: Found | None) -> str:
    """What is to be said of the Fréchet distance at the sweep's count."""
    distance = headline(found.swept, "frechet") if found else None
    return f" Fréchet distance: {distance.note}." if distance and distance.note else ""


def lacking_of_sweep(found: Found | None) -> list[str]:
    """The figures without which there is no curve."""
    return [TITLES[metric] for metric in ("frechet", "clip_score") if found and not headline(found.swept, metric)]


def sweep_rows(path: Path) -> list[Row]:
    """Stage, psi, Fréchet distance and CLIP score; rows that miss a figure are left out."""
    numbers = ["frechet_distance", "clip_score"]
    rows = [row for row in read_table(path) if all(isinstance(row.get(n), float) for n in ("psi", *numbers))]
    return [
        row | {"stage": stage_title(str(row["stage"]))}
        for row in means([{"stage": ""} | row for row in rows], ["stage", "psi"], numbers)
    ]


def sweep_chart(rows: list[Row], score: str, distance: str) -> alt.LayerChart:
    """A curve for each stage; points of the last are named by their psi."""
    near = alt.Scale(zero=False, padding=20)
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X("clip_score:Q", title=score, scale=near),
        y=alt.Y("frechet_distance:Q", title=distance, scale=near),
        color=alt.Color("stage:N", title=None, sort=stages, legend=alt.Legend(orient="top", labelLimit=260)),
        order="psi:Q",
        tooltip=[
            "stage",
            "psi",
            alt.Tooltip("frechet_distance:Q", format=".4~g", title=distance),
            alt.Tooltip("clip_score:Q", format=".4~g", title=score),
        ],
    )
    last = base.transform_filter(alt.datum.stage == stages[-1])  # names of all points would lie on each other
    names = last.mark_text(dx=12, dy=-9, fontSize=12).encode(text=alt.Text("psi:Q", format=".2~f"))
    return alt.LayerChart(layer=[base.mark_line(), base.mark_point(size=60, filled=True, opacity=1), names], height=330)
