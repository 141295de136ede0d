"""The data page's report of the filter: funnel, histograms, and pairs that rules kept and dropped."""

from __future__ import annotations

import base64
import html
import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dashboard.curation import MOST_ROWS, funnel_rows, read_sheets
from stylegan_t.files import write_json
from tests.dashboard.pages import charts, looked, opened, pick

TILE_PX, GAP_PX, COLUMNS = 32, 4, 8
COLOURS = [(20 * n, 255 - 20 * n, 90) for n in range(12)]


def tile(number: int, **values) -> dict:
    return {"key": f"key{number}", "caption": f"a <b>dog</b> & cat {number}", "kept": False, **values}


@pytest.fixture
def curated(project):
    """A project whose filter dropped pairs for two reasons, with a sheet for each and for those that stayed."""
    project.filter()
    folder = project.root / "data" / "prepared"
    (folder / "plots").mkdir(parents=True)
    sheet = Image.new("RGB", (COLUMNS * (TILE_PX + GAP_PX) - GAP_PX, 2 * (TILE_PX + GAP_PX) - GAP_PX))
    for number, colour in enumerate(COLOURS):
        place = (number % COLUMNS * (TILE_PX + GAP_PX), number // COLUMNS * (TILE_PX + GAP_PX))
        sheet.paste(Image.new("RGB", (TILE_PX, TILE_PX), colour), place)
    names = ("kept", "dropped_too_small", "dropped_near_duplicate", "funnel", "aspect", "sharpness")
    for name in names:
        sheet.save(folder / "plots" / f"{name}.png")
    facts = {"tile_px": TILE_PX, "columns": COLUMNS}
    pairs = [tile(n, value=3.0) if n % 2 == 0 else tile(n, kept=True) for n in range(12)]
    report = json.loads((folder / "report.json").read_text()) | {
        "funnel": [
            {"reason": "too_small", "dropped": 31, "left": 19969}, {"reason": "aspect", "dropped": 0, "left": 19969},
            {"reason": "near_duplicate", "dropped": 469, "left": 19500},
        ],
        "datasets": {"cats": {"total": 15000, "kept": 14600}, "dogs": {"total": 5000, "kept": 4900}},
        "plots": [{"file": f"plots/{name}.png", "title": f"the {name}"} for name in ("funnel", "aspect", "sharpness")],
        "samples": {
            "near_duplicate": {"file": "plots/dropped_near_duplicate.png", "tiles": pairs, **facts},
            "kept": {"file": "plots/kept.png", "tiles": [tile(n, kept=True) for n in range(12)], **facts},
            "too_small": {"file": "plots/dropped_too_small.png", "tiles": [tile(n) for n in range(12)], **facts},
        },
    }  # fmt: skip
    write_json(folder / "report.json", report)
    reasons = ["near_duplicate", *["too_small"] * (MOST_ROWS + 7)]
    keys = [f"key{n}" for n in range(len(reasons))]
    pq.write_table(pa.table({"key": keys, "reason": reasons, "caption": keys}), folder / "rejected.parquet")
    return project


def figures(app) -> list[dict[str, str]]:
    body = next(element.proto.body for element in app.get("html") if 'class="sheet"' in element.proto.body)
    found = re.finditer(r'<figure( class=kept)? title="([^"]*)"><img src="([^"]*)" alt="([^"]*)">(.*?)</figure>', body)
    return [
        {"framed": each[1] or "", "title": html.unescape(each[2]), "src": each[3], "text": html.unescape(each[5])}
        for each in found
    ]


def test_the_funnel_is_drawn_in_the_order_of_the_rules(curated):
    app = opened("data.py")
    drawn = next(chart for chart in charts(app) if "pairs that are" in json.dumps(chart))
    assert [layer["encoding"]["y"]["sort"] for layer in drawn["layer"]] == [None, None]
    report = json.loads((curated.root / "data" / "prepared" / "report.json").read_text())
    assert [(row["rule"], row["left"], row["dropped"]) for row in funnel_rows(report)] == [
        ("scored", 20000, 0), ("too small", 19969, 31), ("near duplicate", 19500, 469),
    ]  # fmt: skip


def test_histograms_are_shown_and_a_torn_one_is_left_out(curated):
    titles = lambda: [picture.caption for image in opened("data.py").get("image") for picture in image.proto.imgs]
    assert titles() == ["the aspect", "the sharpness"]
    curated.tear(curated.root / "data" / "prepared" / "plots" / "aspect.png")
    assert titles() == ["the sharpness"]


def test_pairs_are_cut_from_their_sheet_with_their_captions_as_text(curated):
    shown = figures(opened("data.py"))
    assert len(shown) == 12
    for number, (each, colour) in enumerate(zip(shown, COLOURS, strict=True)):
        assert each["title"] == f"key{number}: a <b>dog</b> & cat {number}"
        picture = Image.open(io.BytesIO(base64.b64decode(each["src"].partition(",")[2]))).convert("RGB")
        assert abs(np.asarray(picture, int) - colour).max() < 8


def test_reasons_come_in_the_order_of_the_rules_and_the_address_remembers_the_choice(curated):
    app = opened("data.py")
    box = next(widget for widget in app.selectbox if widget.label.startswith("Kept"))
    assert list(box.options) == ["kept", "too small", "near duplicate"]
    app = pick(app, "selectbox", "Kept, or dropped by", "near_duplicate")
    assert app.query_params["reason"] == "near_duplicate"
    shown = figures(app)
    assert [bool(each["framed"]) for each in shown] == [False, True] * 6, "those that stayed instead are framed"
    assert all(('class="value"> 3<' in each["text"]) != bool(each["framed"]) for each in shown)
    assert [each["title"] for each in figures(opened("data.py", reason="near_duplicate"))] == [
        e["title"] for e in shown
    ]


def test_rejected_pairs_are_listed_by_reason(curated):
    app = opened("data.py", reason="near_duplicate")
    assert app.dataframe[-1].value["key"].tolist() == ["key0"]
    app = opened("data.py", reason="too_small")
    assert app.dataframe[-1].value["key"].tolist() == [f"key{n}" for n in range(1, MOST_ROWS + 1)]
    curated.tear(curated.root / "data" / "prepared" / "rejected.parquet")
    assert len(looked(app).dataframe) == 1, "the datasets are left"


def test_the_datasets_of_a_mixture_stand_in_a_table(curated):
    (table, *_) = opened("data.py").dataframe
    assert table.value.to_dict("list") == {"dataset": ["cats", "dogs"], "total": [15000, 5000], "kept": [14600, 4900]}


def test_a_torn_sheet_is_told_and_breaks_nothing(curated):
    curated.tear(curated.root / "data" / "prepared" / "plots" / "kept.png")
    assert any("cannot be read" in message.value for message in opened("data.py").warning)


@pytest.mark.parametrize(
    "report",
    [{}, {"funnel": 3, "total": 4}, {"funnel": [7, {}], "total": 4}, {"samples": [], "plots": 3, "datasets": []},
     {"samples": {"kept": {"file": 3}}, "plots": [3, {}], "datasets": {}}],
)  # fmt: skip
def test_a_report_of_another_shape_shows_what_it_can(project, report):
    project.filter()
    path = project.root / "data" / "prepared" / "report.json"
    write_json(path, json.loads(path.read_text()) | report)
    opened("data.py")
    assert read_sheets(report) == {}
