"""The metrics and data pages: losses, speed, and what became of every pair."""

from __future__ import annotations

import json
import math
import shutil

from stylegan_t.records import LOG, LogRecord
from tests.dashboard.conftest import terms_at
from tests.dashboard.pages import charts, looked, opened, pick


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
