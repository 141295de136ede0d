"""The command line: useful help, one-line errors, exit codes."""

import subprocess
import sys

import pytest

from stylegan_t.config import STAGES
from tests.imports import ROOT


def command(folder, *arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stylegan_t.cli", *arguments],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", [(), ("run",), ("profile",), ("estimate",), ("generate",)])
def test_help_is_given_and_costs_nothing(tmp_path, name):
    done = command(tmp_path, *name, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_help_of_run_names_all_stages(tmp_path):
    help_text = " ".join(command(tmp_path, "run", "--help").stdout.replace("│", " ").split())
    assert ", ".join(STAGES) in help_text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "trane"], 2, "stage 'trane' is unknown; one of: download, "),
        (["run", "download"], 2, "params.yaml: no such file; `stylegan-t profile tiny` writes one"),
        (["profile", "huge"], 2, "profile 'huge' is unknown; one of: micro, tiny"),
        (
            ["profile", "tiny", "--set", "train_generator.batch_size=9"],
            2,
            "train_generator.batch_size = 9: a batch splits",
        ),
        (["estimate", "--profile", "huge"], 2, "profile 'huge' is unknown; one of: micro, tiny"),
        (["estimate", "--stage", "score"], 2, "stage 'score' trains no GAN; one of: train_generator, "),
        (["estimate", "--batch-size", "32", "--devices", "3"], 2, "batch_size = 32 on 3 devices: "),
        (["estimate", "--resolution", "32", "--set", "seed"], 2, "expected KEY=VALUE"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_nothing_is_written(tmp_path, arguments, code, message):
    done = command(tmp_path, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_profile_writes_params_and_tells_what_it_changed(tmp_path):
    done = command(tmp_path, "profile", "micro", "--set", "seed=3")
    assert done.returncode == 0
    assert "profile micro" in done.stdout
    assert "seed=3" in done.stdout
    assert "seed: 3\n" in (tmp_path / "params.yaml").read_text()


def test_missing_data_is_one_line_and_exit_code_3(tmp_path):
    command(tmp_path, "profile", "micro")
    done = command(tmp_path, "run", "filter")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "data/raw" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "--devices", "2"], "--devices: score trains no GAN; leave the option out"),
        (["evaluate", "--resume", "must"], "--resume: must is for training; evaluate takes auto or never"),
        (["score", "--resume", "must"], "--resume: must is for training; score takes auto or never"),
        (["score", "--parts", "1/2", "--resume", "never"], "--resume: with --parts, others may be at work"),
        (["evaluate", "--parts", "1/2"], "--parts: only download, score, filter are made in parts"),
        (["score", "--parts", "3-1"], "--parts 3-1: use a number from 0 on, a range (0-99) or a share (1/4 to 4/4)"),
        (["train_generator", "--devices", "3"], "batch_size = 16 on 3 devices: each takes as many images"),
    ],
)
def test_options_that_cannot_be_are_one_line_before_anything_starts(tmp_path, arguments, message):
    command(tmp_path, "profile", "micro")
    done = command(tmp_path, "run", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_the_environment_speaks_to_the_training_stages_only(tmp_path):
    command(tmp_path, "profile", "micro")
    done = subprocess.run(
        [sys.executable, "-m", "stylegan_t.cli", "run", "filter"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "STYLEGAN_T_DEVICES": "2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3  # no data yet: it was not the devices that it minded


def test_the_help_of_run_teaches_the_exit_codes(tmp_path):
    help_text = " ".join(command(tmp_path, "run", "--help").stdout.replace("│", " ").split())
    for said in ("exits with 75", "2 wrong settings", "3 wrong or damaged data", "second Ctrl-C stops at once"):
        assert said in help_text


def test_a_public_data_set_says_what_it_is_and_what_to_do_first(tmp_path):
    done = command(tmp_path, "profile", "lite", "--dataset", "cc3m")
    assert done.returncode == 0, done.stderr
    assert "Conceptual Captions 3M" in done.stdout and "3,318,333 pairs" in done.stdout
    assert "licence: The list may be used for any purpose" in done.stdout
    assert "before `stylegan-t run download`: Press Download on the page above" in done.stdout
    assert "Train_GCC-training.tsv" in (tmp_path / "params.yaml").read_text()
