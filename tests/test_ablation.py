"""benchmarks/ablation.py: its runs, with stages of a moment in place of ours, and its tables."""

import json
import os
import statistics
import time

import pytest
import torch
import yaml
from typer.testing import CliRunner

from benchmarks import ablation
from benchmarks.ablation_table import ONE, TWO, Ablation, difference, draw, page, spread, verdict
from flows.variants import Variant, read_rows
from stylegan_t.evaluation.fakes import device_name
from stylegan_t.profile import override, profile_values
from tests.flows import standin

STAND_IN = """\
import json, os, subprocess, sys, yaml
from pathlib import Path
stage, params = sys.argv[2], yaml.safe_load(open("params.yaml"))
network, seed = params["train_generator"]["network"], params["seed"]
here = Path.cwd().name
with open(os.environ["ABLATION_LOG"], "a") as log:
    log.write(f"{seed} {here} {stage} {' '.join(sys.argv[3:])} {os.environ['OMP_NUM_THREADS']}" + chr(10))
assert Path("data/prepared").is_dir() and Path("artifacts/fetch_encoders/players/clip").is_dir()
if stage == "train_generator" and here == os.environ.get("ABLATION_BREAKS"):
    sys.exit("no luck")
if stage == "train_generator" and here == os.environ.get("ABLATION_WAITS"):
    child = subprocess.Popen(["sleep", "600"])
    Path(os.environ["ABLATION_LOG"]).with_name("pid").write_text(f"{os.getpid()} {child.pid}")
    child.wait()
if stage not in ("reference_statistics", "evaluate"):
    assert Path("artifacts/reference_statistics/facts").read_text() == str(seed)
out = Path("artifacts") / stage
out.mkdir()
(out / "facts").write_text(str(seed))
if stage == "evaluate":
    hooks = json.loads(Path("artifacts/fetch_encoders/players/discriminator_vit/config.json").read_text())["hooks"]
    (out / "stages.csv").write_text(f"stage,psi,clip_score\\ntrain_generator,1,{10 * seed + len(hooks)}\\n")
    (out / "psi_sweep.csv").write_text("stage,psi,clip_score\\ntrain_generator,0.5,0\\n")
"""
STAGES = ["train_generator", "finetune_text_encoder", "train_super_resolution", "evaluate"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Two prepared workspaces, and our command replaced by a stand-in."""
    (tmp_path / "code" / "stylegan_t").mkdir(parents=True)
    (tmp_path / "code" / "stylegan_t" / "__init__.py").touch()
    (tmp_path / "code" / "stylegan_t" / "cli.py").write_text(STAND_IN)
    monkeypatch.setattr(ablation, "ROOT", tmp_path / "code")
    monkeypatch.setenv("ABLATION_LOG", str(tmp_path / "log"))
    for seed in (3, 4):
        workspace = tmp_path / f"ws{seed}"
        (workspace / "data" / "prepared").mkdir(parents=True)
        players = workspace / "artifacts" / "fetch_encoders" / "players"
        for name in ("clip", "discriminator_vit"):
            (players / name).mkdir(parents=True)
        (players / "discriminator_vit" / "config.json").write_text('{"kind": "clip_image_tower", "hooks": [0, 1]}')
        values = profile_values("tiny")
        override(values, f"seed={seed}")
        (workspace / "params.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def start(world, *arguments, prepared=("ws3", "ws4")):
    places = [part for name in prepared for part in ("--prepared", str(world / name))]
    return CliRunner().invoke(ablation.app, [*places, "--out", str(world / "out"), "--device", "cpu", *arguments])


def log(world):
    lines = [line.split() for line in (world / "log").read_text().splitlines()]
    (world / "log").unlink()
    return lines


def scores(world):
    rows = read_rows(world / "out" / "ablation.csv")
    return {(row["variant"], row["seed"]): row["clip_score"] for row in rows if row["table"] == "stages"}


def test_every_run_passes_all_stages_and_the_reals_are_measured_once_a_seed(world):
    result = start(world, "--only", "base,no_residual")
    assert result.exit_code == 0, result.output
    ran = log(world)
    for seed in ("3", "4"):
        assert [line[2] for line in ran if line[:2] == [seed, "reference_statistics"]] == ["reference_statistics"]
        for variant in ("base", "no_residual"):
            assert [line[2] for line in ran if line[:2] == [seed, variant]] == STAGES
    assert {tuple(line[3:]) for line in ran} == {("--device", "cpu", "1")}
    machine = device_name(torch.device("cpu")).partition(",")[0]
    assert {each["machine"] for each in read_rows(world / "out" / "ablation.csv")} == {machine}
    assert [line[0] for line in ran] == sorted(line[0] for line in ran), "all of the first seed first"


def test_a_run_has_its_own_settings_and_hooks_and_leaves_the_workspace_as_it_was(world):
    start(world, "--only", "base,fewer_heads,no_residual", "--set", "train_generator.total_kimg=90.0", prepared=["ws3"])
    values = {
        name: yaml.safe_load((world / "out" / "seed3" / name / "params.yaml").read_text())["train_generator"]
        for name in ("base", "no_residual")
    }
    assert [values[name]["network"]["residual"] for name in values] == [True, False]
    assert [values[name]["total_kimg"] for name in values] == [90.0, 90.0]
    assert scores(world) == {("base", "3"): "32", ("fewer_heads", "3"): "31", ("no_residual", "3"): "32"}
    config = world / "ws3" / "artifacts" / "fetch_encoders" / "players" / "discriminator_vit" / "config.json"
    assert json.loads(config.read_text())["hooks"] == [0, 1]


def test_a_failed_run_leaves_the_others_be_and_goes_on_later(world, monkeypatch):
    monkeypatch.setenv("ABLATION_BREAKS", "no_residual")
    result = start(world, "--only", "base,no_residual", "--jobs", "2", prepared=["ws3"])
    assert result.exit_code == 1
    assert "missing: no_residual, seed 3: train_generator exited with 1: no luck" in result.output
    assert scores(world) == {("base", "3"): "32"}
    log(world)
    monkeypatch.delenv("ABLATION_BREAKS")
    assert start(world, "--only", "base,no_residual", prepared=["ws3"]).exit_code == 0
    assert [line[1:3] for line in log(world)] == [["no_residual", stage] for stage in STAGES]
    assert scores(world).keys() == {("base", "3"), ("no_residual", "3")}


@pytest.mark.slow
def test_at_the_limit_all_is_stopped_and_what_was_finished_stays(world, monkeypatch):
    monkeypatch.setenv("ABLATION_WAITS", "no_residual")
    begun = time.monotonic()
    result = start(
        world, "--only", "base,no_residual,fewer_heads", "--jobs", "1", "--limit-seconds", "6", prepared=["ws3"]
    )
    assert result.exit_code == 0, result.output
    assert time.monotonic() - begun < 20
    assert scores(world) == {("base", "3"): "32"}
    for name in ("no_residual", "fewer_heads"):
        assert f"missing: {name}, seed 3: out of time" in result.output
    assert not any(standin.is_running(int(pid)) for pid in (world / "pid").read_text().split())


def test_encoders_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError("another file system")

    monkeypatch.setattr(ablation.os, "link", link)
    (tmp_path / "a").write_text("weights")
    ablation._link(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_text() == "weights"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "train_generator.residual=1"], "train_generator.residual: unknown key"),
        (["--only", "bear"], "variant bear is unknown"),
        (["--prepared", "ws4"], "seed 4 is that of another one; give each its own"),
        (["--prepared", "ws5"], "params.yaml is missing; run the stages up to filter there"),
    ],
    ids=["setting", "variant", "doubled seed", "no workspace"],
)
def test_what_is_asked_wrongly_is_told_before_anything_runs(world, monkeypatch, arguments, complaint):
    monkeypatch.chdir(world)
    result = start(world, *arguments)
    assert result.exit_code == 2
    assert complaint in result.output
    assert not (world / "log").exists()


def test_a_folder_with_runs_of_other_settings_is_refused(world):
    start(world, "--only", "base", prepared=["ws3"])
    result = start(world, "--only", "base", "--set", "train_generator.total_kimg=90.0", prepared=["ws3"])
    assert result.exit_code == 2
    assert "holds a run of other settings; use another --out" in result.output


# ---- the table -------------------------------------------------------------------------------------------------------


def row(variant, seed, stage, score, *, psi="1", table="stages", repetition="0", machine="here"):
    return {
        "machine": machine,
        "variant": variant, "seed": str(seed), "table": table, "stage": stage, "psi": psi, "repetition": repetition,
        "clip_score": str(score), "frechet_distance": str(1 - score), "mean_accuracy": "",
    }  # fmt: skip


BASE_SCORES, OTHER_SCORES, TUNED_SCORES = (0.5, 0.6, 0.7), (0.4, 0.59, 0.2), (0.6, 0.61, 0.9)
ROWS = [
    *(row("base", seed, ONE, score) for seed, score in enumerate(BASE_SCORES)),
    *(row("base", seed, TWO, score) for seed, score in enumerate(TUNED_SCORES)),
    *(row("less", seed, ONE, score) for seed, score in enumerate(OTHER_SCORES)),
    *(row("base", seed, ONE, 0.25, psi="0.5", table="psi_sweep") for seed in range(3)),
]
VARIANTS = [Variant("base", "All.", ()), Variant("less", "Something.", ("a=1",)), Variant("never", "Run.", ("a=2",))]


@pytest.mark.parametrize(
    ("differences", "better", "word"),
    [
        ([0.1, 0.2, 0.3], "lower", "holds"),
        ([0.1, 0.2, 0.3], "higher", "reversed"),
        ([-0.1, -0.2, -0.1], "higher", "holds"),
        ([-0.1, -0.2, -0.1], "lower", "reversed"),
        ([-0.1, 0.2, 0.3], "lower", "unclear"),
        ([0.0, 0.2, 0.1], "lower", "unclear"),
        ([0.0, -0.2, -0.1], "lower", "unclear"),
        ([0.0, 0.0, 0.0], "higher", "unclear"),
        ([0.1, 0.2], "lower", "too few seeds"),
    ],
)
def test_a_verdict_needs_all_seeds(differences, better, word):
    assert verdict({(seed, "here"): each for seed, each in enumerate(differences)}, better) == word


def test_differences_are_taken_seed_by_seed_where_both_ran_on_one_machine():
    of = {(0, "a"): 1.0, (2, "b"): 5.0, (3, "a"): 1.0, (4, "b"): 1.0}
    base = {(0, "a"): 0.5, (1, "a"): 9.0, (2, "a"): 7.0, (2, "b"): 6.0, (4, "a"): 0.0}
    assert difference(of, base) == {(0, "a"): 0.5, (2, "b"): -1.0}


def test_the_page_compares_runs_of_one_machine_and_says_what_ran_on_several():
    elsewhere = [row("base", 2, ONE, 0.1, machine="there"), row("less", 2, ONE, 0.3, machine="there")]
    rows = [each for each in ROWS if (each["variant"], each["seed"]) != ("less", "2")] + elsewhere
    text = page(Ablation(rows, VARIANTS), VARIANTS, "", "")
    assert "| less | −0.01 (" not in text and "−0.01 (−0.1 … +0.2) **unclear**" in text
    assert "| base | 0.4 (0.3 … 0.5) | 0.6 (0.5 … 0.7) | – |" in text, "a value a seed"
    assert "Run on several machines, to be compared on each: base 2 (here, there)." in text


def test_a_figure_is_the_median_over_repetitions_of_one_seed():
    rows = [row("base", 0, ONE, score, repetition=str(r)) for r, score in enumerate((0.1, 0.9, 0.3))]
    assert Ablation(rows, VARIANTS).of("base", ONE, "clip_score") == {(0, "here"): 0.3}


def test_the_page_gives_medians_ranges_paired_differences_and_verdicts():
    text = page(Ablation(ROWS, VARIANTS), VARIANTS, "A machine.", "x.png")
    assert "| base | 0.4 (0.3 … 0.5) | 0.6 (0.5 … 0.7) | – |" in text
    assert "| less | +0.1 (+0.01 … +0.5) **holds** | −0.1 (−0.5 … −0.01) **holds** | – |" in text
    assert "| CLIP score ↑ | 0.6 (0.5 … 0.7) | 0.61 (0.6 … 0.9) | +0.1 (+0.01 … +0.2) **holds** |" in text
    assert "| 0.5 | 0.75 (0.75 … 0.75) | 0.25 (0.25 … 0.25) | – |" in text
    assert "A machine." in text and "seeds 0, 1, 2," in text
    assert "Not run (variant, seed): never 0, never 1, never 2." in text
    assert "several machines" not in text


def test_the_median_of_paired_differences_is_not_the_difference_of_medians():
    base, other = ({(seed, ""): score for seed, score in enumerate(each)} for each in (BASE_SCORES, OTHER_SCORES))
    assert spread(difference(other, base), "+").startswith("−0.1 ")
    assert statistics.median(OTHER_SCORES) - statistics.median(BASE_SCORES) == pytest.approx(-0.2)


def test_a_difference_of_fewer_seeds_says_so():
    rows = [each for each in ROWS if (each["variant"], each["seed"]) != ("less", "2")]
    assert "**too few seeds**, 2 of 3 seeds" in page(Ablation(rows, VARIANTS), VARIANTS, "", "")


def test_a_table_without_the_base_is_refused():
    with pytest.raises(ValueError, match="no run of 'base' in the table"):
        Ablation([each for each in ROWS if each["variant"] != "base"], VARIANTS)


def test_the_same_table_draws_the_same_picture(tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, Ablation(ROWS, VARIANTS))
    draw(tmp_path / "c.png", Ablation(ROWS[:-4], VARIANTS))
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c


def test_the_page_says_where_it_was_measured(world):
    start(world, "--only", "base", prepared=["ws3"])
    result = CliRunner().invoke(
        ablation.app, ["--table", str(world / "out" / "ablation.csv"), "--docs", str(world / "docs")]
    )
    assert result.exit_code == 0, result.output
    text = (world / "docs" / "ablation.md").read_text()
    assert f"{os.uname().machine}" in text or "not run on a GPU" in text
    assert "1 runs at a time" in text and (world / "docs" / "images" / "ablation.png").exists()
