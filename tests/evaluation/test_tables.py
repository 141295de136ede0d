"""Evaluations as tables, as nested numbers, and as curves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from stylegan_t.evaluation.curves import curve, write_chart
from stylegan_t.evaluation.tables import against, headline, row_of, values, write_table
from stylegan_t.records import Evaluation, Measurement


def measurement(
    metric: str, value: float | None, extractor: str = "clip", in_training: bool | None = False
) -> Measurement:
    absent = "no network" if value is None else None
    return Measurement(
        name=f"{metric} by {extractor}", metric=metric, better="lower", value=value, absent=absent,
        extractor=extractor, in_training=in_training,
    )  # fmt: skip


def evaluation(*measurements: Measurement, psi: float = 1.0, **facts: float) -> Evaluation:
    return Evaluation(
        protocol="quick", subject="train_generator", subject_sha256="", weights="ema", psi=psi, seeds=None, count=30,
        px=16, fit=None, captions_sha256=None, reference="heldout", reference_sha256="", reference_count=60,
        measurements=list(measurements), facts=facts,
    )  # fmt: skip


def test_a_headline_is_the_first_value_that_there_is():
    found = evaluation(measurement("frechet", None, "dinov2"), measurement("frechet", 3.0), measurement("frechet", 4.0))
    assert headline(found, "frechet") == 3.0
    assert headline(found, "kernel") is None


def test_a_headline_is_never_of_a_judge_that_took_part_in_the_training():
    player, unknown = measurement("frechet", 1.0, "player", True), measurement("frechet", 3.0, "clip", None)
    assert headline(evaluation(player, unknown), "frechet") == 3.0
    alone = evaluation(player, measurement("clip_score", 0.9, "player", True))
    row = row_of(alone, 0)
    assert (row["frechet_distance"], row["clip_score"]) == (None, None)
    assert (row["frechet_player_seen_in_training"], row["clip_score_player_seen_in_training"]) == (1.0, 0.9)
    assert against([alone], [alone]) == {}


def test_a_row_has_headlines_every_judges_values_and_what_was_read():
    found = evaluation(measurement("frechet", None, "dinov2"), measurement("frechet", 3.0), mean_accuracy=0.5)
    row = row_of(found, 2)
    assert row["frechet_distance"] == row["frechet_clip"] == 3.0
    assert row["kernel_distance"] is row["frechet_dinov2"] is None
    assert (row["stage"], row["psi"], row["repetition"], row["resolution"], row["num_images"]) == (
        "train_generator", 1.0, 2, 16, 30
    )  # fmt: skip
    assert row["mean_accuracy"] == 0.5


def test_repetitions_are_their_median_and_range_and_one_alone_is_itself():
    three = [evaluation(measurement("frechet", value), mean_accuracy=value / 10) for value in (1.0, 7.0, 3.0)]
    assert values(three) == {
        "frechet by clip": 3.0, "frechet by clip_range": 6.0,
        "mean_accuracy": pytest.approx(0.3), "mean_accuracy_range": pytest.approx(0.6),
    }  # fmt: skip
    assert values(three[:1]) == {"frechet by clip": 1.0, "mean_accuracy": pytest.approx(0.1)}
    assert values([evaluation(measurement("frechet", None))]) == {}


def test_a_figure_of_the_first_repetition_alone_has_no_range():
    first = evaluation(measurement("frechet", 1.0), measurement("best of", 0.9), mean_accuracy=0.5)
    other = evaluation(measurement("frechet", 3.0))
    assert values([first, other]) == {
        "frechet by clip": 2.0, "frechet by clip_range": 2.0, "best of by clip": 0.9, "mean_accuracy": 0.5
    }  # fmt: skip


def test_what_stage_two_changed_is_gains_and_a_ratio_of_medians():
    group = lambda score, distance, accuracy: [
        evaluation(measurement("clip_score", score), measurement("frechet", distance), mean_accuracy=accuracy)
    ]
    assert against(group(0.2, 10.0, 0.5), group(0.3, 5.0, 0.4)) == {
        "clip_score_gain": pytest.approx(0.1), "frechet_distance_ratio": 0.5, "mean_accuracy_gain": pytest.approx(-0.1)
    }  # fmt: skip
    nothing = [evaluation(measurement("clip_score", None))]
    assert against(nothing, nothing) == {}


def test_a_table_keeps_every_column_and_leaves_what_is_missing_empty(tmp_path: Path):
    write_table(tmp_path / "table.csv", [{"a": 1 / 3, "b": "x"}, {"a": None, "c": 2}])
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"a": "0.333333", "b": "x", "c": ""}, {"a": "", "b": "", "c": "2"}]


ROWS = [
    {"stage": stage, "resolution": 16, "psi": psi, "clip_score": score, "frechet_distance": 10 - psi}
    for stage, score in (("train_generator", 0.2), ("another", 0.3))
    for psi in (1.0, 0.5)
]


@pytest.fixture(scope="module")
def chart():
    return curve(ROWS, "clip_score", "frechet_distance", ("Quality", "CLIP score", "Fréchet distance"))


def test_a_curve_holds_the_numbers_of_its_table_and_names_stages_in_words(chart, tmp_path):
    write_chart(tmp_path / "a.png", tmp_path / "a.json", chart)
    found = json.loads((tmp_path / "a.json").read_text())
    drawn = [
        (row["psi"], row["clip_score"], row["frechet_distance"])
        for row in next(layer for layer in (found, *found["layer"]) if "data" in layer)["data"]["values"]
    ]
    assert drawn == [(row["psi"], row["clip_score"], row["frechet_distance"]) for row in ROWS]
    assert "stage one, 16 px" in json.dumps(found)
    assert "another" in json.dumps(found)
    with Image.open(tmp_path / "a.png") as picture:
        assert len(set(picture.convert("RGB").get_flattened_data())) > 10


def test_the_line_goes_through_the_points_by_psi_and_not_by_score(chart):
    line = chart.to_dict()["layer"][0]
    assert line["mark"]["type"] == "line"
    assert line["encoding"]["order"]["field"] == "psi"
