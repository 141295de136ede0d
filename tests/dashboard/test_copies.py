"""The copies page: samples beside the training pictures that they come nearest to."""

from __future__ import annotations

import base64
import html
import io
import re

import numpy as np
from PIL import Image

from stylegan_t.records import NEIGHBOURS
from tests.dashboard.measured import nearest_colour
from tests.dashboard.pages import opened


def shown(app) -> list[list[dict[str, str]]]:
    """The figures of each row."""
    body = next(element.proto.body for element in app.get("html") if 'class="near"' in element.proto.body)
    pattern = r'<figure class="(?P<kind>\w*)" title="(?P<title>[^"]*)"><img src="(?P<src>[^"]*)" alt="[^"]*">'
    pattern += r'<figcaption><span class="cosine">(?P<cosine>[^<]*)</span>(?P<caption>[^<]*)</figcaption>'
    return [[m.groupdict() for m in re.finditer(pattern, row)] for row in body.split('<div class="row"')[1:]]


def colour(address: str) -> np.ndarray:
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.asarray(picture.convert("RGB"), dtype=int).mean(axis=(0, 1))


def test_a_row_is_a_sample_and_its_nearest_training_pictures(project, prompts):
    project.evaluate()
    rows = shown(opened("copies.py"))
    assert [len(row) for row in rows] == [4, 4]
    for number, row in enumerate(rows):
        assert [figure["kind"] for figure in row] == ["sample", "", "", ""]
        assert row[0]["caption"] == prompts[number]
        assert [figure["cosine"].strip() for figure in row[1:]] == ["0.9900", "0.9800", "0.9700"]
        for column, figure in enumerate(row):
            assert abs(colour(figure["src"]) - nearest_colour(number, column)).max() < 8
    assert html.unescape(rows[1][2]["title"]) == "key11: a <b>picture</b> 11"
    assert html.unescape(rows[1][2]["caption"]) == "a <b>picture</b> 11"


def test_the_medians_and_the_share_are_explained(project):
    project.evaluate()
    app = opened("copies.py")
    assert {metric.label: metric.value for metric in app.metric} == {
        "median of samples": "0.9312", "median of held-out pictures": "0.9355", "nearer than held out": "3.2%",
    }  # fmt: skip
    (text,) = [each.value for each in app.markdown if "small_clip" in each.value]
    assert "500 samples were compared with 17,550 training pictures" in text
    assert text.endswith("here it is 3.2%.")


def test_a_judge_that_was_trained_with_is_flagged(project):
    flags = []
    for in_training in ((), ("clip_score",)):
        project.evaluate(in_training=in_training)
        flags.append([each.value for each in opened("copies.py").markdown if "seen in training" in each.value])
    assert [len(found) for found in flags] == [0, 1]


def test_outputs_without_the_check_say_so(project):
    project.evaluate()
    (project.root / "artifacts" / "evaluate" / NEIGHBOURS).unlink()
    app = opened("copies.py")
    assert any("yet" in message.value for message in app.info)
    assert not app.metric


def test_a_torn_sheet_is_told_and_the_figures_stay(project):
    project.evaluate()
    project.tear(project.root / "artifacts" / "evaluate" / "nearest.webp")
    app = opened("copies.py")
    assert any("cannot be read" in message.value for message in app.warning)
    assert len(app.metric) == 3
