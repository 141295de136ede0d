"""The ablation over DVC's experiments, on a pipeline of second-long commands in a clone of its own."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.ablation import make_trials
from flows.dvc import differing, experiments
from flows.variants import BASE, Variant, parse_seeds, read_rows, read_variants, rows_of, write_rows
from stylegan_t.config import parse_config
from stylegan_t.profile import override, profile_values
from tests.flows import standin

EVALUATE = """\
import json, os, sys, time, yaml
params = yaml.safe_load(open("params.yaml"))
train = params["train_generator"]
open(train["log"], "a").write(json.dumps([params["seed"], train["augment"], train["breaks"]]) + chr(10))
if train["waits"]:
    open(train["log"] + ".pid", "w").write(str(os.getpid()))
    time.sleep(600)
if train["breaks"]:
    sys.exit(3)
os.makedirs("artifacts/evaluate")
score = 10 * params["seed"] + len(train["augment"])
open("artifacts/evaluate/stages.csv", "w").write(f"stage,psi,clip_score\\ntrain_generator,1,{score}\\n")
open("artifacts/evaluate/psi_sweep.csv", "w").write(f"stage,psi,extra\\ntrain_generator,0.5,{score + 5}\\n")
"""
VARIANTS = {
    "variants": [
        {"name": "base", "claim": "everything.", "settings": []},
        {"name": "broken", "claim": "nothing.", "settings": ["train_generator.breaks=true"]},
        {"name": "bare", "claim": "an empty list.", "settings": ["train_generator.augment=[]"]},
        {"name": "endless", "claim": "never done.", "settings": ["train_generator.waits=true"]},
    ]
}


# ---- what needs no process -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", read_variants(), ids=lambda variant: variant.name)
def test_each_variant_is_allowed_in_the_default_profile_and_all_but_the_base_change_it(variant):
    values = profile_values("tiny")
    for setting in variant.settings:
        override(values, setting)
    assert (parse_config(values, variant.name) == parse_config(profile_values("tiny"), "tiny")) == (
        variant.name == BASE
    )
    assert variant.claim.endswith(".")


def test_no_two_variants_change_the_same(tmp_path):
    settings = [variant.settings for variant in read_variants()]
    assert len(set(settings)) == len(settings)


def test_only_the_named_variants_are_taken_in_the_order_of_the_file():
    assert [variant.name for variant in read_variants(only=["no_guidance", "base"])] == ["base", "no_guidance"]


@pytest.mark.parametrize(
    ("document", "only", "complaint"),
    [
        (VARIANTS, ["bear"], r"variant bear is unknown; .* has: base, broken, bare, endless"),
        ({"variants": [VARIANTS["variants"][0]] * 2}, [], "base more than once"),
        ({"variants": [{"name": "base", "claim": "x."}]}, [], "'settings'.*each with name, claim and settings"),
        ({"variants": [{"name": "a", "claim": "x.", "settings": ["residual"]}]}, [], "a: 'residual' is no KEY=VALUE"),
        ([], [], "each with name, claim and settings"),
    ],
    ids=["unknown name", "doubled", "no settings", "no value", "no variants"],
)  # fmt: skip
def test_a_wrong_list_of_variants_is_told_in_words(tmp_path, document, only, complaint):
    (tmp_path / "v.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match=complaint):
        read_variants(tmp_path / "v.yaml", only)


def test_seeds_are_numbers_each_once():
    assert parse_seeds("2,0,2") == [2, 0]
    with pytest.raises(ValueError, match=r"--seeds 1-3: expected whole numbers"):
        parse_seeds("1-3")


def test_all_variants_of_the_first_seed_come_first_and_their_own_settings_last():
    trials = make_trials([Variant("a", "", ("k=2",)), Variant("b", "", ())], [5, 6], ["k=1"])
    assert [trial.name for trial in trials] == ["ablation-a-5", "ablation-b-5", "ablation-a-6", "ablation-b-6"]
    assert trials[0].settings == ("seed=5", "k=1", "k=2")


def test_a_table_read_again_is_as_it_was_with_gaps_where_a_row_lacks_a_column(tmp_path):
    files = {"stages.csv": "stage,psi\none,1\n", "psi_sweep.csv": "stage,fid\none,3\ntwo,4\n"}
    rows = rows_of("base", 7, files.__getitem__)
    write_rows(tmp_path / "t.csv", rows)
    read = read_rows(tmp_path / "t.csv")
    head = {"variant": "base", "seed": "7"}
    assert read == [
        head | {"table": "stages", "stage": "one", "psi": "1", "fid": ""},
        head | {"table": "psi_sweep", "stage": "one", "psi": "", "fid": "3"},
        head | {"table": "psi_sweep", "stage": "two", "psi": "", "fid": "4"},
    ]


# ---- experiments -----------------------------------------------------------------------------------------------------


def clone(folder: Path) -> Path:
    """A clean clone of a repository with the stand-in pipeline, and the log that its runs write."""
    train = {"augment": ["cutout", "translation"], "breaks": False, "waits": False, "log": str(folder / "log")}
    stage = {"cmd": f"{sys.executable} evaluate.py", "deps": ["evaluate.py"], "params": ["seed", "train_generator"]}
    params = {"seed": 0, "train_generator": train}
    source = standin.make(folder / "source", params, evaluate=stage | {"outs": ["artifacts/evaluate"]})
    (source / "evaluate.py").write_text(EVALUATE)
    (source / "v.yaml").write_text(yaml.safe_dump(VARIANTS))
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "add", "--all"], cwd=source, check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "pipeline"], cwd=source, check=True)
    subprocess.run(["git", "clone", "--quiet", "source", "clone"], cwd=folder, check=True)
    shutil.rmtree(source)
    return folder / "clone"


def ablate(folder: Path, *arguments: str) -> tuple[int, str]:
    return standin.run(folder, "--file", "v.yaml", "--table", "t.csv", *arguments, module="flows.ablation")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two seeds of three variants, one of which fails; then the same again; then with another setting."""
    folder = clone(tmp_path_factory.mktemp("ablation"))
    log = folder.parent / "log"
    arguments = ("--seeds", "0,1", "--only", "base,broken,bare")
    first = ablate(folder, *arguments)
    ran = log.read_text()
    log.unlink()
    table = read_rows(folder / "t.csv")
    again = ablate(folder, *arguments)
    other = ablate(folder, "--seeds", "0", "--only", "base", "--set", "train_generator.augment=[flip]")
    return {"folder": folder, "first": first, "ran": ran, "table": table, "again": again, "other": other} | {
        "ran again": log.read_text()
    }


@pytest.mark.slow
def test_each_variant_runs_under_each_seed_though_one_fails(done):
    assert done["ran"].splitlines() == [
        '[0, ["cutout", "translation"], false]', '[0, ["cutout", "translation"], true]', "[0, [], false]",
        '[1, ["cutout", "translation"], false]', '[1, ["cutout", "translation"], true]', "[1, [], false]",
    ]  # fmt: skip


@pytest.mark.slow
def test_all_failures_are_told_at_the_end_and_fail_the_process(done):
    code, output = done["first"]
    assert code == 1
    assert output.strip().endswith(
        "2 of 6 failed:\nablation-broken-0: evaluate exited with 3\nablation-broken-1: evaluate exited with 3"
    )
    assert "Traceback" not in output
    assert re.search(r"2/6 ablation-broken-0: failed", output) and re.search(
        r"6/6 ablation-bare-1: done in \d+ s", output
    )


@pytest.mark.slow
def test_the_table_holds_what_the_finished_experiments_measured(done):
    columns = ("variant", "seed", "table", "psi", "clip_score", "extra")
    assert {tuple(row[column] for column in columns) for row in done["table"]} == {
        ("base", "0", "stages", "1", "2", ""), ("base", "0", "psi_sweep", "0.5", "", "7"),
        ("bare", "0", "stages", "1", "0", ""), ("bare", "0", "psi_sweep", "0.5", "", "5"),
        ("base", "1", "stages", "1", "12", ""), ("base", "1", "psi_sweep", "0.5", "", "17"),
        ("bare", "1", "stages", "1", "10", ""), ("bare", "1", "psi_sweep", "0.5", "", "15"),
    }  # fmt: skip


@pytest.mark.slow
def test_a_finished_experiment_is_not_run_again_and_a_failed_one_is(done):
    assert done["ran again"].splitlines() == [
        '[0, ["cutout", "translation"], true]', '[1, ["cutout", "translation"], true]'
    ]  # fmt: skip
    assert "ablation-base-0: exists" in done["again"][1]


@pytest.mark.slow
def test_an_experiment_of_other_settings_does_not_pass_for_the_one_asked_for(done):
    code, output = done["other"]
    assert code == 2
    assert output.strip() == (
        "experiment ablation-base-0 exists, without train_generator.augment=[flip]; "
        "`dvc exp remove ablation-base-0` makes room"
    )


@pytest.mark.slow
def test_settings_are_compared_by_value(done):
    bare = experiments(done["folder"])["ablation-bare-1"]
    settings = ["seed=1", "train_generator.augment=[]", "seed=0", "train_generator.absent=1"]
    assert differing(done["folder"], bare, settings) == settings[2:]


@pytest.mark.slow
def test_the_workspace_stays_clean(done):
    status = subprocess.run(
        ["git", "status", "--short"], cwd=done["folder"], capture_output=True, text=True, check=True
    )
    assert set(status.stdout.split()) <= {"??", "t.csv", ".dvc/.gitignore"}


@pytest.mark.slow
def test_ctrl_c_ends_the_running_experiment_and_leaves_the_finished_ones(tmp_path):
    folder = clone(tmp_path)
    arguments = ("--file", "v.yaml", "--table", "t.csv", "--seeds", "0", "--only", "base,endless")
    process = standin.start(folder, *arguments, module="flows.ablation")
    pid = int(standin.wait_for(tmp_path / "log.pid"))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert not standin.is_running(pid)
    assert experiments(folder).keys() == {"ablation-base-0"}


def test_a_folder_without_a_pipeline_is_told_in_words(tmp_path):
    with pytest.raises(ValueError, match="has no dvc.yaml; run this in the repository's root"):
        experiments(tmp_path)
