"""Every stage for real, through DVC and Prefect, at profile micro; then again by DVC alone, killed on the way."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings
from safetensors.torch import load_file

from flows.server import prefect_server
from stylegan_t.config import STAGES, Config, load_config
from stylegan_t.data.shards import Shards
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.records import LOG, RUN, Evaluation, LogRecord, RunRecord, read_lines, read_record
from tests.flows import cluster, services, standin
from tests.imports import ROOT

pytestmark = pytest.mark.slow

TREE = ["stylegan_t", "flows", "dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config"]
TRAINING = ("train_generator", "finetune_text_encoder", "train_super_resolution")
VOLATILE = {"download_speed.json", "evaluate_speed.json", ".gitignore"}


def plant(folder: Path) -> Path:
    """A working copy of the repository with profile micro."""
    for name in TREE:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    shutil.copy(ROOT / "stylegan_t" / "profiles" / "micro.yaml", folder / "params.yaml")
    return folder


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "COLUMNS": "120"}


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outputs(folder: Path) -> dict[str, str]:
    """Digest of every file that the stages write, but for what differs from run to run by its nature."""
    files = [path for top in ("data", "artifacts") for path in (folder / top).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in VOLATILE
    }


@dataclass(frozen=True)
class World:
    """A finished pipeline."""

    root: Path
    config: Config
    outcomes: dict[str, str]
    cpu_seconds: float

    def json(self, path: str) -> dict[str, Any]:
        return json.loads((self.root / path).read_text())

    def tensors(self, stage: str, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.root / "artifacts" / stage / f"{name}.safetensors")

    def states(self, stage: str) -> list[dict[str, Any]]:
        """The last two resume states of a training."""
        paths = sorted((self.root / ".state" / stage).glob("*/state-*.pt"))
        return [torch.load(path, weights_only=True) for path in paths]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    root = plant(tmp_path_factory.mktemp("end-to-end"))
    before = children_cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "flows.pipeline"],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    used = children_cpu_seconds() - before
    return World(root, load_config(root / "params.yaml"), standin.table(done.stdout), used)


def children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def test_the_flow_ran_every_stage_in_order(world):
    assert world.outcomes == dict.fromkeys(STAGES, "ran")
    assert list(world.outcomes) == list(STAGES)


def test_it_is_two_minutes_of_work_for_two_cores(world):
    assert world.cpu_seconds < 2 * 2 * 120, "counted in work, and twice of it, since others may share the processor"


def test_download_wrote_exactly_the_pictures_asked_for(world):
    raw = Shards(world.root / "data" / "raw")
    assert raw.manifest["num_samples"] == len(raw) == 400
    assert [shard["num_samples"] for shard in raw.manifest["shards"]] == [150, 150, 100]
    assert len({sample.key for sample in raw}) == 400
    assert all(sample.caption and sample.image for sample in raw)


def test_fetch_encoders_made_players_and_other_judges(world):
    folder = world.root / "artifacts" / "fetch_encoders"
    networks = ("players/clip", "judges/small_clip")
    clips = [load_file(folder / network / "model.safetensors") for network in networks]
    assert {name: value.shape for name, value in clips[0].items()} != {k: v.shape for k, v in clips[1].items()}


def test_score_measured_every_pair_once(world):
    tables = [pq.read_table(path) for path in sorted((world.root / "data" / "scores").glob("*.parquet"))]
    keys = [key for table in tables for key in table["key"].to_pylist()]
    assert keys == [sample.key for sample in Shards(world.root / "data" / "raw")]
    clip_scores = [table["clip_score"].combine_chunks().flatten() for table in tables]
    assert all(np.isfinite(column.to_numpy()).all() for column in clip_scores)


def test_filter_accounts_for_every_pair(world):
    report = world.json("data/prepared/report.json")
    train, heldout = (Shards(world.root / "data" / "prepared" / split) for split in ("train", "heldout"))
    assert report["total"] == 400 == report["kept"] + sum(report["dropped"].values())
    assert report["dropped"]["low_clip_score"] == 20
    assert (len(train), len(heldout)) == (report["train"], report["heldout"])
    assert len(train) + len(heldout) == report["kept"] == 380
    assert not {sample.key for sample in train} & {sample.key for sample in heldout}


def test_prepared_captions_carry_the_players_embedding(world):
    clip = load_clip(world.root / "artifacts" / "fetch_encoders" / "players" / "clip")
    samples = [Shards(world.root / "data" / "prepared" / "train")[i] for i in (0, 100, 300)]
    with torch.no_grad():
        expected = clip.encode_text([sample.caption for sample in samples])
    stored = torch.from_numpy(np.concatenate([sample.c for sample in samples])).float()
    torch.testing.assert_close(stored, expected, atol=2e-3, rtol=0)


def test_reference_statistics_saw_every_held_out_picture_at_each_side(world):
    statistics = world.json("artifacts/reference_statistics/statistics.json")
    assert statistics["num_images"] == len(Shards(world.root / "data" / "prepared" / "heldout"))
    assert [reals["px"] for reals in statistics["reals"]] == [16, 32]


def is_constant(name: str) -> bool:
    """Buffers that never change, and what has no effect without spatial noise."""
    return name.endswith(("noise_const", "noise_strength", "freqs", "phases", "token_ids"))


def is_new_at(px: int, name: str) -> bool:
    return f"blocks.{px}." in name and not is_constant(name)


@pytest.mark.parametrize("stage", TRAINING)
def test_training_moves_every_weight_that_it_should(world, stage):
    before, after = world.states(stage)
    new = [name for name in after["trained"] if is_new_at(32, name)]
    free = new if stage == "train_super_resolution" else [n for n in after["trained"] if not is_constant(n)]
    assert free
    assert [name for name in free if torch.equal(before["trained"][name], after["trained"][name])] == []
    assert [name for name, value in after["heads"].items() if torch.equal(before["heads"][name], value)] == []


def test_stage_one_grew_halfway(world):
    assert world.json("artifacts/train_generator/config.json")["generator"]["resolution"] == 16
    lines = read_lines(world.root / "artifacts" / "train_generator" / LOG, LogRecord)
    assert [line.resolution for line in lines] == [8] * 4 + [16] * 4
    assert all(math.isfinite(value) for line in lines for value in line.terms.values())


def test_stage_two_left_the_generator_bit_for_bit_and_moved_the_text_encoder(world):
    first, second = (world.root / "artifacts" / stage for stage in TRAINING[:2])
    assert (first / "generator.safetensors").read_bytes() == (second / "generator.safetensors").read_bytes()
    for name in ("text_encoder", "discriminator"):
        before, after = world.tensors(TRAINING[0], name), world.tensors(TRAINING[1], name)
        assert before.keys() == after.keys()
        assert not all(torch.equal(before[key], after[key]) for key in before), name


def test_super_resolution_added_layers_and_left_those_below_alone(world):
    assert world.json("artifacts/train_super_resolution/config.json")["generator"]["resolution"] == 32
    before, after = (world.tensors(stage, "generator") for stage in TRAINING[1:])
    assert after.keys() > before.keys()
    assert all("blocks.32." in name for name in after.keys() - before.keys())
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    second, third = (world.root / "artifacts" / stage / "text_encoder.safetensors" for stage in TRAINING[1:])
    assert second.read_bytes() == third.read_bytes()


def test_metrics_are_finite_and_feel_wrong_captions(world):
    metrics = flat(world.json("artifacts/evaluate/metrics.json"))
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    assert numbers
    assert all(math.isfinite(value) for value in numbers.values())
    with (world.root / "artifacts" / "evaluate" / "psi_sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    psis = world.config.evaluate.psi
    assert [(row["stage"], float(row["psi"])) for row in rows] == [(stage, psi) for stage in TRAINING for psi in psis]
    for row in rows:
        assert float(row["clip_score"]) != float(row["clip_score_of_wrong_captions_small_clip"])


def test_the_evaluation_says_which_model_was_measured_against_which_pictures(world):
    found = read_lines(world.root / "artifacts" / "evaluate" / "evaluations.jsonl", Evaluation)
    subjects = {each.subject for each in found}
    assert subjects == {*TRAINING, "untrained"}
    assert {each.protocol for each in found} == {"shapes"}
    assert {each.in_training for record in found for each in record.measurements} == {False}
    assert len({each.reference_sha256 for each in found}) == 1


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{prefix}.{name}").items()}


def test_a_second_repro_does_nothing(world):
    before = outputs(world.root)
    said = dvc(world.root, "repro")
    assert said.count("didn't change, skipping") == len(STAGES)
    assert "Running stage" not in said
    assert outputs(world.root) == before


def test_dvc_shows_metrics_and_plots(world):
    shown = json.loads(dvc(world.root, "metrics", "show", "--json"))
    assert "artifacts/evaluate/metrics.json" in json.dumps(shown)
    said = dvc(world.root, "plots", "show", "--json")
    names = set(json.loads(said)["data"])
    assert {f"Losses of {stage}" for stage in TRAINING} | {"Truncation sweep"} <= names
    curves = {f"artifacts/evaluate/plots/{name}.png" for name in ("quality_against_agreement", "text_encoder")}
    assert curves <= names, "the paper's figures 5 and 6"


def test_git_sees_the_lock_file_and_none_of_the_outputs(world):
    listed = subprocess.run(
        ["git", "status", "--short", "--untracked-files=all"],
        cwd=world.root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "dvc.lock" in listed
    assert "artifacts" not in listed
    assert "?? data/" not in listed


def run_until_state_and_kill(folder: Path, stage: str) -> int:
    """Start ``dvc repro`` and kill -9 it once the stage has saved on the way; images shown by then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"], cwd=folder, env=environment(folder),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (states := list((folder / ".state" / stage).glob("*/state-*[1-9]*.json"))):  # written after its state
        assert process.poll() is None
        time.sleep(0.005)
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        each.kill()
    process.wait()
    assert not (folder / "artifacts" / stage / "generator.safetensors").exists()
    return max(int(path.stem.removeprefix("state-")) for path in states)


@pytest.fixture(scope="module")
def killed(world, tmp_path_factory) -> Iterator[tuple[Path, int]]:
    folder = plant(tmp_path_factory.mktemp("killed"))
    nimg = run_until_state_and_kill(folder, "train_generator")
    dvc(folder, "repro")
    yield folder, nimg


def test_a_killed_training_goes_on_where_it_stopped(killed):
    folder, nimg = killed
    (path,) = (folder / ".state" / "train_generator").glob(f"*/live/{RUN}")
    run = read_record(path, RunRecord)
    assert run is not None
    (resumed,) = run.resumed
    assert run.total_kimg > resumed >= nimg / 1000 > 0


def test_dvc_alone_and_killed_on_the_way_makes_the_same_bytes_as_the_flow(world, killed):
    expected, found = outputs(world.root), outputs(killed[0])
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_two_workers_make_the_same_bytes_as_the_flow(world, tmp_path):
    """Each stage on the pool that dvc.yaml names for it, contents by way of a DVC remote."""
    origin = cluster.Origin(tmp_path / "machines")
    plant(origin.author)
    cluster.git(origin.author, "checkout", "-q", "-b", "main")
    origin.publish()
    with pytest.MonkeyPatch.context() as patch, temporary_settings(restore_defaults=[PREFECT_API_URL]):
        patch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
        with prefect_server(services=True):
            services.make_pools("cpu", "gpu")
            with cluster.worker(origin, "one", "cpu") as one, cluster.worker(origin, "two", "gpu") as two:
                code, output = cluster.finished(cluster.spread(origin), seconds=500)
            log = one.log.read_text() + two.log.read_text()
    assert (code, standin.table(output)) == (0, dict.fromkeys(STAGES, "ran")), output + log
    (line,) = (origin.folder / "home" / ".state" / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["accepted"], "metrics came back from the remote, and were judged"
    copy = origin.clone("copy", *origin.branches())
    cluster.dvc(copy, "pull")
    expected, found = outputs(world.root), outputs(copy)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not (one.workspace / "artifacts" / "train_generator").exists(), "training is for the other pool"


def test_a_changed_training_setting_reruns_that_stage_and_those_after_it_only(killed):
    folder, _ = killed
    before = {path.name for path in (folder / ".state" / "finetune_text_encoder").iterdir()}
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["finetune_text_encoder"]["clip_guidance_weight"] = 20.0
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    said = dvc(folder, "repro")
    ran = [stage for stage in STAGES if f"Running stage '{stage}'" in said]
    assert ran == ["finetune_text_encoder", "train_super_resolution", "evaluate"]
    after = {path.name for path in (folder / ".state" / "finetune_text_encoder").iterdir()}
    assert len(after) == len(before) + 1  # a run of its own: it never resumes under changed settings
