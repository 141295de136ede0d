"""The dashboard in headless Chromium, as a person sees it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")

ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"
READY = '[data-testid=stApp][data-test-script-state="notRunning"]'
SECONDS = 60

pytestmark = pytest.mark.skipif(
    not shutil.which(CHROMIUM), reason=f"no {CHROMIUM}: `apt-get install chromium` has these tests run"
)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of a dashboard that shows ``root``."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", f"--server.port={port}"]
    environment = os.environ | {"STYLEGAN_T_ROOT": str(root)}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        address = f"http://localhost:{port}"
        deadline = time.monotonic() + SECONDS
        while not answers(f"{address}/_stcore/health"):
            assert server.poll() is None and time.monotonic() < deadline, "the dashboard does not start"
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=SECONDS)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    root = tmp_path_factory.mktemp("project")
    with served(root) as address:
        yield address, root


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser, dashboard) -> Iterator:
    """A fresh tab; at the end no script failed and nothing was asked of another machine."""
    address, _ = dashboard
    tab, errors, foreign = browser.new_page(), [], []
    tab.set_default_timeout(SECONDS * 1000)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else foreign.append(r.url))
    yield tab
    tab.close()
    assert not errors
    assert not foreign


def open_page(tab, address: str) -> None:
    tab.goto(address)
    tab.wait_for_selector("h1")
    tab.wait_for_selector(READY)
    assert tab.locator("[data-testid=stException]").count() == 0


def broken_pictures(tab) -> int:
    return tab.evaluate("[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length")


def test_without_runs_the_page_says_what_to_run_and_a_run_appears_by_itself(page, dashboard, project):
    address, root = dashboard
    open_page(page, address)
    page.get_by_text("make demo").wait_for()
    type(project)(root).train(kimg=12, finished=False)
    page.get_by_alt_text("seed 0, 12 kimg").first.wait_for()
    assert page.locator(".tiles img").count() == 36
    assert broken_pictures(page) == 0


def test_clicking_through_the_samples_changes_pictures_and_address(page, dashboard, project, prompts):
    address, root = dashboard
    type(project)(root).train(kimg=24, finished=False)
    open_page(page, address)
    page.get_by_alt_text("24 kimg · 16 px").first.wait_for()
    last = page.locator(".tiles img").first.get_attribute("src")
    page.get_by_role("slider").press("Home")
    page.get_by_alt_text(f"{prompts[0]}, seed 0, 0 kimg · 8 px").wait_for()
    assert page.locator(".tiles img").first.get_attribute("src") != last
    page.wait_for_url("**at=samples*")
    page.get_by_text("First and last", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.tiles img').length === 72")
    page.wait_for_url("**view=ends*")
    assert broken_pictures(page) == 0
    link = page.url
    open_page(page, link)
    page.wait_for_function("document.querySelectorAll('.tiles img').length === 72")


def test_a_half_written_picture_is_no_broken_image(page, dashboard, project):
    address, root = dashboard
    live = type(project)(root).train(kimg=36, finished=False)
    project.tear(live / "samples/00036.00.webp")
    open_page(page, address)
    page.locator(".tiles .unread").first.wait_for()
    assert page.get_by_text("cannot be read").count() == 1
    assert page.locator(".tiles .unread").count() == 36
    assert broken_pictures(page) == 0


def test_the_metrics_and_data_pages_draw_their_charts(page, dashboard, project):
    address, root = dashboard
    shown = type(project)(root)
    shown.train(kimg=12, finished=False)
    shown.evaluate()
    shown.filter()
    open_page(page, address)
    page.get_by_role("link", name="Metrics").click()
    for name in ("Quality", "Training"):
        page.get_by_role("heading", name=name).wait_for()
    page.wait_for_function("document.querySelectorAll('[data-testid=stVegaLiteChart] svg.marks').length >= 9")
    page.get_by_role("link", name="Data").click()
    page.get_by_role("heading", name="Dropped by the filter").wait_for()
    page.wait_for_function("document.querySelectorAll('[data-testid=stVegaLiteChart] svg.marks').length >= 2")
    assert broken_pictures(page) == 0


def test_the_copies_page_shows_every_tile_of_the_sheet(page, dashboard, project):
    address, root = dashboard
    type(project)(root).train(kimg=12, finished=False)
    type(project)(root).evaluate()
    open_page(page, address)
    page.get_by_role("link", name="Copies").click()
    page.get_by_role("heading", name="Nearest of all").wait_for()
    page.wait_for_function("document.querySelectorAll('.near img').length === 8")
    assert broken_pictures(page) == 0
    sides = page.evaluate("[...document.querySelectorAll('.near img')].map(i => i.getBoundingClientRect().width)")
    assert max(sides) - min(sides) < 1
