"""params.yaml: each mistake is one line that names the key, the value and what is allowed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from stylegan_t.config import STAGES, Config, load_config, parse_config, parse_yaml
from stylegan_t.errors import SettingsError
from stylegan_t.profile import PROFILES
from stylegan_t.settings.training import check_growth
from tests.imports import ROOT

TINY = yaml.safe_load((ROOT / "stylegan_t" / "profiles" / "tiny.yaml").read_text())


def changed(key: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(TINY)
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        section = section[parent]
    section[last] = value
    return values


def without(key: str) -> dict[str, Any]:
    values = copy.deepcopy(TINY)
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        section = section[parent]
    del section[last]
    return values


def complaint(values: object) -> str:
    with pytest.raises(SettingsError) as error:
        parse_config(values, "params.yaml")
    return str(error.value)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_valid(name):
    assert isinstance(load_config(ROOT / "stylegan_t" / "profiles" / f"{name}.yaml"), Config)


def test_a_misspelt_key_is_named_with_the_key_that_was_meant():
    line = complaint(changed("train_generator.batchsize", 8))
    assert line.startswith("params.yaml: train_generator.batchsize: unknown key; did you mean batch_size?")
    assert "\n" not in line


def test_a_misspelt_key_below_a_choice_is_named_too():
    line = complaint(changed("fetch_encoders.clip.imagepx", 32))
    assert line.startswith("params.yaml: fetch_encoders.clip.imagepx: unknown key; did you mean image_px?")


@pytest.mark.parametrize("key", [*STAGES, "seed", "train_generator.network.z_dim", "download.source.num_images"])
def test_a_missing_setting_is_named(key):
    assert complaint(without(key)).startswith(f"params.yaml: {key}: missing")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_generator.batch_size", "32"),
        ("train_generator.batch_size", 32.5),
        ("train_generator.spatial_noise", 1),
        ("seed", -1),
        ("filter.p_heldout", 1.5),
        ("evaluate.psi", []),
        ("download.source.kind", "postcards"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(key, value):
    line = complaint(changed(key, value))
    assert line.startswith(f"params.yaml: {key.removesuffix('.kind')}")
    assert "\n" not in line


KINDS = "allowed here: emoji, folder, huggingface, mixture, shape_pairs, shapes, urls, webdataset"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"path": "pictures"}, f".kind: missing ({KINDS})"),
        ({"kind": "url", "path": "list.csv"}, f".kind = 'url'; did you mean urls? ({KINDS})"),
        ({"kind": "mixture", "datasets": {"cc": {"kind": "x"}}}, ".datasets.cc.kind = 'x' (allowed here: emoji, "),
        ({"kind": ["urls"]}, f".kind = ['urls']; did you mean urls? ({KINDS})"),
    ],
)
def test_the_kinds_of_a_section_are_told(source, told):
    assert complaint(changed("download.source", source)).startswith(f"params.yaml: download.source{told}")


def test_a_batch_that_does_not_split_into_groups_is_told_which_would():
    line = complaint(changed("train_generator.batch_size", 9))
    assert line.startswith("params.yaml: train_generator.batch_size = 9: ")
    assert line.endswith("use 8 or 16")


@pytest.mark.parametrize("px", [24, 4, 0])
def test_a_resolution_is_a_power_of_two(px):
    assert "power of two" in complaint(changed("filter.image_px", px))


def test_several_mistakes_are_several_lines():
    values = changed("train_generator.batch_size", 9)
    values["filter"]["min_side"] = 3
    assert len(complaint(values).splitlines()) == 2


@pytest.mark.parametrize("values", [None, [], "seed: 0", 3])
def test_a_file_without_sections_says_which_there_are(values):
    assert "expected a mapping with the sections seed, download" in complaint(values)


def test_stages_must_fit_together():
    assert "must start above" in complaint(changed("train_super_resolution.resolutions", [16]))
    assert "use 32 or more" in complaint(changed("filter.image_px", 16))
    apart = {"kind": "timm", "model": "vit_small_patch16_224.dino", "weights": "pretrained", "hooks": [2]}
    assert "clip_image_tower" in complaint(changed("fetch_encoders.discriminator_vit", apart))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train_generator.network.channel_base", 512, "16 channels at 32 px"),
        ("train_generator.network.channel_max", 48, "48 channels at 8 px"),
        ("fetch_encoders.clip.num_heads", 3, "image_width = 64 does not split into num_heads = 3"),
        ("fetch_encoders.clip.image_depth", 1, "hooks = [0, 1]: the image tower has 1 blocks"),
    ],
)
def test_what_would_fail_after_minutes_is_said_at_once(key, value, words):
    assert words in complaint(changed(key, value))


FEW_COPIES = {"num_samples": 9, "num_shown": 4, "num_neighbours": 2, "max_training_images": 50}
JUDGE = {"kind": "inception", "weights": "pretrained"}


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("num_images", 1, ".num_images = 1: Input should be greater than or equal to 2"),
        ("num_images", 1000, ": num_psi_images = 1500 is more than num_images = 1000; use at most 1000"),
        (
            "copies",
            FEW_COPIES | {"num_samples": 6000},
            ": copies.num_samples = 6000 is more than num_images = 5000; ",
        ),
        ("copies", FEW_COPIES | {"num_shown": 10}, ": copies.num_shown = 10 is more than copies.num_samples = 9; use"),
        ("copies", FEW_COPIES | {"num_near": 1}, ".copies.num_near: unknown key; did you mean num_neighbours?"),
        ("num_seeds", 0, ".num_seeds = 0: Input should be greater than 0"),
        ("psi", [1.0, 2.0], ".psi.1 = 2.0: Input should be less than or equal to 1.5"),
        ("against", 3, ".against = 3: Input should be a valid string"),
    ],
)
def test_a_wrong_setting_of_the_evaluation_is_told_with_what_is_allowed(key, value, line):
    assert complaint(changed(f"evaluate.{key}", value)).startswith(f"params.yaml: evaluate{line}")


def test_all_pictures_of_the_protocol_may_be_fewer_than_any_number():
    parse_config(changed("evaluate.num_images", None), "params.yaml")


@pytest.mark.parametrize(
    ("judges", "line"),
    [
        ({}, ": Dictionary should have at least 1 item"),
        ({"Big Clip": JUDGE}, ".Big Clip.[key] = 'Big Clip': String should match pattern '^[a-z][a-z0-9_]*$'"),
        ({"a": JUDGE | {"kind": "incepton"}}, ".a.kind = 'incepton'; did you mean inception? (allowed here: dinov2, "),
        ({"a": JUDGE | {"mode": "clean"}}, ".a.mode: unknown key (allowed here: kind, weights)"),
        ({"a": {"kind": "dinov2"}}, ".a.weights: missing"),
    ],
)
def test_a_wrong_judge_is_told_with_what_is_allowed(judges, line):
    assert complaint(changed("fetch_encoders.judges", judges)).startswith(f"params.yaml: fetch_encoders.judges{line}")


def test_the_shapes_prompts_are_for_drawn_shapes_only():
    folder = {"kind": "folder", "path": "pictures", "caption_columns": ["text"]}
    assert "use heldout or a text file" in complaint(changed("download.source", folder))


@pytest.mark.parametrize(
    ("resolutions", "grow_at"), [([16, 8], [1.0]), ([8, 16], []), ([8, 16, 32], [2.0, 1.0]), ([8, 16], [9.0])]
)
def test_growth_ascends_and_falls_inside_the_training(resolutions, grow_at):
    with pytest.raises(ValueError, match="must ascend|one for each after the first"):
        check_growth(resolutions, grow_at, 9.0)


def test_a_decay_that_ends_before_it_begins_is_refused():
    decay = {"start_kimg": 5.0, "end_kimg": 5.0, "final_factor": 0.5}
    assert "must lie after start_kimg" in complaint(changed("train_generator.lr_decay", decay))


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(SettingsError, match="no such file; `stylegan-t profile tiny` writes one"):
        load_config(tmp_path / "params.yaml")


def test_broken_yaml_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: [0\ndownload: {")
    with pytest.raises(SettingsError, match="not valid YAML") as error:
        load_config(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["lite", "full"])
def test_the_papers_profiles_deviate_in_nothing(name):
    config = load_config(ROOT / "stylegan_t" / "profiles" / f"{name}.yaml")
    for stage in (config.train_generator, config.finetune_text_encoder, config.train_super_resolution):
        assert not any(stage.deviations.model_dump().values())
        assert stage.lr_decay.final_factor == 1
        assert len(stage.augment) == 5
        assert stage.spatial_noise
    assert config.finetune_text_encoder.text_encoder_lr == 3e-6


def test_the_full_profile_has_the_papers_schedule():
    config = load_config(ROOT / "stylegan_t" / "profiles" / "full.yaml")
    ends = [*config.train_generator.grow_at_kimg, config.train_generator.total_kimg]
    iterations = [round((b - a) * 1000 / 2048) for a, b in zip([0, *ends], ends, strict=False)]
    assert iterations == [118_000, 78_000, 57_000]
    assert config.finetune_text_encoder.total_kimg * 1000 == 20_000 * 2048


@pytest.mark.parametrize("text", ["1e-06", "2E-6", "1.5e3", "-3e+2", "1.0e-6"])
def test_numbers_with_exponents_are_numbers_as_dvc_writes_them(text):
    assert parse_yaml(f"lr: {text}") == {"lr": float(text)}


@pytest.mark.parametrize("text", ["e-6", "1e", "v1e5", "0x1e"])
def test_what_only_looks_like_one_is_none(text):
    assert not isinstance(parse_yaml(text), float)
