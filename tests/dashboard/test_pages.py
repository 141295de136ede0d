"""Every page in every state that a project can be in."""

from __future__ import annotations

import pytest

from tests.dashboard.pages import PAGES, opened


@pytest.mark.parametrize("page", PAGES)
def test_without_runs_a_page_says_what_to_run(project, page):
    assert any("make demo" in text.value for text in opened(page).markdown)


@pytest.mark.parametrize("page", PAGES)
def test_a_finished_pipeline_is_shown(project, page):
    project.train(kimg=3, total=3, every=1)
    project.evaluate()
    project.filter()
    opened(page)


@pytest.mark.parametrize("page", PAGES)
def test_a_run_that_has_only_begun_is_shown(project, page):
    live = project.train(kimg=0, finished=False)
    for path in live.glob("samples*"):
        path.rename(project.root / path.name)
    app = opened(page)
    if page != "data.py":
        assert any("yet" in message.value for message in app.info)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_half_written_files_never_break_a_page(project, page):
    project.train(kimg=24, finished=False)
    project.evaluate()
    project.filter()
    files = sorted(path for path in project.root.rglob("*") if path.is_file())
    for path in files:
        whole = path.read_bytes()
        project.tear(path)
        opened(page) if path.suffix != ".webp" else None
        path.write_bytes(whole)
    for path in files:
        project.tear(path)
    opened(page)
