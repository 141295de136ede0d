"""The experiments page, on the records that sweeps and judged runs really write."""

import json

import pytest

from dashboard.sweeps import list_sweeps, list_verdicts, short_names
from flows.grid import make_sweep
from flows.reports.gate import Rule
from flows.reports.history import Entry, append
from tests.dashboard.pages import charts, opened, options, pick

PARAMS = {"seed": 0, "train_generator": {"generator_lr": 0.01, "augment": ["cutout"]}}
GRID = {"train_generator.generator_lr": [0.006, 0.012], "train_generator.augment": [[], ["cutout"]], "seed": [0, 1]}


def sweep(root, name="lr", *, grid=GRID, finished=6, failed=True, **facts):
    """A sweep of which some points are finished, one failed, one runs and the others wait."""
    made = make_sweep(name, grid, ["train_generator.augment=[]"] if "seed" not in grid else [], PARAMS, **facts)
    for number, point in enumerate(made.points[:finished]):
        point.state, point.seconds = "done", 90.0
        point.metrics = {"untrained.fid5k": 9.0, "fid5k": 8.0 - number, "fid5k_range": 0.1, "clip_score": 0.1 * number}
    if failed and finished < len(made.points):
        made.points[finished].state, made.points[finished].reason = "failed", "train_generator exited with 3"
    if finished + 1 < len(made.points):
        made.points[finished + 1].state = "running"
    made.save(root)
    return made


def judged(root, *values, name="fid5k"):
    for day, value in enumerate(values, start=1):
        entry = Entry(
            when=f"2026-11-{day:02}T03:00:00+00:00", run=f"nightly-{day}", commit="0123456789abcdef", settings={},
            metrics={"clip_score": 0.5, name: value, "protocol.name": "shapes"},
            rules=(Rule(metric="fid*", better="lower"),), accepted=value < 5, lines=(f"{name}: {value}",),
        )  # fmt: skip
        append(root, entry)


def test_without_any_the_page_says_what_to_run(project):
    app = opened("experiments.py")
    assert any("python -m flows.sweep --name lr" in text.value for text in app.markdown)
    assert not app.dataframe


def test_the_points_stand_with_their_settings_and_figures_the_best_first(project):
    sweep(project.root)
    table = opened("experiments.py").dataframe[0].value
    assert list(table) == ["generator_lr", "augment", "seed", "fid5k", "state", "minutes", "experiment", "reason"]
    assert table["fid5k"].tolist()[:6] == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert table["state"].tolist() == ["done"] * 6 + ["failed", "running"]
    assert table["reason"].tolist()[6] == "train_generator exited with 3"
    assert table["generator_lr"].tolist()[:2] == [0.012, 0.012]
    assert table["minutes"].tolist()[0] == 1.5


def test_where_higher_is_better_the_highest_comes_first(project):
    sweep(project.root, metric="clip_score")
    table = opened("experiments.py").dataframe[0].value
    assert table["clip_score"].tolist()[:6] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


def test_how_far_it_is_is_counted(project):
    sweep(project.root, finished=5)
    body = " ".join(each.value for each in opened("experiments.py").markdown)
    assert all(words in body for words in ("5 done", "1 failed", "1 running", "1 waiting"))


def test_another_metric_is_shown_in_the_order_of_the_one_that_ranks(project):
    sweep(project.root)
    app = opened("experiments.py")
    assert options(app, "selectbox", "Metric") == ["fid5k", "clip_score", "untrained.fid5k"]
    app = pick(app, "selectbox", "Metric", "clip_score")
    table = app.dataframe[0].value
    assert "fid5k" not in table
    assert table["clip_score"].tolist()[:6] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


def test_the_chart_has_a_dot_for_each_measured_point_and_a_line_for_each_combination_of_the_others(project):
    sweep(project.root)
    app = opened("experiments.py")
    line, dots = charts(app)[0]["layer"]
    assert dots["encoding"]["x"]["title"] == "generator_lr" and dots["encoding"]["y"]["title"] == "fid5k"
    assert line["encoding"]["y"]["aggregate"] == "mean"
    assert line["encoding"]["color"]["sort"] == ["augment []", "augment [cutout]"]
    app = pick(app, "selectbox", "Setting", "train_generator.augment")
    line, dots = charts(app)[0]["layer"]
    assert dots["encoding"]["x"]["type"] == "nominal"
    assert line["encoding"]["color"]["sort"] == ["generator_lr 0.006", "generator_lr 0.012"]


@pytest.mark.parametrize(("values", "scale"), [([0.001, 0.1], "log"), ([1, 2], "linear"), ([0, 100], "linear")])
def test_settings_far_apart_are_drawn_on_a_logarithmic_axis(project, values, scale):
    sweep(project.root, grid={"train_generator.generator_lr": values}, finished=2)
    assert charts(opened("experiments.py"))[0]["layer"][0]["encoding"]["x"]["scale"]["type"] == scale


def test_the_sweep_that_wrote_last_comes_first_and_the_address_names_another(project):
    for name, when in (("new", "2026-11-22"), ("old", "2026-11-20")):
        sweep(project.root, name, finished=2, grid={"train_generator.generator_lr": [1, 2]})
        path = project.root / ".state" / "sweeps" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"written": f"{when}T00:00:00+00:00"}))
    app = opened("experiments.py")
    assert options(app, "selectbox", "Sweep") == ["new", "old"]
    assert app.dataframe[0].value["experiment"].str.startswith("sweep-new-").all()
    app = opened("experiments.py", sweep="old")
    assert app.dataframe[0].value["experiment"].str.startswith("sweep-old-").all()
    assert any("`train_generator.augment=[]`" in each.value for each in app.markdown)


def test_a_sweep_that_has_just_begun_and_a_torn_record_are_no_error(project):
    sweep(project.root, finished=0, failed=False)
    sweep(project.root, "torn")
    project.tear(project.root / ".state" / "sweeps" / "torn.json")
    app = opened("experiments.py")
    assert options(app, "selectbox", "Sweep") == ["lr"]
    assert not charts(app)
    assert set(app.dataframe[0].value["state"]) == {"waiting", "running"}


def test_the_verdicts_stand_newest_first_with_the_metric_that_they_were_judged_by(project):
    judged(project.root, 3.0, 6.0, 2.5)
    app = opened("experiments.py")
    assert options(app, "selectbox", "Metric of the runs") == ["fid5k", "clip_score"]
    table = app.dataframe[0].value
    assert table["run"].tolist() == ["nightly-3", "nightly-2", "nightly-1"]
    assert table["fid5k"].tolist() == [2.5, 6.0, 3.0]
    assert table["verdict"].tolist() == ["accepted", "rejected", "accepted"]
    assert table["why"].tolist()[1] == "fid5k: 6.0"
    assert charts(app)[0]["layer"][1]["encoding"]["color"]["field"] == "verdict"


def test_a_run_by_another_protocol_is_in_the_table_and_has_no_dot(project):
    judged(project.root, 3.0, name="fid5k")
    judged(project.root, 2.0, name="fid30k")
    app = opened("experiments.py")
    assert options(app, "selectbox", "Metric of the runs") == ["fid30k", "clip_score", "fid5k"]
    app = pick(app, "selectbox", "Metric of the runs", "fid5k")
    assert app.dataframe[0].value["fid5k"].isna().tolist() == [True, False]


def test_torn_and_foreign_lines_are_left_out(project):
    judged(project.root, 3.0)
    with (project.root / ".state" / "history.jsonl").open("a") as file:
        file.write('[]\n{"when": "2026-')
    assert len(list_verdicts(project.root)) == 1
    assert list_sweeps(project.root) == []


def test_a_setting_goes_by_its_last_part_where_that_is_its_own():
    assert short_names(["a.lr", "b.lr", "seed"]) == {"a.lr": "a.lr", "b.lr": "b.lr", "seed": "seed"}
    assert short_names(["a.lr", "a.batch"]) == {"a.lr": "lr", "a.batch": "batch"}
