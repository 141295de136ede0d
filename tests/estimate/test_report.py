"""From speed to days, and what the tables say."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from stylegan_t.estimate.machine import Measured, measure
from stylegan_t.estimate.memory import Parameters, Traced
from stylegan_t.estimate.plan import make_plan
from stylegan_t.estimate.report import PAPER, PAPER_TEXT_ENCODER, Estimate, Overhead, show

MIB = 2**20
TRACED = Traced(
    Parameters(10, 10, 1, 1, 1, 1), {"weights": 60 * MIB, "activations": 40 * MIB}, 110 * MIB, "training step", 0, 0
)


MEASURED = Measured(10.0, 32, 300 * MIB, busy=False)


def found(measured: Measured | str = MEASURED, **options) -> Estimate:
    return Estimate(make_plan(Path("/nowhere"), **options), TRACED, Overhead(200 * MIB, 10 * MIB), measured)


def text(estimate: Estimate) -> str:
    out = io.StringIO()
    show(estimate, Console(file=out, width=200))
    return out.getvalue()


def test_the_paper_s_budget_is_that_of_its_profile():
    stages = ["train_generator", "finetune_text_encoder", "train_super_resolution"]
    one, two, three = (make_plan(Path("/nowhere"), profile="full", stage=stage).settings for stage in stages)
    total = lambda *sides: sum(PAPER[side].images for side in sides) / 1000
    assert one.total_kimg == total(16, 32, 64)
    assert two.total_kimg == PAPER_TEXT_ENCODER.images / 1000
    assert three.total_kimg == total(128, 256, 512)


def test_days_are_images_over_the_speed_of_all_devices():
    assert found().days(864_000 * 2) == 2
    assert found(devices=4).days(864_000 * 2) == 0.5
    assert found("--no-measure").days(1) is None


def test_the_total_is_the_sum_of_what_is_listed():
    assert found().total_bytes == 310 * MIB
    assert "310.0 MiB" in text(found())


def test_what_was_not_measured_is_said_with_the_reason():
    shown = text(found("torch sees no GPU here"))
    assert "not measured" in shown
    assert "torch sees no GPU here" in shown
    assert "450" in shown


def test_what_does_not_fit_is_not_tried():
    reason = measure(make_plan(Path("/nowhere")), 2**60)
    assert isinstance(reason, str)
    assert "GiB that are free here" in reason


@pytest.mark.parametrize(("resolution", "listed"), [(8, False), (16, True)])
def test_a_resolution_that_the_paper_does_not_have_has_no_budget(resolution, listed):
    assert (found(resolution=resolution).paper is not None) == listed


@pytest.mark.parametrize(
    ("stage", "resolution", "per_second"),
    [("train_super_resolution", 512, 2.3704), ("finetune_text_encoder", None, 2.4951)],
)
def test_where_nothing_was_measured_the_paper_s_table_tells_the_speed_of_the_paper_s_model(
    stage, resolution, per_second
):
    full = found("no GPU", profile="full", stage=stage, resolution=resolution, devices=64, device_type="cuda")
    assert full.images_per_second == pytest.approx(per_second, abs=1e-4)
    assert full.paper is not None
    assert full.days(full.paper.images) == pytest.approx(full.paper.a100_days / 64)
    assert "an A100 of the paper's, by its table" in text(full)


@pytest.mark.parametrize(
    ("profile", "resolution", "device_type"), [("lite", 64, "cuda"), ("full", 64, "cpu"), ("full", 8, "cuda")]
)
def test_the_paper_s_table_tells_nothing_of_other_models_machines_or_sizes(profile, resolution, device_type):
    other = found("no GPU", profile=profile, resolution=resolution, device_type=device_type)
    assert other.images_per_second is None and other.days(1) is None


def test_the_paper_s_table_tells_nothing_of_its_model_without_a_redesign():
    changes = ["train_generator.network.residual=false"]
    other = found("no GPU", profile="full", resolution=64, device_type="cuda", changes=changes)
    assert other.images_per_second is None
