"""The identity of a training run: what changes it starts anew, what does not goes on."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
import yaml

from stylegan_t.errors import DataError
from stylegan_t.records import RUN, RunRecord, read_record
from stylegan_t.settings.training import Network
from stylegan_t.stages import identity, train_generator
from stylegan_t.stages.adversarial import TrainingStage
from stylegan_t.stages.identity import CODE, IDENTITY, PACKAGE, UNDIGESTED, announce, differences, digest_of, run_facts
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.distributed import World
from tests.imports import ROOT
from tests.settings_fields import another, leaves, value_of, with_value
from tests.stages.training_world import TRAINING, config, make_world, put_bundle

GOES_ON = {
    "total_kimg", "log_every_kimg", "sample_every_kimg", "save_every_kimg", "keep_states", "num_workers",
    "guard.max_rollbacks", "guard.rollback_lr_factor", "compute.microbatch_size", "compute.shard_optimizer",
}  # fmt: skip
"""The whole list of what a run may change while it goes on."""
SETTINGS = {stage: getattr(config(), stage) for stage in TRAINING}
FIELDS = [(stage, name) for stage in TRAINING for name in leaves(type(SETTINGS[stage]))]
NETWORK = config().train_generator.network


def digest(settings, network: Network = NETWORK, seed: int = 0, inputs: tuple[Path, ...] = ()) -> str:
    return digest_of(run_facts(settings, network, seed, inputs))


@pytest.fixture(scope="module")
def unchanged() -> dict[str, str]:
    return {stage: digest(settings) for stage, settings in SETTINGS.items()}


@pytest.mark.parametrize(("stage", "name"), [pair for pair in FIELDS if not pair[1].startswith("network.")])
def test_every_setting_makes_another_run_unless_it_is_named_as_one_that_does_not(unchanged, stage, name):
    settings = SETTINGS[stage]
    changed = with_value(settings, name, another(value_of(settings, name), leaves(type(settings))[name]))
    assert changed != settings
    assert (digest(changed) == unchanged[stage]) == (name in GOES_ON)


def test_the_named_ones_are_settings_that_exist():
    names = {f"{name}.{each}" for name, inner in UNDIGESTED.items() if isinstance(inner, set) for each in inner}
    names |= {name for name, inner in UNDIGESTED.items() if inner is True}
    for stage in TRAINING:
        fields = {name for each, name in FIELDS if each == stage}
        within = lambda field: any(field == name or field.startswith(f"{name}.") for name in names)
        assert {field for field in fields if within(field)} == GOES_ON


@pytest.mark.parametrize("name", leaves(Network))
@pytest.mark.parametrize("stage", TRAINING)
def test_another_network_is_another_run_of_every_stage(unchanged, stage, name):
    changed = with_value(NETWORK, name, another(value_of(NETWORK, name), leaves(Network)[name]))
    assert digest(SETTINGS[stage], changed) != unchanged[stage]


def test_another_seed_is_another_run(unchanged):
    assert digest(SETTINGS["train_generator"], seed=1) != unchanged["train_generator"]


@pytest.fixture
def inputs(tmp_path) -> Path:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_every_byte_and_every_name_of_the_inputs_counts(inputs):
    settings = SETTINGS["train_generator"]
    before = digest(settings, inputs=(inputs,))
    assert digest(settings, inputs=(inputs,)) == before
    file = inputs / "clip" / "model.safetensors"
    file.write_bytes(b"weight5")
    changed = digest(settings, inputs=(inputs,))
    file.rename(file.with_name("other.safetensors"))
    assert len({before, changed, digest(settings, inputs=(inputs,)), digest(settings)}) == 4


def test_a_missing_input_is_one_line(inputs):
    with pytest.raises(DataError, match=r"vit: missing; `dvc repro` makes it"):
        digest(SETTINGS["train_generator"], inputs=(inputs, inputs / "vit"))


@pytest.mark.parametrize("change", ["another line", "another name"])
def test_other_code_is_another_run(monkeypatch, tmp_path, change):
    (tmp_path / "losses.py").write_text("weight = 1")
    monkeypatch.setattr(identity, "PACKAGE", tmp_path)
    monkeypatch.setattr(identity, "CODE", [tmp_path / "losses.py"])
    before = digest(SETTINGS["train_generator"])
    if change == "another line":
        (tmp_path / "losses.py").write_text("weight = 2")
    else:
        (tmp_path / "losses.py").rename(tmp_path / "lost.py")
        monkeypatch.setattr(identity, "CODE", [tmp_path / "lost.py"])
    assert digest(SETTINGS["train_generator"]) != before


SERVING = {
    "data/sources/remote.py", "data/workers.py", "device.py", "models/model_card.py", "training/checkpoint.py",
    *(f"training/{name}.py" for name in ("distributed", "live", "loggers", "meters", "rollback", "signals")),
    "stages/identity.py",
}  # fmt: skip
"""Code that a training stage runs and that is not part of a run's identity: it reads, writes and tells."""


def test_the_code_of_the_identity_is_what_the_stages_run_but_for_what_only_serves():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = {dep for stage in TRAINING for dep in stages[stage]["deps"] if dep.endswith(".py")}
    code = {f"stylegan_t/{path.relative_to(PACKAGE)}" for path in CODE}
    assert deps - code == {f"stylegan_t/{name}" for name in SERVING}
    assert code - deps == set(), "code that no training stage runs"


def test_differences_are_named_by_their_place():
    before = {"seed": 0, "settings": {"lr": 1.0, "guard": {"a": 1}}, "gone": 1, "same": [1]}
    after = {"seed": 1, "settings": {"lr": 2.0, "guard": {"a": 1, "b": None}}, "new": {"x": 1}, "same": [1]}
    assert differences(before, after) == ["gone", "new", "seed", "settings.lr"]
    assert differences(before, before) == []


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_new_run_beside_another_says_in_what_it_differs(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "train_generator"
    announce(folder / "aaaa", {"seed": 0, "settings": {"generator_lr": 0.1}})
    assert said(caplog) == [], "the first run of a stage differs from nothing"
    announce(folder / "aaaa", {"seed": 0, "settings": {"generator_lr": 0.1}})
    assert said(caplog) == [], "a run that goes on is no new one"
    announce(folder / "bbbb", {"seed": 1, "settings": {"generator_lr": 0.2}})
    assert said(caplog) == [
        "train_generator: a run of its own, from the start: it differs from the one before (aaaa) in "
        "seed, settings.generator_lr"
    ]
    assert json.loads((folder / "bbbb" / IDENTITY).read_text())["seed"] == 1


def test_a_damaged_identity_of_another_run_stops_nobody(tmp_path):
    (tmp_path / "aaaa").mkdir()
    (tmp_path / "aaaa" / IDENTITY).write_text("{")
    announce(tmp_path / "bbbb", {"seed": 1})
    assert json.loads((tmp_path / "bbbb" / IDENTITY).read_text()) == {"seed": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Workspace:
    workspace = make_world(tmp_path_factory.mktemp("identity"))
    put_bundle(workspace, workspace.artifacts("train_generator"), 16)
    return workspace


def stage_digest(workspace: Workspace) -> str:
    alone = World(torch.device("cpu"))
    return TrainingStage("finetune_text_encoder", config(), workspace, alone, "train_generator").digest


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("artifacts/train_generator/generator.safetensors", True),
        ("artifacts/train_generator/text_encoder.safetensors", True),
        ("artifacts/train_generator/discriminator.safetensors", True),
        ("artifacts/train_generator/config.json", True),
        ("artifacts/train_generator/README.md", False),
        ("artifacts/fetch_encoders/players/discriminator_vit/config.json", True),
        ("data/prepared/train/manifest.json", True),
        ("data/prepared/heldout/manifest.json", True),
    ],
)
def test_a_stage_counts_all_that_it_reads(world, file, counts):
    before, path = stage_digest(world), world.root / file
    data = path.read_bytes()
    path.write_bytes(data + b" ")
    try:
        assert (stage_digest(world) != before) == counts
    finally:
        path.write_bytes(data)


def test_a_longer_run_goes_on_and_one_at_another_rate_starts_anew(tmp_path):
    workspace = make_world(tmp_path)
    short = {"resolutions": [8], "grow_at_kimg": []}
    train_generator.run(config("train_generator", **short, total_kimg=0.008), workspace, "cpu")
    train_generator.run(config("train_generator", **short), workspace, "cpu")
    train_generator.run(config("train_generator", **short, generator_lr=0.001), workspace, "cpu")
    files = sorted((tmp_path / ".state" / "train_generator").glob(f"*/live/{RUN}"), key=lambda f: f.stat().st_mtime)
    runs = [read_record(file, RunRecord) for file in files]
    assert [(run.resumed, run.finished) for run in runs if run] == [([0.008], True), ([], True)]
