"""The copies page: the samples that come nearest to a training picture, beside those pictures."""

from __future__ import annotations

import html
from pathlib import Path

import streamlit as st

from dashboard.controls import page
from dashboard.curation import Sheet, Tile, cut
from dashboard.evaluations import SEEN_IN_TRAINING
from dashboard.runs import Run, root
from stylegan_t.records import NEIGHBOURS, Neighbours, read_record

STYLE = """<style>
.near {overflow-x: auto; padding: 2px}
.near .row {display: grid; gap: 12px; padding-bottom: 14px}
.near figure {margin: 0; min-width: 0}
.near img {display: block; width: 100%; aspect-ratio: 1; border-radius: 4px; box-shadow: 0 0 0 1px #8884}
.near .rule {background: #8884}
.near .sample img {box-shadow: 0 0 0 2px #5b5bd6}
.near figcaption {padding-top: 4px; font-size: .75rem; line-height: 1.25; overflow: hidden; overflow-wrap: anywhere;
  display: -webkit-box; -webkit-line-clamp: 4; -webkit-box-orient: vertical}
.near .cosine {opacity: .65}
</style>"""


def show(_: list[Run]) -> None:
    folder = root() / "artifacts" / "evaluate"
    record = read_record(folder / NEIGHBOURS, Neighbours)
    if record is None:
        st.info("Not checked for copies yet: `dvc repro evaluate` does it at the end.", icon=":material/content_copy:")
        return
    with st.container(horizontal=True, key="nearness"):
        st.metric("median of samples", f"{record.median_of_samples:.4f}", border=True, help="cosine to the nearest")
        st.metric("median of held-out pictures", f"{record.median_of_heldout:.4f}", border=True, help=HELDOUT_HELP)
        st.metric("nearer than held out", f"{record.closer_than_heldout:.1%}", border=True, help=CLOSER_HELP)
    st.markdown(explained(record))
    if record.in_training:
        flag = f"`{record.extractor}` took part in the training"
        st.badge(SEEN_IN_TRAINING, icon=":material/flag:", color="orange", help=flag)
    if not record.prompts:
        return
    addresses = tiles(folder, record)
    if addresses is None:
        st.warning("The sheet of nearest pictures cannot be read (yet).", icon=":material/broken_image:")
        return
    st.subheader("Nearest of all", anchor=False)
    st.caption("Left, framed: the sample and its prompt. Then the nearest training pictures, their cosine and caption.")
    st.html(STYLE + rows_of(record, addresses))


HELDOUT_HELP = "real pictures that were not trained on: what comes near by chance"
CLOSER_HELP = "share of samples nearer to a training picture than 99 % of the held-out pictures; 1 % is chance"


def explained(record: Neighbours) -> str:
    return (
        f"As `{record.extractor}` sees them, {record.num_samples:,} samples were compared with "
        f"{record.num_training:,} training pictures: a model that invents comes no nearer to them than held-out "
        f"pictures do, and about 1 % of its samples are nearer than 99 % of those; here it is "
        f"{record.closer_than_heldout:.1%}."
    )


def tiles(folder: Path, record: Neighbours) -> list[str] | None:
    """Every tile of the sheet as a data address, row by row; None where it is absent or torn."""
    listed = [
        Tile(key=key, caption="", kept=True)
        for prompt, nearest in zip(record.prompts, record.neighbours, strict=False)
        for key in (prompt, *(each.key for each in nearest))
    ]
    sheet = Sheet(file=record.sheet, tile_px=record.tile_px, columns=columns_of(record), tiles=listed)
    return cut(folder / record.sheet, sheet)


def columns_of(record: Neighbours) -> int:
    return 1 + max(map(len, record.neighbours), default=0)


def rows_of(record: Neighbours, addresses: list[str]) -> str:
    """The rows as HTML: a sample, then its neighbours."""
    left, lines = iter(addresses), []
    for prompt, nearest in zip(record.prompts, record.neighbours, strict=False):
        cells = [_figure(next(left), prompt, "sample"), '<div class="rule"></div>']
        cells += [_figure(next(left), each.caption, "", each.key, f"{each.cosine:.4f} ") for each in nearest]
        side = "minmax(64px, 128px)"
        style = f"grid-template-columns: {side} 2px repeat({columns_of(record) - 1}, {side})"
        lines.append(f'<div class="row" style="{style}">{"".join(cells)}</div>')
    return f'<div class="near">{"".join(lines)}</div>'


def _figure(address: str, caption: str, kind: str, key: str = "", cosine: str = "") -> str:
    said = html.escape(caption)
    return (
        f'<figure class="{kind}" title="{html.escape(f"{key}: " if key else "")}{said}"><img src="{address}" '
        f'alt="{said}"><figcaption><span class="cosine">{cosine}</span>{said}</figcaption></figure>'
    )


page("Copies", show)
