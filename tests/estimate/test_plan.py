"""Which training is meant: options, params.yaml and profiles; mistakes in one line."""

import pytest

from stylegan_t.errors import SettingsError
from stylegan_t.estimate.plan import make_plan
from stylegan_t.profile import write_profile


def test_params_of_the_folder_are_taken_where_there_are_any_and_else_profile_tiny(tmp_path):
    assert make_plan(tmp_path).origin == "profile tiny"
    write_profile("micro", ["train_generator.batch_size=24"], tmp_path / "params.yaml")
    plan = make_plan(tmp_path)
    assert (plan.origin, plan.settings.batch_size) == ("params.yaml", 24)
    assert make_plan(tmp_path, profile="tiny").origin == "profile tiny"


def test_the_stage_is_the_one_that_trains_at_the_resolution(tmp_path):
    assert make_plan(tmp_path, profile="full", resolution=512).stage == "train_super_resolution"
    assert make_plan(tmp_path, profile="full", resolution=32).stage == "train_generator"
    plan = make_plan(tmp_path, profile="full")
    assert (plan.stage, plan.resolution) == ("train_generator", 64)
    assert make_plan(tmp_path, profile="full", stage="train_super_resolution").resolution == 512


def test_options_change_the_stage_that_is_meant_and_no_other(tmp_path):
    plan = make_plan(tmp_path, resolution=32, batch_size=64, microbatch_size=16, precision="bf16", devices=2)
    assert plan.stage == "train_super_resolution"
    assert (plan.settings.batch_size, plan.share, plan.microbatch_size) == (64, 32, 16)
    assert plan.settings.compute.precision == "bf16"
    assert plan.config.train_generator == make_plan(tmp_path).config.train_generator


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "huge"}, "profile 'huge' is unknown; one of: micro, tiny"),
        ({"stage": "evaluate"}, "stage 'evaluate' trains no GAN; one of: train_generator, "),
        ({"resolution": 48}, "--resolution 48: .*use a power of two"),
        ({"resolution": 1024}, r"--resolution 1024: .*= 1 channels at 1024 px|--resolution 1024: channel_base"),
        ({"resolution": 8, "stage": "train_super_resolution"}, "--resolution 8: .*use 32 or more"),
        ({"resolution": 64, "stage": "finetune_text_encoder"}, "--resolution 64: .*paints 16 px"),
        ({"batch_size": 9}, "train_generator.batch_size = 9: .*use 8 or 16"),
        ({"batch_size": 32, "devices": 3}, "batch_size = 32 on 3 devices: .*use 24 or 48"),
        ({"precision": "fp8"}, "train_generator.compute.precision = 'fp8'"),
        ({"changes": ["train_generator.batchsize=8"]}, "unknown key; did you mean batch_size"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, options, message):
    with pytest.raises(SettingsError, match=message) as error:
        make_plan(tmp_path, **options)
    assert "\n" not in str(error.value)
