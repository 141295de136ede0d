from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat
from streamlit.testing.v1 import AppTest

from stylegan_t.records import LOG, LogRecord
from tests.dashboard.conftest import terms_at

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
PAGES = ["samples.py", "metrics.py", "data.py"]


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


# ---- every page in every state -------------------------------------------------------------------------------


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


# ---- samples -------------------------------------------------------------------------------------------------


def test_rows_carry_their_prompt_and_columns_their_seed(project, prompts):
    project.train(kimg=12, finished=False)
    app = opened()
    assert captions(app) == prompts
    assert tiles(app)[2][5] == f"{prompts[2]}, seed 5, 12 kimg · 8 px"
    assert all(len(row) == 6 for row in tiles(app))


def test_the_slider_goes_through_the_training(project):
    project.train()
    app = opened()
    assert "60 kimg · 16 px" in tiles(app)[0][0]
    pick(app, "select_slider", "Training so far", "samples/00012.00.webp")
    assert "12 kimg · 8 px" in tiles(app)[0][0]
    assert app.query_params["at"] == "samples/00012.00.webp"


def test_the_newest_grid_is_followed_while_an_older_one_stays(project):
    project.train(kimg=12, finished=False)
    following, staying = opened(), opened()
    pick(staying, "select_slider", "Training so far", "samples/00000.00.webp")
    project.train(kimg=24, finished=False)
    assert "24 kimg" in tiles(looked(following))[0][0]
    assert "0 kimg" in tiles(looked(staying))[0][0]


def test_a_new_run_is_followed_until_the_reader_picks_one(project):
    project.train("train_generator", kimg=12, started="2026-01-01T00:00:00+00:00")
    app = opened()
    project.train("finetune_text_encoder", "77bc", kimg=2, total=6, finished=False, resolutions=[16])
    assert "2 of 6" in " ".join(text.value.replace("**", "") for text in looked(app).markdown)
    pick(app, "button_group", "Stage", "train_generator")
    looked(app)
    assert app.query_params["stage"] == "train_generator"
    assert "12 kimg" in tiles(looked(app))[0][0]


def test_an_earlier_stage_that_trains_anew_is_followed(project):
    project.train("train_generator", "old", kimg=2, started="2026-01-01T00:00:00+00:00")
    project.train("finetune_text_encoder", "77bc", kimg=2, resolutions=[16])
    app = opened()
    project.train("train_generator", "new", kimg=5, finished=False, started="2026-02-01T00:00:00+00:00")
    assert "5 of 60" in " ".join(text.value.replace("**", "") for text in looked(app).markdown)


def test_each_tile_is_cut_from_its_place_in_the_picture(project):
    live = project.train(kimg=12, finished=False)
    body = tiles_body(opened())
    shown = re.findall(r'src="data:image/webp;base64,([^"]*)"', body)
    picture = Image.open(live / "samples/00012.00.webp").convert("RGB")
    assert len(shown) == 36
    for number, text in enumerate(shown):
        tile = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
        left, top = number % 6 * 64, number // 6 * 64
        difference = ImageChops.difference(tile, picture.crop((left, top, left + 64, top + 64)))
        assert max(ImageStat.Stat(difference).mean) < 12  # lossy


def test_a_resolution_shows_its_grids_only(project):
    project.train()
    app = pick(opened(), "button_group", "Resolution", 8)
    assert all(text.endswith("8 px") for text in options(app, "select_slider", "Training so far"))
    assert "8 px" in tiles(app)[0][0]


def test_first_and_last_stand_side_by_side(project, prompts):
    project.train(kimg=24, finished=False)
    app = pick(opened(), "button_group", "View", "ends")
    assert [tiles(app)[0][0], tiles(app)[0][6]] == [
        f"{prompts[0]}, seed 0, 0 kimg · 8 px",
        f"{prompts[0]}, seed 0, 24 kimg · 16 px",
    ]


def test_one_prompt_is_followed_over_the_training(project, prompts):
    project.train(kimg=24, finished=False)
    app = pick(opened(), "button_group", "View", "all")
    app = pick(app, "selectbox", "Prompt", "3")
    assert captions(app) == ["0 kimg · 8 px", "12 kimg · 8 px", "24 kimg · 16 px"]
    assert all(row[0].startswith(prompts[3]) for row in tiles(app))


def test_many_prompts_are_paged_and_none_is_lost(project, prompts):
    project.train(kimg=0, every=1, finished=False, prompts=prompts * 7)
    app, seen = opened(), []
    for number in [int(option) for option in options(app, "button_group", "Page")]:
        seen += captions(pick(app, "button_group", "Page", number))
    assert seen == prompts * 7


def test_an_address_opens_the_view_that_it_was_copied_from(project):
    project.train("train_generator", "aa", started="2026-01-01T00:00:00+00:00")
    project.train("train_generator", "bb", started="2026-02-01T00:00:00+00:00")
    app = opened(stage="train_generator", run="aa", view="ends", tile="128")
    again = opened(**app.query_params)
    assert app.query_params["run"] == "aa"
    assert tiles(again) == tiles(app)
    assert len(tiles(again)[0]) == 12


def test_an_address_that_names_nothing_is_the_usual_view(project):
    project.train(kimg=12, finished=False)
    assert tiles(opened(stage="gone", run="gone", at="x", view="y", tile="z")) == tiles(opened())


def test_captions_are_text_even_where_they_look_like_html(project):
    nasty = 'a large red circle on <script>alert(1)</script> white & "<b>grey</b>" background'
    project.train(kimg=0, every=1, finished=False, prompts=[nasty])
    app = opened()
    assert captions(app) == [nasty]
    body = tiles_body(app)
    assert "<script" not in body
    assert "<b>" not in body


def test_an_unreadable_picture_leaves_empty_tiles_and_a_warning(project):
    live = project.train(kimg=12, finished=False)
    project.tear(live / "samples/00012.00.webp")
    app = opened()
    assert set(tiles(app)[0]) == {""}
    assert len(app.warning) == 1


def test_an_evaluations_grids_are_told_apart_by_psi(project):
    project.evaluate()
    app = opened()
    assert options(app, "select_slider", "Truncation") == ["psi 0.50", "psi 1.00"]
    assert "psi 1.00" in tiles(app)[0][0]


# ---- metrics and data ----------------------------------------------------------------------------------------


def test_losses_are_grouped_over_kimg(project):
    project.train(kimg=6, finished=False)
    app = opened("metrics.py")
    assert {heading.value for heading in app.subheader} == {
        "Adversarial", "Logits", "CLIP guidance", "Penalties", "Health", "Gradients", "Speed", "Schedules",
    }  # fmt: skip
    assert not any("Quality" in heading.value for heading in app.header)
    adversarial = charts(app)[0]["layer"][0]["encoding"]
    assert adversarial["color"]["sort"] == ["d_real", "d_fake", "d_wrong_caption", "g_adversarial"]
    assert adversarial["x"]["field"] == "kimg"


def groups(rows: list[dict]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["group"], []).append(row["term"])
    return found


def test_every_term_is_in_the_group_that_it_belongs_to():
    from dashboard.metrics import term_rows

    line = LogRecord(kimg=1.0, resolution=8, terms=terms_at(1.0, 60.0) | {"text_encoder_lr": 3e-6})
    assert groups(term_rows({"run": [line]})) == {
        "Adversarial": ["d_real", "d_fake", "d_wrong_caption", "g_adversarial"],
        "CLIP guidance": ["clip_guidance"],
        "Logits": ["logits_real", "logits_fake"],
        "Penalties": ["range_penalty"],
        "Health": ["reals_positive", "fakes_negative", "fakes_diversity", "clamped"],
        "Gradients": ["g_grad_norm", "d_grad_norm"],
        "Schedules": ["generator_lr", "discriminator_lr", "ema_decay", "text_encoder_lr"],
    }


def test_a_run_without_monitors_and_schedules_has_no_charts_of_them(project):
    names = [name for name in terms_at(1.0, 1.0) if name not in ("d_real", "logits_real")]
    project.train(kimg=3, finished=False, without=names)
    headings = {heading.value for heading in opened("metrics.py").subheader}
    assert headings == {"Adversarial", "Logits", "Speed"}


def test_outputs_without_their_run_have_losses_and_no_speed(project):
    project.train(kimg=3, total=3)
    shutil.rmtree(project.root / ".state")
    headings = {heading.value for heading in opened("metrics.py").subheader}
    assert "Adversarial" in headings
    assert "Speed" not in headings


def test_a_value_that_is_not_finite_leaves_a_gap_and_its_neighbours():
    from dashboard.metrics import term_rows

    values = [1.0, math.nan, math.inf, 4.0]
    lines = [LogRecord(kimg=i, resolution=8, terms={"clamped": value}) for i, value in enumerate(values)]
    assert [(row["kimg"], row["value"]) for row in term_rows({"run": lines})] == [(0, 1.0), (3, 4.0)]


def test_a_term_that_comes_late_is_kept_in_a_thinned_history():
    from dashboard.metrics import MOST_POINTS, term_rows

    lines = [
        LogRecord(kimg=i, resolution=8, terms={"d_real": 1.0} | ({"clamped": 0.5} if i % 4 == 3 else {}))
        for i in range(4 * MOST_POINTS)
    ]
    late = [row["value"] for row in term_rows({"run": lines}) if row["term"] == "clamped"]
    assert late == [0.5] * MOST_POINTS


def test_gradient_norms_are_drawn_on_a_logarithmic_scale(project):
    project.train(kimg=6, finished=False)
    scales = {
        tuple(layer["encoding"]["color"]["sort"]): layer["encoding"]["y"]["scale"].get("type")
        for layer in (chart["layer"][0] for chart in charts(opened("metrics.py")) if "layer" in chart)
        if "color" in layer["encoding"]
    }
    assert scales["g_grad_norm", "d_grad_norm"] == "log"
    assert scales["logits_real", "logits_fake"] is None


def test_speed_shows_the_median_of_the_last_lines(project):
    live = project.train(kimg=20, finished=False)
    app = opened("metrics.py")
    lines = [json.loads(line) for line in (live / LOG).read_text().splitlines()]
    rates = [line["speed"]["images_per_second"] for line in lines]
    shown = next(metric.value for metric in app.metric if metric.label == "images/s")
    assert shown == f"{sorted(rates[-10:])[5]:,.0f}"


def test_another_run_can_be_laid_over(project):
    project.train(digest="aa", kimg=6, started="2026-01-01T00:00:00+00:00", finished=False)
    project.train(digest="bb", kimg=6, started="2026-02-01T00:00:00+00:00", finished=False)
    app = opened("metrics.py")
    assert "strokeDash" not in charts(app)[0]["layer"][0]["encoding"]
    app = pick(app, "selectbox", "Compare with", "aa")
    assert len(charts(app)[0]["layer"][0]["encoding"]["strokeDash"]["sort"]) == 2


def test_long_histories_are_thinned_to_their_means():
    from dashboard.metrics import MOST_POINTS, thin

    rows = [{"kimg": float(i), "value": float(i % 2)} for i in range(4 * MOST_POINTS)]
    thinned = thin(rows)
    assert len(thinned) == MOST_POINTS
    assert {row["value"] for row in thinned} == {0.5}
    assert thinned[1]["kimg"] == 5.5


def test_the_sweep_is_distance_against_score_over_psi(project):
    project.evaluate()
    spec = charts(opened("metrics.py"))[0]["layer"][0]["encoding"]
    assert (spec["x"]["field"], spec["y"]["field"], spec["order"]["field"]) == (
        "clip_score",
        "frechet_distance",
        "psi",
    )


def test_the_headline_is_the_final_models_figures(project):
    project.evaluate()
    app = opened("metrics.py")
    assert {metric.label: metric.value for metric in app.metric} == {
        "Fréchet distance": "0.0312", "CLIP score": "0.671", "caption found": "83.0%", "oracle, seen": "84.0%",
        "oracle, held out": "76.0%", "position spread": "47.0%",
    }  # fmt: skip
    assert "untrained generator: 1.31" in app.metric[0].help


def test_real_pictures_have_no_oracle_and_that_is_fine(project):
    project.evaluate(oracle=False)
    app = opened("metrics.py")
    assert [metric.label for metric in app.metric] == ["Fréchet distance", "CLIP score", "caption found"]
    assert [heading.value for heading in app.subheader] == [
        "Fréchet distance against CLIP score",
        "From stage to stage",
    ]


def test_oracle_accuracies_are_read_by_attribute_and_prompts():
    from dashboard.quality import HELDOUT, SEEN, oracle_rows

    rows = oracle_rows({"oracle_shape": 0.6, "oracle_heldout_shape": 0.5, "oracle_shape_range": 0.1, "clip_score": 1})
    assert [(row["attribute"], row["prompts"], row["accuracy"]) for row in rows] == [
        ("shape", SEEN, 0.6),
        ("shape", HELDOUT, 0.5),
    ]


def test_the_data_page_accounts_for_every_pair(project):
    project.filter()
    app = opened("data.py")
    counts = {metric.label: int(metric.value.replace(",", "")) for metric in app.metric}
    assert counts == {"downloaded": 20000, "dropped by the filter": 500, "for training": 17550,
                      "held out for measuring": 1950}  # fmt: skip
    assert counts["downloaded"] == sum(counts.values()) - counts["downloaded"]


def test_the_run_goes_along_to_the_next_page(project):
    project.train("train_generator", "aa", kimg=2, started="2026-01-01T00:00:00+00:00")
    project.train("finetune_text_encoder", "bb", kimg=2, resolutions=[16])
    app = pick(opened(), "button_group", "Stage", "train_generator")
    app.switch_page("metrics.py")
    assert looked(app).query_params["stage"] == "train_generator"


def test_losses_that_have_no_lines_yet_are_announced(project):
    live = project.train(kimg=2, finished=False)
    (live / LOG).unlink()
    assert any("No losses yet" in message.value for message in opened("metrics.py").info)
