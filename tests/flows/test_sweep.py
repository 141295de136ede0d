"""Sweeps over DVC's experiments, on a pipeline of second-long commands in a clone of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from flows import dvc
from flows.grid import Point, Sweep, make_sweep, parse_grid, written
from tests.flows import standin

EVALUATE = """\
import json, os, sys, time, yaml
params = yaml.safe_load(open("params.yaml"))
train = params["train_generator"]
open(train["log"], "a").write(json.dumps([params["seed"], train["lr"], train["augment"]]) + chr(10))
if train["lr"] == 7:
    open(train["log"] + ".pid", "w").write(str(os.getpid()))
    time.sleep(600)
if train["lr"] < 0:
    sys.exit(2)
os.makedirs("artifacts/evaluate")
score = 100 * train["lr"] + params["seed"] + len(train["augment"])
metrics = {"clip_score": 1, "fid5k_shapes32": score, "untrained": {"clip_score": -score}, "protocol": {"name": "x"}}
json.dump(metrics, open("artifacts/evaluate/metrics.json", "w"))
"""
PARAMS = {"seed": 0, "train_generator": {"lr": 0.01, "augment": ["cutout"], "log": ""}}
GRID = {"train_generator.lr": [0.02, -1.0], "seed": [0, 1]}


# ---- what needs no process -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.006,0.012", [0.006, 0.012]),
        ("[],[cutout],[cutout,translation]", [[], ["cutout"], ["cutout", "translation"]]),
        ("[[0,1],2]", [[[0, 1], 2]]),
        ("true,null,name", [True, None, "name"]),
    ],
    ids=["numbers", "lists", "nested", "words"],
)
def test_commas_in_brackets_belong_to_a_value(text, values):
    assert parse_grid([f"key={text}"]) == {"key": values}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["seed"], r"--set seed: expected KEY=VALUE,VALUE and so on, a list as \[a,b\]"),
        (["seed="], "--set seed=: expected"),
        (["seed=[0,1"], r"--set seed=\[0,1: expected"),
        (["seed=0,,1"], "--set seed=0,,1: expected"),
        (["seed=0", "seed=1"], "--set seed comes twice; give all its values at once"),
    ],
    ids=["no value", "empty", "open bracket", "missing", "twice"],
)
def test_a_wrong_grid_is_told_in_words(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_grid(settings)


@pytest.mark.parametrize(
    ("name", "grid", "fixed", "complaint"),
    [
        ("lr", {"train_generator.rate": [1]}, [], r"train_generator.rate is unknown; train_generator has: lr, augment"),
        ("lr", {"seeds": [1]}, [], "setting seeds is unknown; params.yaml has: seed, train_generator"),
        ("lr", {"seed.x": [1]}, [], "setting seed.x is unknown; seed has: the value 0"),
        ("lr", {"seed": [1]}, ["lr=1"], "setting lr is unknown"),
        ("lr", {"seed": [1]}, ["seed=2"], "seed: fixed and swept over; it can be one of the two"),
        ("lr", {"seed": [1]}, ["seed"], "--fixed seed: expected KEY=VALUE"),
        ("lr", {"seed": []}, [], "nothing to sweep over"),
        ("Lr/2", {"seed": [1]}, [], "sweep 'Lr/2': use lower-case letters, digits and single dashes"),
    ],
    ids=["unknown", "unknown at the top", "below a value", "unknown fixed", "both", "no value", "empty", "name"],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(name, grid, fixed, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_sweep(name, grid, fixed, PARAMS)


def test_every_combination_is_a_point_once():
    points = make_sweep("lr", GRID | {"seed": [0, 1, 0]}, [], PARAMS).points
    assert [tuple(point.settings.values()) for point in points] == [(0.02, 0), (0.02, 1), (-1.0, 0), (-1.0, 1)]
    assert len({point.experiment for point in points}) == 4
    assert all(re.fullmatch(r"sweep-lr-[0-9a-f]{8}", point.experiment) for point in points)


def test_a_point_keeps_its_name_when_the_grid_grows_and_has_another_when_what_it_does_not_set_changes():
    def names(grid, fixed=(), params=PARAMS):
        return {point.experiment for point in make_sweep("lr", grid, fixed, params).points}

    assert names(GRID) < names(GRID | {"seed": [0, 1, 2]})
    assert names(GRID).isdisjoint(names(GRID, ["train_generator.augment=[]"]))
    assert names(GRID).isdisjoint(names(GRID, params=PARAMS | {"train_generator": {"lr": 0, "augment": []}}))


def test_text_is_the_same_value_wherever_it_comes_from():
    typed, told = ({"train_generator.lr": [value]} for value in (1e-4, "1e-4"))
    assert make_sweep("lr", typed, [], PARAMS) == make_sweep("lr", told, [], PARAMS)


VALUES = [0.006, 1e-06, True, None, [], ["a", "b"], "plain", "two words", "a,b", 'x"y']


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_setting_reaches_the_file_as_it_was(value, tmp_path):
    from dvc.utils.hydra import apply_overrides
    from dvc.utils.serialize import load_yaml

    path = tmp_path / "params.yaml"
    path.write_text("key: 0\n")
    apply_overrides(path, list(written({"key": value})))
    assert load_yaml(path) == {"key": value}


@pytest.mark.parametrize(
    ("metric", "order"),
    [(None, [2, 0, 1]), ("clip_score", [0, 2, 1]), ("untrained.fid5k", [0, 2, 1]), ("kid5k", [2, 0, 1])],
    ids=["by the gate's first", "higher", "in a group", "lower"],
)
def test_the_best_comes_first_and_what_has_no_figure_last(metric, order):
    figures = [
        {"clip_score": 0.9, "fid5k": 9, "untrained.fid5k": 1, "kid5k": 2}, {},
        {"clip_score": 0.5, "fid5k": 3, "untrained.fid5k": 2, "kid5k": 1},
    ]  # fmt: skip
    points = [Point(str(number), {}, metrics=each) for number, each in enumerate(figures)]
    assert [int(point.experiment) for point in Sweep("lr", {}, points, metric).ranked()] == order


def test_a_sweep_without_figures_has_no_headline_and_keeps_its_order():
    points = [Point("b", {}), Point("a", {})]
    made = Sweep("lr", {}, points)
    assert made.headline is None
    assert made.ranked() == points


def test_the_record_keeps_the_times_of_finished_points(tmp_path):
    made = make_sweep("lr", GRID, [], PARAMS)
    made.points[0].state, made.points[0].seconds = "done", 12.5
    made.points[1].state, made.points[1].seconds = "failed", 3.0
    assert made.save(tmp_path) == tmp_path / ".state" / "sweeps" / "lr.json"
    again = make_sweep("lr", GRID, [], PARAMS)
    again.recall(tmp_path)
    assert [point.seconds for point in again.points] == [12.5, 0, 0, 0]
    assert list((tmp_path / ".state" / "sweeps").iterdir()) == [tmp_path / ".state" / "sweeps" / "lr.json"]


def test_a_folder_without_settings_is_told_in_words(tmp_path):
    code, output = standin.run(tmp_path, "--name", "lr", "--set", "seed=0", module="flows.sweep")
    assert (code, output.strip()) == (2, f"{tmp_path} has no params.yaml; run this in the repository's root")


# ---- experiments -----------------------------------------------------------------------------------------------------


def clone(folder: Path) -> Path:
    """A clean clone of a repository with the stand-in pipeline; the log that its runs write lies beside it."""
    params = PARAMS | {"train_generator": PARAMS["train_generator"] | {"log": str(folder / "log")}}
    stage = {"cmd": f"{sys.executable} evaluate.py", "deps": ["evaluate.py"], "params": ["seed", "train_generator"]}
    source = standin.make(folder / "source", params, evaluate=stage | {"outs": ["artifacts/evaluate"]})
    (source / "evaluate.py").write_text(EVALUATE)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "add", "--all"], cwd=source, check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "pipeline"], cwd=source, check=True)
    subprocess.run(["git", "clone", "--quiet", "source", "clone"], cwd=folder, check=True)
    shutil.rmtree(source)
    return folder / "clone"


def swept(folder: Path, *arguments: str) -> tuple[int, str]:
    return standin.run(folder, "--name", "lr", *arguments, module="flows.sweep", PREFECT_LOGGING_LEVEL="INFO")


def record(folder: Path) -> dict:
    return json.loads((folder / ".state" / "sweeps" / "lr.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two values of two settings, of which one fails; the same with one value more; what would run then."""
    folder = clone(tmp_path_factory.mktemp("sweep"))
    log = folder.parent / "log"
    arguments = ("--set", "train_generator.lr=0.02,-1.0,0.01", "--fixed", "train_generator.augment=[]")
    found = {"folder": folder, "first": swept(folder, *arguments, "--set", "seed=1")}
    found |= {"record": record(folder), "ran": log.read_text()}
    log.unlink()
    found["again"] = swept(folder, *arguments, "--set", "seed=1,0")
    found |= {"later": record(folder), "ran again": log.read_text()}
    found["plan"] = swept(folder, *arguments, "--set", "seed=1,3", "--only-plan")
    return found


@pytest.mark.slow
def test_each_point_runs_once_though_one_fails(done):
    assert done["ran"].splitlines() == ["[1, 0.02, []]", "[1, -1.0, []]", "[1, 0.01, []]"]
    code, output = done["first"]
    assert code == 1
    assert re.search(r"1 of 3 failed:\nsweep-lr-\w{8}: evaluate exited with 2\s*$", output)
    assert "Traceback" not in output


@pytest.mark.slow
def test_the_record_says_what_became_of_each_point_and_what_it_measured(done):
    told = done["record"]
    assert (told["name"], told["metric"], told["better"]) == ("lr", "fid5k_shapes32", "lower")
    assert told["fixed"] == {"train_generator.augment": []}
    points = {point["settings"]["train_generator.lr"]: point for point in told["points"]}
    assert [(lr, point["state"]) for lr, point in points.items()] == [(0.02, "done"), (-1.0, "failed"), (0.01, "done")]
    assert points[-1.0]["reason"].endswith("evaluate exited with 2")
    assert points[0.02]["metrics"] == {"clip_score": 1, "fid5k_shapes32": 3.0, "untrained.clip_score": -3.0}
    assert all(point["seconds"] > 0 for point in points.values())


@pytest.mark.slow
def test_the_table_has_the_best_first(done):
    rows = re.findall(r"^│ (\S+) +│ 1 +│ (\S*) +│ (\w+)", done["first"][1], re.MULTILINE)
    assert rows == [("0.01", "2.0", "done"), ("0.02", "3.0", "done"), ("-1.0", "", "failed")]


@pytest.mark.slow
def test_finished_points_are_not_run_again_and_failed_ones_are(done):
    assert done["ran again"].splitlines() == [
        "[0, 0.02, []]", "[1, -1.0, []]", "[0, -1.0, []]", "[0, 0.01, []]",
    ]  # fmt: skip
    before, after = ({p["experiment"]: p for p in done[which]["points"]} for which in ("record", "later"))
    assert before.keys() < after.keys()
    finished = [name for name, point in before.items() if point["state"] == "done"]
    assert [after[name] for name in finished] == [before[name] for name in finished]


@pytest.mark.slow
def test_the_plan_tells_what_exists_and_runs_nothing(done):
    code, output = done["plan"]
    assert code == 0
    assert [line.split("  ")[1:] for line in output.splitlines()] == [
        [state, f"train_generator.augment=[] train_generator.lr={lr} seed={seed}"]
        for lr, seed, state in [
            (0.02, 1, "exists"), (0.02, 3, "would run"), (-1.0, 1, "would run"), (-1.0, 3, "would run"),
            (0.01, 1, "exists"), (0.01, 3, "would run"),
        ]
    ]  # fmt: skip


@pytest.mark.slow
def test_dvc_itself_shows_the_experiments_with_their_settings(done):
    shown = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "show", "--json"],
        cwd=done["folder"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.dumps(json.loads(shown.stdout))
    finished = [point["experiment"] for point in done["later"]["points"] if point["state"] == "done"]
    assert len(finished) == 4
    assert all(f'"name": "{name}"' in found for name in finished)


@pytest.mark.slow
def test_a_removed_experiment_is_gone_and_no_other(done):
    folder = done["folder"]
    before = dvc.experiments(folder).keys()
    name = min(before)
    dvc.remove_experiment(folder, name)
    assert dvc.experiments(folder).keys() == before - {name}
    with pytest.raises(ValueError, match=name):
        dvc.remove_experiment(folder, name)


@pytest.mark.slow
def test_stopped_in_the_middle_it_says_so_and_keeps_what_is_finished(tmp_path):
    folder = clone(tmp_path)
    process = standin.start(folder, "--name", "lr", "--set", "train_generator.lr=1,7,2", module="flows.sweep")
    pid = int(standin.wait_for(tmp_path / "log.pid"))
    assert [point["state"] for point in record(folder)["points"]] == ["done", "running", "waiting"]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert not standin.is_running(pid)
    assert [point["state"] for point in record(folder)["points"]] == ["done", "stopped", "waiting"]
    assert len(dvc.experiments(folder)) == 1


@pytest.mark.slow
def test_an_experiment_by_hand_works_from_a_clean_clone_without_a_network(tmp_path):
    folder = clone(tmp_path)
    nowhere = {**os.environ, **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")}
    command = [sys.executable, "-m", "dvc", "exp"]
    there = partial(subprocess.run, cwd=folder, env=nowhere, capture_output=True, text=True)
    done = there([*command, "run", "--temp", "--name", "mine", "-S", "seed=1"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text() == '[1, 0.01, ["cutout"]]\n'
    shown = there([*command, "show", "--json"])
    rows = [e for base in json.loads(shown.stdout) for e in base["experiments"] or []]
    assert [row["name"] for row in rows] == ["mine"]
    assert '"seed": 1' in json.dumps(rows)
    assert not (folder / "artifacts").exists()
