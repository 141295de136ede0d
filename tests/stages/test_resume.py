"""Each training stage, broken off between two states and started again, writes the bytes of one that was not."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil
import pytest

from stylegan_t.config import Config
from stylegan_t.errors import LoaderLost
from stylegan_t.records import RUN, RunRecord, read_record
from stylegan_t.stages import finetune_text_encoder, train_generator, train_super_resolution
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training import loop
from tests.stages.training_world import TRAINING, config, make_world, put_bundle

STAGES = dict(zip(TRAINING, (train_generator, finetune_text_encoder, train_super_resolution), strict=True))
UPSTREAM = {"finetune_text_encoder": "train_generator", "train_super_resolution": "finetune_text_encoder"}
STEPS, GROWS_AT = 6, 32
SIX_STEPS = {"total_kimg": 0.048, "save_every_kimg": 0.016, "sample_every_kimg": 0.024}


class Killed(Exception):
    """Stands for kill -9: nothing is saved on the way out."""


def settings(stage: str, **changes: int) -> Config:
    grows = {"grow_at_kimg": [GROWS_AT / 1000]}
    return config(stage, **SIX_STEPS, **(grows if stage == "train_generator" else {}), **changes)


def breaking_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, count = loop.training_step, iter(range(STEPS))

    def training_step(*arguments):
        if next(count) == step:
            raise Killed
        return whole(*arguments)

    monkeypatch.setattr(loop, "training_step", training_step)


def outputs(workspace: Workspace, stage: str) -> dict[str, bytes]:
    folder = workspace.artifacts(stage)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    workspace = make_world(tmp_path_factory.mktemp("origin"))
    for upstream in UPSTREAM.values():
        put_bundle(workspace, workspace.artifacts(upstream), 16)
    return workspace.root


@pytest.fixture(scope="module")
def unbroken(origin, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """The outputs of every stage."""
    found = {}
    for stage, module in STAGES.items():
        workspace = Workspace(shutil.copytree(origin, tmp_path_factory.mktemp("unbroken") / stage))
        module.run(settings(stage), workspace, "cpu")
        found[stage] = outputs(workspace, stage)
    return found


@pytest.mark.parametrize(("step", "resumed_kimg"), [(3, 0.016), (4, 0.032), (5, 0.032)], ids=["before", "at", "after"])
@pytest.mark.parametrize("stage", STAGES)
def test_broken_off_around_the_growing_step_it_ends_like_an_unbroken_one(
    origin, unbroken, tmp_path, monkeypatch, stage, step, resumed_kimg
):
    workspace = Workspace(shutil.copytree(origin, tmp_path / "world"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        breaking_at(step, patch)
        STAGES[stage].run(settings(stage), workspace, "cpu")
    STAGES[stage].run(settings(stage), workspace, "cpu")
    (record,) = workspace.root.glob(f".state/{stage}/*/live/{RUN}")
    run = read_record(record, RunRecord)
    assert run is not None and run.resumed == [resumed_kimg]
    found = outputs(workspace, stage)
    assert found.keys() == unbroken[stage].keys()
    assert [name for name, content in unbroken[stage].items() if found[name] != content] == []


def test_a_killed_loading_process_is_named_and_the_run_goes_on_after_it(origin, unbroken, tmp_path, monkeypatch):
    stage = "train_generator"
    workspace = Workspace(shutil.copytree(origin, tmp_path / "world"))
    whole, with_workers = loop.training_step, settings(stage, num_workers=1)
    others = set(psutil.Process().children())

    def training_step(*arguments):
        for child in set(psutil.Process().children()) - others:
            child.kill()
        time.sleep(0.1)
        return whole(*arguments)

    with (
        monkeypatch.context() as patch,
        pytest.raises(LoaderLost, match="loads images was lost .*killed by signal: Kill"),
    ):
        patch.setattr(loop, "training_step", training_step)
        train_generator.run(with_workers, workspace, "cpu")
    train_generator.run(with_workers, workspace, "cpu")
    found = outputs(workspace, stage)
    assert [name for name, content in unbroken[stage].items() if found[name] != content] == []
