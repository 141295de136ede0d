"""Pages of the dashboard, opened as a browser would, and what stands on them."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
PAGES = ["samples.py", "metrics.py", "copies.py", "data.py", "experiments.py"]


def opened(page: str = "samples.py", **address: str) -> AppTest:
    """A page as the browser would show it, without any exception on it."""
    app = AppTest.from_file(APP, default_timeout=60)
    if page != "samples.py":
        app.switch_page(page)
    for name, value in address.items():
        app.query_params[name] = value
    return looked(app)


def looked(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception, app.exception
    return app


def tiles_body(app: AppTest) -> str:
    return next(element.proto.body for element in app.get("html") if '<div class="tiles">' in element.proto.body)


def tiles(app: AppTest) -> list[list[str]]:
    """What the tiles of each row are said to show, unreadable ones as ''."""
    body = tiles_body(app)
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', body)
    return [[html.unescape(alt) for alt in re.findall(r'(?:alt="([^"]*)"|class="unread")', row)] for row in rows]


def captions(app: AppTest) -> list[str]:
    body = tiles_body(app)
    return [html.unescape(text) for text in re.findall(r'<th scope="row">(.*?)</th>', body)]


def charts(app: AppTest) -> list[dict]:
    return [json.loads(element.proto.spec) for element in app.get("vega_lite_chart")]


def pick(app: AppTest, kind: str, label: str, value: object) -> AppTest:
    widget = next(widget for widget in getattr(app, kind) if widget.label == label)
    widget.set_value(value)
    return looked(app)


def options(app: AppTest, kind: str, label: str) -> list[str]:
    return list(next(widget for widget in getattr(app, kind) if widget.label == label).options)
