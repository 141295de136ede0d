"""The identity of a training run: what changes it starts anew, what does not goes on."""

from pathlib import Path

import pytest
import yaml

from stylegan_t.config import parse_config
from stylegan_t.stages.adversarial import CODE, PACKAGE, UNDIGESTED, run_digest

PROFILE = Path(__file__).parents[2] / "stylegan_t" / "profiles" / "tiny.yaml"


def sections() -> dict[str, dict]:
    values = yaml.safe_load(PROFILE.read_text())
    return {name: values[name] for name in values if name.startswith(("train_", "finetune_"))}


def digest(stage: str, changes: dict, inputs: list[Path] | None = None, seed: int = 0) -> str:
    values = yaml.safe_load(PROFILE.read_text())
    values[stage] |= changes
    return run_digest(getattr(parse_config(values, "test"), stage), seed, inputs or [])


@pytest.fixture
def input_folder(tmp_path) -> Path:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"weights")
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("train_generator", {"generator_lr": 0.001}),
        ("train_generator", {"resolutions": [16], "grow_at_kimg": []}),
        ("train_generator", {"clip_guidance_weight": 0.3}),
        ("finetune_text_encoder", {"text_encoder_lr": 0.001}),
        ("train_super_resolution", {"batch_size": 64}),
    ],
)
def test_a_setting_that_changes_the_result_changes_the_run(stage, change):
    assert digest(stage, change) != digest(stage, {})


@pytest.mark.parametrize("stage", sections())
@pytest.mark.parametrize("name", sorted(UNDIGESTED))
def test_a_longer_run_or_other_intervals_go_on(stage, name):
    assert digest(stage, {name: sections()[stage][name] * 2 + 1}) == digest(stage, {})


def test_another_seed_is_another_run():
    assert digest("train_generator", {}, seed=1) != digest("train_generator", {}, seed=2)


def test_every_byte_and_every_name_of_the_inputs_counts(input_folder):
    before = digest("train_generator", {}, [input_folder])
    assert digest("train_generator", {}, [input_folder]) == before
    file = input_folder / "clip" / "model.safetensors"
    file.write_bytes(b"weight5")
    changed = digest("train_generator", {}, [input_folder])
    file.rename(file.with_name("other.safetensors"))
    assert len({before, changed, digest("train_generator", {}, [input_folder])}) == 3


def test_the_code_that_decides_the_result_is_part_of_the_identity():
    names = {str(path.relative_to(PACKAGE)) for path in CODE}
    assert names >= {"losses.py", "ema.py", "training/steps.py", "training/loop.py", "models/generator.py"}
