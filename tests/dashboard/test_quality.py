"""What the metrics page says of the evaluation: figures with their limits, flags, curves, the oracle, speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dashboard.evaluations import Figure, figures, first_of_each, headline, read_found
from dashboard.oracle import HELDOUT, SEEN, oracle_rows
from stylegan_t.evaluation import tables
from stylegan_t.files import write_json
from stylegan_t.records import EVALUATIONS, Evaluation, read_lines, write_lines
from tests.dashboard.measured import PSIS, REFERENCE, STAGES, evaluation, measurement
from tests.dashboard.pages import charts, opened

TITLES = ["Train generator", "Finetune text encoder", "Train super resolution"]
MEASURED = {
    "Fréchet distance": "0.0312",
    "kernel distance": "0.0039",
    "CMMD": "0.1248",
    "CLIP score": "0.671",
    "own caption found, of 32": "83.0%",
}


def evaluate_folder(project) -> Path:
    return project.root / "artifacts" / "evaluate"


def card(app, label):
    return next(metric for metric in app.metric if metric.label.startswith(label))


def sweep(app) -> dict:
    return next(chart for chart in charts(app) if "order" in chart["layer"][0]["encoding"])["layer"][0]["encoding"]


def test_the_headline_is_the_final_models_figures(project):
    project.evaluate()
    assert {metric.label: metric.value for metric in opened("metrics.py").metric} == MEASURED | {
        "oracle, seen": "84.0%", "oracle, held out": "76.0%", "position spread": "47.0%", "size diversity": "92.0%",
    }  # fmt: skip


def test_a_figure_stands_beside_its_interval_and_what_others_get(project):
    project.evaluate()
    shown = card(opened("metrics.py"), "Fréchet distance")
    assert shown.delta == "0.02808 – 0.03432"
    for words in (
        "`fd_small_clip_5000_shapes32`, lower is better",
        "95 %: 0.02808 – 0.03432, from 20 random halves without replacement",
        "real pictures: 0.0066 (`fd_small_clip_975_shapes32`)",
        "untrained generator: 1.31 (`fd_small_clip_1500_shapes32`)",
    ):
        assert words in shown.help


def test_real_pictures_that_nobody_was_measured_against_are_not_shown(project):
    project.evaluate()
    path = project.root / "artifacts" / "reference_statistics" / "statistics.json"
    path.write_text(path.read_text().replace(REFERENCE, "another"))
    shown = card(opened("metrics.py"), "Fréchet distance").help
    assert "untrained" in shown
    assert "real pictures" not in shown


def test_metrics_that_say_more_at_a_small_count_come_first(project):
    project.evaluate(count=1500)
    labels = [metric.label for metric in opened("metrics.py").metric]
    others = [name for name in MEASURED if name != "Fréchet distance"]
    assert labels[:5] == [*others, "Fréchet distance :gray-badge[few pictures]"]


def test_a_metric_whose_network_was_trained_with_is_flagged_wherever_it_stands(project):
    project.evaluate(in_training=["clip_score"])
    app = opened("metrics.py")
    assert [metric.label for metric in app.metric if "seen in training" in metric.label] == [
        "CLIP score :orange-badge[seen in training]"
    ]
    headings = json.loads(app.dataframe[0].proto.columns)
    flagged = [name for name, column in headings.items() if "seen in training" in (column.get("label") or "")]
    assert flagged == ["clip_score_small_clip_seen_in_training"]
    shown = app.dataframe[0].value["clip_score_small_clip_seen_in_training"]
    assert shown.tolist() == pytest.approx([0.631, 0.651, 0.671])
    table = next(frame.value for frame in app.dataframe if "its network" in frame.value)
    assert table[table["its network"] == "seen in training"]["metric"].tolist() == ["CLIP score"]


def test_a_figure_that_flatters_is_on_no_axis_and_that_is_told(project):
    project.evaluate()
    assert sweep(opened("metrics.py"))["x"]["title"] == "CLIP score by small_clip"
    assert not any("No curve" in caption.value for caption in opened("metrics.py").caption)
    project.evaluate(in_training=["clip_score"])
    app = opened("metrics.py")
    assert not any("order" in chart["layer"][0]["encoding"] for chart in charts(app))
    why = "No curve over psi: no CLIP score by a judge that took no part in the training."
    assert why in [caption.value for caption in app.caption]


def test_the_page_calls_the_same_figures_headlines_and_columns_as_the_tables():
    judges = [(name, trained) for trained in (True, None, False) for name in ("a", "b")]
    measured = [
        measurement("frechet", value, 1500, extractor=f"{name} {trained}", in_training=trained)
        for name, trained in judges
        for value in (None if name == "a" else 0.5, 0.25)
    ]
    for first in range(len(measured)):
        each = evaluation("model", 1.0, 1500, {}).model_copy(
            update={"measurements": measured[first:] + measured[:first]}
        )
        for some in (each, each.model_copy(update={"measurements": [m for m in each.measurements if m.in_training]})):
            found = headline(some, "frechet")
            assert (found.value if found else None) == tables.headline(some, "frechet")
            row = tables.row_of(some, 0)
            assert all(Figure(m, 0.0, None, None, None).column in row for m in some.measurements)


def test_what_could_not_be_measured_is_listed_with_its_reason(project):
    project.evaluate()
    app = opened("metrics.py")
    assert "Not measured (1), and why" in [expander.label for expander in app.expander]
    missing = next(frame.value for frame in app.dataframe if "reason" in frame.value)
    assert missing.to_dict("records") == [
        {"metric": "recall_small_clip_5000_shapes32", "reason": "no network has it: dinov2"}
    ]


def test_of_several_repetitions_the_middle_one_stands_with_their_range(project):
    project.evaluate(repetitions=3)
    shown = card(opened("metrics.py"), "CLIP score")
    assert shown.value == "0.681"
    assert "range over repetitions: 0.02" in shown.help


def test_the_sweeps_point_at_psi_1_is_no_repetition(project):
    project.evaluate(count=1500)
    found = read_found(evaluate_folder(project))
    assert found is not None
    assert len(found.final) == 1
    assert found.final[0].facts, "the stage's record, not the sweep's"


def test_the_sweep_has_a_curve_over_psi_for_each_stage(project):
    project.evaluate()
    app = opened("metrics.py")
    spec = next(chart for chart in charts(app) if "order" in chart["layer"][0]["encoding"])
    encoding = spec["layer"][0]["encoding"]
    names = [encoding[channel]["field"] for channel in ("x", "y", "order", "color")]
    assert names == ["clip_score", "frechet_distance", "psi", "stage"]
    assert encoding["color"]["sort"] == TITLES
    assert any("1500 pictures are few for it" in caption.value for caption in app.caption)


def test_the_sweeps_points_are_those_of_the_table(project):
    from dashboard.quality import sweep_rows

    project.evaluate()
    rows = sweep_rows(evaluate_folder(project) / "psi_sweep.csv")
    assert [(row["stage"], row["psi"]) for row in rows] == [(title, psi) for title in TITLES for psi in PSIS]
    assert (rows[1]["frechet_distance"], rows[1]["clip_score"]) == pytest.approx((0.048, 0.68))


def test_the_stages_stand_in_one_table(project):
    project.evaluate()
    table = opened("metrics.py").dataframe[0].value
    assert table["stage"].tolist() == TITLES
    assert table["frechet_small_clip"].tolist() == pytest.approx([0.0512, 0.0412, 0.0312])
    assert table["clip_score_small_clip"].tolist() == pytest.approx([0.631, 0.651, 0.671])


def test_speed_is_told_by_stage_with_its_device(project):
    project.evaluate()
    app = opened("metrics.py")
    table = next(frame.value for frame in app.dataframe if "images/s" in frame.value)
    assert table[["stage", "images/s"]].values.tolist() == [[t, 100.0 * (i + 1)] for i, t in enumerate(TITLES)]
    assert table["latency p50, ms"].tolist() == pytest.approx([20.0] * len(STAGES))
    assert table["latency p95, ms"].tolist() == pytest.approx([30.0] * len(STAGES))
    assert any("a processor, 2 threads" in caption.value for caption in app.caption)


def test_real_pictures_have_no_oracle_and_that_is_fine(project):
    project.evaluate(oracle=False)
    app = opened("metrics.py")
    assert [metric.label for metric in app.metric] == list(MEASURED)
    assert [heading.value for heading in app.subheader] == [
        "Fréchet distance against CLIP score", "From stage to stage", "Speed of painting",
    ]  # fmt: skip


def test_outputs_by_an_older_version_show_what_they_have(project):
    project.evaluate()
    (evaluate_folder(project) / EVALUATIONS).unlink()
    app = opened("metrics.py")
    assert not app.metric
    assert any("`dvc repro evaluate`" in message.value for message in app.info)
    assert "Fréchet distance against CLIP score" in [heading.value for heading in app.subheader]


def test_a_protocol_that_asks_for_no_clip_score_still_shows_the_rest(project):
    project.evaluate()
    path = evaluate_folder(project) / EVALUATIONS
    lines = read_lines(path, Evaluation)
    kept = [
        each.model_copy(update={"measurements": [m for m in each.measurements if m.metric == "kernel"]})
        for each in lines
    ]
    write_lines(path, kept)
    app = opened("metrics.py")
    assert app.metric[0].label == "kernel distance"
    assert sweep(app)["x"]["title"] == "CLIP score"


def test_of_several_judges_the_protocols_first_is_in_the_headline(project):
    project.evaluate()
    path = evaluate_folder(project) / EVALUATIONS
    lines = read_lines(path, Evaluation)
    fids = [
        measurement("frechet", 7.5, 5000, name=f"fid5k_shapes32_{resize}", extractor=f"inception_{resize}")
        for resize in ("clean", "legacy_tensorflow")
    ]
    write_lines(path, [each.model_copy(update={"measurements": [*fids, *each.measurements]}) for each in lines])
    found = read_found(evaluate_folder(project))
    assert found is not None
    names = [figure.measurement.name for figure in first_of_each(figures(found))]
    assert names[:2] == ["fid5k_shapes32_clean", "fd_small_clip_5000_shapes32"]
    assert card(opened("metrics.py"), "FID").value == "7.5"


def test_a_judge_that_took_part_in_the_training_is_in_the_headline_only_where_there_is_no_other(project):
    project.evaluate(in_training=["kernel"])
    path = evaluate_folder(project) / EVALUATIONS
    lines = read_lines(path, Evaluation)
    player = measurement("clip_score", 0.99, 5000, name="clip_score_player", extractor="player", in_training=True)
    write_lines(path, [each.model_copy(update={"measurements": [player, *each.measurements]}) for each in lines])
    app = opened("metrics.py")
    assert card(app, "CLIP score").value == "0.671"
    assert app.metric[0].label == "CLIP score", "where it stood"
    assert card(app, "kernel distance").label == "kernel distance :orange-badge[seen in training]"


def test_oracle_accuracies_are_read_by_attribute_and_prompts():
    rows = oracle_rows({"oracle_shape": 0.6, "oracle_heldout_shape": 0.5, "oracle_shape_range": 0.1, "clip_score": 1})
    assert [(row["attribute"], row["prompts"], row["accuracy"]) for row in rows] == [
        ("shape", SEEN, 0.6),
        ("shape", HELDOUT, 0.5),
    ]


def test_what_became_of_pairs_of_figures_is_shared_out_over_the_outcomes(project):
    project.evaluate(pairs=True)
    app = opened("metrics.py")
    assert (card(app, "bound right, seen").value, card(app, "bound right, held out").value) == ("50.0%", "50.0%")
    assert [heading.value for heading in app.subheader][1:3] == [
        "Attributes the oracle reads back",
        "Which attribute landed on which figure",
    ]
    from dashboard.oracle import binding_rows

    metrics = json.loads((evaluate_folder(project) / "metrics.json").read_text())
    rows = binding_rows(metrics)
    for prompts in (SEEN, HELDOUT):
        assert sum(row["share"] for row in rows if row["prompts"] == prompts) == 1
    assert {row["outcome"] for row in rows} == {"correct", "swapped", "misplaced", "missing", "wrong"}
    assert {row["attribute"] for row in oracle_rows(metrics)} == {"shape", "colour", "background"}
    assert any("Of real pictures, 97.0%" in caption.value for caption in app.caption)


@pytest.mark.parametrize("reals", [3, ["x"], [{}], {}])
def test_statistics_of_another_shape_are_left_out(project, reals):
    project.evaluate()
    write_json(project.root / "artifacts" / "reference_statistics" / "statistics.json", {"reals": reals})
    found = read_found(evaluate_folder(project))
    assert found is not None
    assert found.reals is None
