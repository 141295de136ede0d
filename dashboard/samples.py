"""The samples page: the same prompts and seeds, from the first images of a training to the last."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import streamlit as st
from PIL import Image

from dashboard.controls import choose, choose_run, page, show_state
from dashboard.runs import Run
from stylegan_t.records import SampleGrid, SampleSheet

TILES_PER_PAGE = 96
TILE_SIZES_PX = {48: "S", 96: "M", 128: "L", 256: "XL"}
USUAL_TILE_PX = 96
VIEWS = {"one": "One moment", "ends": "First and last", "all": "Over training"}
VIEWS_OF_PSI = {"one": "One psi", "ends": "Lowest and highest psi", "all": "Over psi"}
STYLE = """<style>
.tiles {overflow-x: auto; padding: 2px}
.tiles table {display: grid; gap: 4px; align-items: center; justify-content: start; border: 0; margin: 0}
.tiles thead, .tiles tbody, .tiles tr {display: contents}
.tiles th, .tiles td {border: 0; padding: 0; font-weight: 400; text-align: center}
.tiles thead th {font-size: .75rem; opacity: .65; white-space: nowrap}
.tiles thead th.head {font-size: .9rem; opacity: 1; padding-bottom: .4rem}
.tiles th[scope=row] {text-align: left; padding-right: 1rem;
  font-size: .9rem; line-height: 1.3; overflow-wrap: anywhere}
.tiles img, .tiles .unread {display: block; width: 100%; aspect-ratio: 1;
  border-radius: 4px; box-shadow: 0 0 0 1px #8884}
.tiles .unread {background: #8883}
.tiles td:hover img {box-shadow: 0 0 0 3px #5b5bd6}
</style>"""


@dataclass(frozen=True)
class Strip:
    """A row of tiles: ``row`` of one grid."""

    caption: str
    grids: tuple[SampleGrid, ...]
    row: int


def show(runs: list[Run]) -> None:
    with st.container(key="choice"):
        run = choose_run(runs)
        show_state(run)
    sheet = run.sheet()
    if sheet is None:
        st.info(
            "No samples yet: the first grid comes soon after the training starts.",
            icon=":material/hourglass_top:",
        )
        return
    strips, heads, tile_px = choose_strips(run, sheet)
    per_page = max(TILES_PER_PAGE // (len(sheet.seeds) * max(len(heads), 1)), 1)
    first = 0
    if len(strips) > per_page:
        pages = range(1, -(-len(strips) // per_page) + 1)
        first = (choose(st.segmented_control, "page", "Page", pages, 1, required=True) - 1) * per_page
    body, missing = table(run, sheet, strips[first : first + per_page], heads, tile_px)
    if missing:
        st.warning(f"{missing} of the pictures cannot be read (yet).", icon=":material/broken_image:")
    st.html(STYLE + body)


def choose_strips(run: Run, sheet: SampleSheet) -> tuple[list[Strip], list[str], int]:
    """The rows to draw, the headings over their groups of columns, and the side of a tile."""
    views = VIEWS_OF_PSI if run.stage == "evaluate" else VIEWS
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="view"):
        view = "one"
        if len(sheet.grids) > 1:
            view = choose(
                st.segmented_control,
                "view",
                "View",
                list(views),
                "one",
                says=lambda v: views[v],
                required=True,
            )
        sizes = sorted({grid.resolution for grid in sheet.grids})
        grids = sheet.grids
        if len(sizes) > 1:
            size = choose(
                st.segmented_control, "resolution", "Resolution", [0, *sizes], 0,
                says=lambda px: f"{px} px" if px else "all", required=True,
            )  # fmt: skip
            grids = [grid for grid in grids if size in (0, grid.resolution)]
        tile_px = choose(
            st.segmented_control, "tile", "Tile size", list(TILE_SIZES_PX), USUAL_TILE_PX,
            says=lambda px: TILE_SIZES_PX[px], required=True,
        )  # fmt: skip
    if view == "all":
        names = {str(i): prompt for i, prompt in enumerate(sheet.prompts)}
        row = int(choose(st.selectbox, "prompt", "Prompt", list(names), "0", says=lambda i: names[i], width=480))
        return [Strip(moment(run, grid), (grid,), row) for grid in grids], [], tile_px
    chosen = (grids[0], grids[-1]) if view == "ends" else (choose_moment(run, grids),)
    heads = [moment(run, grid) for grid in chosen] if len(chosen) > 1 else []
    return [Strip(prompt, chosen, row) for row, prompt in enumerate(sheet.prompts)], heads, tile_px


def choose_moment(run: Run, grids: Sequence[SampleGrid]) -> SampleGrid:
    if len(grids) == 1:
        st.caption(moment(run, grids[0]))
        return grids[0]
    by_file = {grid.file: grid for grid in grids}
    label = "Truncation" if run.stage == "evaluate" else "Training so far"
    return by_file[
        choose(
            st.select_slider,
            "at",
            label,
            list(by_file),
            grids[-1].file,
            says=lambda file: moment(run, by_file[file]),
        )
    ]


def moment(run: Run, grid: SampleGrid) -> str:
    """When a grid was drawn; an evaluation's grids are told apart by their names."""
    if run.stage == "evaluate":
        return grid.file.rsplit("/", 1)[-1].rsplit(".", 1)[0].replace("_", " ")
    return f"{grid.kimg:g} kimg · {grid.resolution} px"


def table(run: Run, sheet: SampleSheet, strips: Sequence[Strip], heads: Sequence[str], tile_px: int) -> tuple[str, int]:
    """The tiles as an HTML table with a caption for each row and column, and how many pictures were unreadable."""
    unread: set[str] = set()
    count, groups = len(sheet.seeds), max(len(heads), 1)
    columns = " 1rem ".join([f"repeat({count}, minmax(32px, {tile_px}px))"] * groups)
    lines = [
        f'<div class="tiles"><table style="grid-template-columns: fit-content(20rem) {columns}">',
        "<thead>",
    ]
    if heads:
        tops = [f'<th class="head" style="grid-column: span {count}">{html.escape(head)}</th>' for head in heads]
        lines.append(_line("<td></td>", tops))
    lines += [
        _line("<td></td>", ["".join(f'<th scope="col">seed {s}</th>' for s in sheet.seeds)] * groups),
        "</thead><tbody>",
    ]
    for strip in strips:
        cells = []
        for grid in strip.grids:
            tiles = cut(run, sheet, grid, strip.row, tile_px)
            if tiles is None:
                unread.add(grid.file)
            says = [f"{sheet.prompts[strip.row]}, seed {seed}, {moment(run, grid)}" for seed in sheet.seeds]
            cells.append("".join(map(_cell, tiles or [None] * count, says)))
        lines.append(_line(f'<th scope="row">{html.escape(strip.caption)}</th>', cells))
    return "".join([*lines, "</tbody></table></div>"]), len(unread)


def _line(head: str, groups: Sequence[str]) -> str:
    return f"<tr>{head}{'<td></td>'.join(groups)}</tr>"


def _cell(address: str | None, says: str) -> str:
    says = html.escape(says)
    picture = f'<img src="{address}" alt="{says}">' if address else '<div class="unread"></div>'
    return f'<td title="{says}">{picture}</td>'


def cut(run: Run, sheet: SampleSheet, grid: SampleGrid, row: int, tile_px: int) -> list[str] | None:
    """The tiles of one row of a grid, as data addresses; None where the picture is unreadable or of another sheet."""
    picture = run.picture(grid)
    if picture is None:
        return None
    side = picture.width // len(sheet.seeds)
    if picture.height < side * len(sheet.prompts):
        return None
    boxes = [(j * side, row * side, (j + 1) * side, (row + 1) * side) for j in range(len(sheet.seeds))]
    return [_encode(picture.crop(box).tobytes(), side, min(side, 2 * tile_px)) for box in boxes]


@lru_cache(maxsize=4096)
def _encode(pixels: bytes, side: int, shown_px: int) -> str:
    tile = Image.frombytes("RGB", (side, side), pixels)
    if shown_px < side:
        tile = tile.resize((shown_px, shown_px), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    tile.save(file, "WEBP", quality=90, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


page("Samples", show)
