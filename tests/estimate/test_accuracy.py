"""The estimate against the thing itself: whole training stages, each in a process of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import ROOT

pytestmark = pytest.mark.slow

MEDIUM = ["train_generator.network.channel_base=8192", "train_generator.network.channel_max=256"]
SMALL = ["train_generator.network.channel_base=4096"]
SIZES = {
    "32 px": [*SMALL, "train_generator.resolutions=[32]", "train_generator.batch_size=32"],
    "64 px": [*MEDIUM, "train_generator.resolutions=[64]", "train_generator.batch_size=16"],
    "64 px in micro-batches": [
        *MEDIUM, "train_generator.resolutions=[64]", "train_generator.batch_size=16",
        "train_generator.compute.microbatch_size=8",
    ],
}  # fmt: skip
COMMON = [
    "train_super_resolution.resolutions=[128]", "filter.image_px=128", "train_generator.grow_at_kimg=[]",
    "train_generator.total_kimg=0.064",
    "train_generator.save_every_kimg=0.032",
]  # fmt: skip
MEASURING = (
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)
"""A small process between: one started from a large one would count its parent's memory as its own."""


def command(folder: Path, *arguments: str, through: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [*through, sys.executable, "-m", "stylegan_t.cli", *arguments],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_settings(folder: Path, *settings: str) -> None:
    command(folder, "profile", "micro", *(f"--set={setting}" for setting in (*COMMON, *settings)))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    with_settings(folder, *SIZES["32 px"])
    for stage in ("download", "fetch_encoders", "score", "filter"):
        command(folder, "run", stage, "--device", "cpu")
    return folder


@pytest.fixture(scope="module")
def after_stage_two(prepared, tmp_path_factory) -> Path:
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("later") / "stages")
    with_settings(folder, *SIZES["32 px"])
    for stage in ("train_generator", "finetune_text_encoder"):
        command(folder, "run", stage, "--device", "cpu")
    return folder


def compare(folder: Path, stage: str) -> None:
    """The estimate of a stage with the most memory that it really takes from its start to its end."""
    small = (sys.executable, "-c", MEASURING)
    told = command(folder, "run", stage, "--device", "cpu", "--resume", "never", through=small)
    measured = int(told.splitlines()[-1]) * 1024
    found = json.loads(command(folder, "estimate", "--no-measure", "--json", "--device", "cpu", "--stage", stage))
    print(f"{stage}: estimated {found['memory']['total'] / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB")
    assert found["memory"]["total"] == pytest.approx(measured, rel=0.15), found["memory"]


@pytest.mark.parametrize("size", SIZES)
def test_memory_is_within_15_percent_of_a_real_training(prepared, size):
    with_settings(prepared, *SIZES[size])
    compare(prepared, "train_generator")


@pytest.mark.parametrize("stage", ["finetune_text_encoder", "train_super_resolution"])
def test_memory_of_the_later_stages_is_within_15_percent_too(after_stage_two, stage):
    compare(after_stage_two, stage)


def test_the_command_measures_and_agrees_with_itself(tmp_path):
    found = json.loads(command(tmp_path, "estimate", "--profile", "tiny", "--json", "--device", "cpu"))
    if "are free here" in found["measured"]:
        pytest.skip(f"this machine has too little memory now: {found['measured']}")
    assert found["measured"]["peak_bytes"] == pytest.approx(found["memory"]["total"], rel=0.15)
    assert found["days"] == pytest.approx(128_000 / found["measured"]["images_per_second"] / 86400)
