"""What the filter's rules did to the data: the funnel, what was measured, and pairs that each rule kept or dropped."""

from __future__ import annotations

import base64
import html
import io
from functools import lru_cache
from pathlib import Path

import altair as alt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import streamlit as st
from PIL import Image
from pydantic import BaseModel, ValidationError

from dashboard.controls import choose

KEPT, DROPPED = "#12a594", "#e5484d"
MOST_ROWS = 500
"""So many rejected pairs of a reason are listed; the file has all."""
STYLE = """<style>
.sheet {display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 12px; padding: 2px}
.sheet figure {margin: 0; min-width: 0}
.sheet img {width: 96px; height: 96px; border-radius: 4px; box-shadow: 0 0 0 1px #8884}
.sheet .kept img {box-shadow: 0 0 0 2px #12a594}
.sheet figcaption {font-size: .75rem; line-height: 1.25; overflow: hidden; overflow-wrap: anywhere;
  display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical}
.sheet .value {opacity: .65}
</style>"""


class Tile(BaseModel):
    """A pair on a contact sheet."""

    key: str
    caption: str
    kept: bool
    value: float | None = None


class Sheet(BaseModel):
    """A contact sheet: equal square tiles, row by row."""

    file: str
    tile_px: int
    columns: int
    tiles: list[Tile]


def show_curation(report: dict, prepared: Path) -> None:
    """All that the filter's report holds beyond its counts; what an older one lacks, or is torn, is left out."""
    if steps := funnel_rows(report):
        st.header("Rules", anchor="rules", divider="gray")
        st.altair_chart(funnel_chart(steps))
        show_datasets(report)
    if plots := readable_plots(report, prepared):
        st.header("What was measured", anchor="measured", divider="gray")
        columns = st.columns(2, gap="large")
        for number, (title, data) in enumerate(plots):
            columns[number % 2].image(data, caption=title)
    show_pairs(report, prepared)


def funnel_rows(report: dict) -> list[dict[str, str | int]]:
    """Pairs left after each rule that dropped any, in the order in which they were asked."""
    steps, total = report.get("funnel"), report.get("total")
    if not isinstance(steps, list) or not isinstance(total, int):
        return []
    rows: list[dict[str, str | int]] = [{"rule": "scored", "left": total, "dropped": 0}]
    rows += [
        {"rule": step["reason"].replace("_", " "), "left": step["left"], "dropped": step["dropped"]}
        for step in steps
        if isinstance(step, dict) and {"reason", "left", "dropped"} <= step.keys() and step["dropped"]
    ]
    return rows


def funnel_chart(rows: list[dict[str, str | int]]) -> alt.LayerChart:
    frame = pd.DataFrame(rows)
    bars = frame.melt("rule", ["left", "dropped"], "pairs that are", "pairs")
    base = alt.Chart(bars).encode(y=alt.Y("rule:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)))
    colours = alt.Scale(domain=["left", "dropped"], range=[KEPT, DROPPED])
    drawn = base.mark_bar().encode(
        x=alt.X("pairs:Q", title="pairs", axis=alt.Axis(tickMinStep=1, format=",d")),
        color=alt.Color("pairs that are:N", scale=colours, legend=alt.Legend(orient="top", title=None)),
        order=alt.Order("pairs that are:N", sort="descending"),
        tooltip=["rule", "pairs that are", alt.Tooltip("pairs:Q", format=",")],
    )
    counts = alt.Chart(frame).mark_text(align="left", dx=6).encode(
        y=alt.Y("rule:N", sort=None), x=alt.datum(0), text=alt.Text("left:Q", format=",")
    )  # fmt: skip
    return alt.LayerChart(layer=[drawn, counts], height=alt.Step(26))


def show_datasets(report: dict) -> None:
    """The datasets of a mixture, a row each."""
    datasets = report.get("datasets")
    if isinstance(datasets, dict) and datasets:
        st.dataframe(pd.DataFrame.from_dict(datasets, orient="index").reset_index(names="dataset"), hide_index=True)


def readable_plots(report: dict, prepared: Path) -> list[tuple[str, bytes]]:
    """Titles and files of the histograms; the funnel is drawn here, and torn files are left out."""
    listed = report.get("plots")
    found = []
    for plot in listed if isinstance(listed, list) else []:
        if isinstance(plot, dict) and isinstance(plot.get("file"), str) and not plot["file"].endswith("funnel.png"):
            data = whole_picture(prepared / plot["file"])
            found += [] if data is None else [(str(plot.get("title", "")), data)]
    return found


def show_pairs(report: dict, prepared: Path) -> None:
    """Some pairs that stayed, or that a rule dropped: a contact sheet, and below it a table of those dropped."""
    sheets = read_sheets(report)
    if not sheets:
        return
    st.header("Pairs", anchor="pairs", divider="gray")
    says = lambda reason: reason.replace("_", " ")
    reason = choose(
        st.selectbox, "reason", "Kept, or dropped by", list(sheets), next(iter(sheets)), says=says, width=360
    )
    sheet = sheets[reason]
    tiles = cut(prepared / sheet.file, sheet)
    if tiles is None:
        st.warning("The contact sheet cannot be read (yet).", icon=":material/broken_image:")
    else:
        if any(tile.kept for tile in sheet.tiles) and reason != "kept":
            st.caption("Framed: the pair that stayed in place of the one before it.")
        figures = [figure(tile, address, reason) for tile, address in zip(sheet.tiles, tiles, strict=True)]
        st.html(STYLE + f'<div class="sheet">{"".join(figures)}</div>')
    if reason != "kept":
        rows = rejected(prepared / "rejected.parquet", reason)
        if len(rows):
            st.dataframe(rows, hide_index=True, height=320)
            st.caption(f"The first {len(rows):,}; all of them are in `data/prepared/rejected.parquet`.")


def read_sheets(report: dict) -> dict[str, Sheet]:
    """The contact sheets by reason, kept pairs first, then in the order of the rules."""
    listed, steps = report.get("samples"), report.get("funnel")
    if not isinstance(listed, dict):
        return {}
    order = ["kept", *(step.get("reason") for step in steps or [] if isinstance(step, dict))]
    found = {}
    for reason in sorted(listed, key=lambda name: order.index(name) if name in order else len(order)):
        try:
            found[reason] = Sheet.model_validate(listed[reason])
        except ValidationError:
            continue  # by another version
    return found


def figure(tile: Tile, address: str, reason: str) -> str:
    stayed = tile.kept and reason != "kept"
    value = f'<span class="value"> {tile.value:.4g}</span>' if tile.value is not None else ""
    caption = html.escape(tile.caption)
    return (
        f'<figure{" class=kept" if stayed else ""} title="{html.escape(tile.key)}: {caption}">'
        f'<img src="{address}" alt="{caption}"><figcaption>{caption}{value}</figcaption></figure>'
    )


def cut(path: Path, sheet: Sheet) -> list[str] | None:
    """The tiles of a contact sheet as data addresses; None where its file is absent or torn."""
    try:
        return _cut(path, path.stat().st_mtime_ns, sheet.tile_px, sheet.columns, len(sheet.tiles))
    except (OSError, SyntaxError):  # Pillow raises SyntaxError for some broken headers
        return None


@lru_cache(maxsize=64)
def _cut(path: Path, version: int, tile_px: int, columns: int, count: int) -> list[str]:
    with Image.open(path) as picture:
        pixels = picture.convert("RGB")
    columns = min(columns, count)
    gap = (pixels.width - columns * tile_px) // max(columns - 1, 1)
    addresses = []
    for number in range(count):
        left, top = number % columns * (tile_px + gap), number // columns * (tile_px + gap)
        file = io.BytesIO()
        pixels.crop((left, top, left + tile_px, top + tile_px)).save(file, "WEBP", quality=90, method=2)
        addresses.append("data:image/webp;base64," + base64.b64encode(file.getvalue()).decode())
    return addresses


def whole_picture(path: Path) -> bytes | None:
    """A picture's file; None where it is absent or torn."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except (OSError, SyntaxError):
        return None
    return data


def rejected(path: Path, reason: str) -> pd.DataFrame:
    """The first of the pairs that were dropped for a reason; none where the table is absent or torn."""
    try:
        return _rejected(path, path.stat().st_mtime_ns, reason)
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return pd.DataFrame()


@lru_cache(maxsize=64)
def _rejected(path: Path, version: int, reason: str) -> pd.DataFrame:
    table = pyarrow.dataset.dataset(path, format="parquet")
    return table.head(MOST_ROWS, filter=pc.field("reason") == reason).drop_columns(["reason"]).to_pandas()
