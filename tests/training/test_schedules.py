"""Each schedule is a function of the images shown, and of nothing else that moves."""

from __future__ import annotations

import copy

import pytest
import torch

from stylegan_t import records
from stylegan_t.ema import ema_decay
from stylegan_t.records import LogRecord
from stylegan_t.settings.training import LrDecay
from stylegan_t.training import loop, steps
from stylegan_t.training.loop import train
from stylegan_t.training.microbatch import Step
from stylegan_t.training.schedules import blur_sigma_at, images, lr_factor, passed, resolution_at
from tests.training.players import fetch, settings
from tests.training.test_loop import make_run


@pytest.mark.parametrize(("nimg", "px"), [(0, 8), (3999, 8), (4000, 16), (9999, 16), (10000, 32), (10**9, 32)])
def test_a_resolution_begins_at_its_kimg(nimg, px):
    assert resolution_at(nimg, [8, 16, 32], [4.0, 10.0]) == px


def test_a_count_of_images_is_whole_though_kimg_are_not():
    """In floating point, 16.056 * 1000 is more than 16056: something due after that image would come a step late."""
    assert images(16.056) == 16056
    assert all(images(nimg / 1000) == nimg for nimg in range(8, 400_000, 8))
    assert resolution_at(16056, [8, 16], [16.056]) == 16
    assert passed(16056, 8, 16.056)


def test_a_training_ends_with_the_batch_that_reaches_its_length(tmp_path):
    run = make_run(tmp_path, settings(total_kimg=16.056))
    assert run.last_nimg == 16056
    assert make_run(tmp_path, settings(total_kimg=16.057)).last_nimg == 16064


def test_a_single_resolution_stays():
    assert [resolution_at(nimg, [64], []) for nimg in (0, 10**9)] == [64, 64]


def test_the_learning_rate_is_constant_then_linear_then_constant():
    factors = [lr_factor(nimg, 10.0, 20.0, 0.2) for nimg in (0, 10_000, 12_500, 15_000, 20_000, 90_000)]
    assert factors == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.2, 0.2])


@pytest.mark.parametrize(("final", "expected"), [(1.0, [1, 1, 1]), (0.0, [1, 0.5, 0])])
def test_a_decay_may_leave_everything_or_nothing(final, expected):
    assert [lr_factor(nimg, 0.0, 8.0, final) for nimg in (0, 4000, 8000)] == expected


def test_the_blur_fades_linearly_to_nothing():
    assert [blur_sigma_at(nimg, 8.0, 2.0) for nimg in (0, 500, 1000, 2000, 5000)] == [8.0, 6.0, 4.0, 0.0, 0.0]


def test_the_published_blur_is_half_of_32_px_after_half_a_million_images():
    assert [blur_sigma_at(nimg, 32.0, 1000.0) for nimg in (0, 500_000, 1_000_000)] == [32.0, 16.0, 0.0]


def test_a_blur_without_a_fade_is_off():
    assert blur_sigma_at(0, 8.0, 0.0) == 0.0
    assert blur_sigma_at(0, 0.0, 8.0) == 0.0


@pytest.mark.parametrize("every_kimg", [0.2, 0.7, 2.4])
def test_passed_counts_every_multiple_once_whatever_the_batch(every_kimg):
    for batch in (8, 24, 96):
        counts = range(batch, 9600 + 1, batch)
        multiples = int(9600 // (every_kimg * 1000))
        assert sum(passed(nimg, batch, every_kimg) for nimg in counts) == multiples


def test_passed_is_true_at_the_multiple_and_not_after_it():
    assert [passed(nimg, 8, 0.016) for nimg in (8, 16, 24, 32)] == [False, True, False, True]
    assert passed(24, 24, 0.016), "a step may cross a multiple without meeting it"
    assert passed(96, 96, 0.016), "several at once are one"


BATCH_SIZES = (8, 16, 24)
CHANGING = {
    "resolutions": [8, 16, 32], "grow_at_kimg": [1.0, 2.0], "blur_sigma": 4.0, "blur_fade_kimg": 3.0,
    "ema_halflife_kimg": 0.05, "network": settings().network.model_copy(update={"channel_base": 1024}),
    "lr_decay": LrDecay(start_kimg=0.5, end_kimg=2.5, final_factor=0.1),
}  # fmt: skip


def read_at(tmp_path, nimg: int, **changes) -> dict[str, float]:
    """What the loop makes of the settings at ``nimg`` images."""
    config = settings(**{**CHANGING, "total_kimg": 9.0, **changes})
    run = make_run(tmp_path, config)
    rates = loop._set_learning_rates(run, nimg, 1.0)
    groups = [run.players.optimizer.param_groups[0], run.players.discriminator_optimizer.param_groups[0]]
    assert [group["lr"] for group in groups] == list(rates.values())
    return rates | {
        "blur": loop._blur_sigma(config, nimg),
        "resolution": resolution_at(nimg, config.resolutions, config.grow_at_kimg),
        "kept after 24 images": loop._ema_decay(config, nimg) ** (24 / config.batch_size),
    }


@pytest.mark.parametrize("nimg", [0, 480, 1440, 2400, 2880, 9600])
def test_no_schedule_depends_on_the_total_length_or_the_batch_size(tmp_path, nimg):
    expected = read_at(tmp_path, nimg)
    for changes in ({"total_kimg": 3.0}, {"total_kimg": 900.0}, *({"batch_size": size} for size in BATCH_SIZES)):
        assert read_at(tmp_path, nimg, **changes) == pytest.approx(expected), changes


def test_the_loop_reads_each_schedule_at_the_images_shown_before_the_step(tmp_path, monkeypatch):
    blurs: dict[int, float] = {}
    ran = loop.training_step

    def keep(players, batch, step: Step, wrong):
        blurs[step.nimg] = step.blur_sigma
        return ran(players, batch, step, wrong)

    monkeypatch.setattr(loop, "training_step", keep)
    config = settings(blur_sigma=2.0, blur_fade_kimg=0.04, log_every_kimg=0.008, grow_at_kimg=[0.024], total_kimg=0.048)
    train(make_run(tmp_path, config))
    assert blurs == {nimg: max(2.0 * (1 - nimg / 40), 0.0) for nimg in range(0, 48, 8)}
    lines = records.read_lines(tmp_path / "live" / records.LOG, LogRecord)
    begun = [round(line.kimg * 1000) - 8 for line in lines]
    assert [line.resolution for line in lines] == [16 if nimg >= 24 else 8 for nimg in begun]
    decays = [0.5 ** (8 / max(min(100, 0.05 * nimg), 1e-8)) for nimg in begun]
    assert [line.terms["ema_decay"] for line in lines] == pytest.approx(decays)
    decay = config.lr_decay
    rates = [0.01 * lr_factor(nimg, decay.start_kimg, decay.end_kimg, decay.final_factor) for nimg in begun]
    assert [line.terms["generator_lr"] for line in lines] == pytest.approx(rates)


def test_the_average_keeps_of_each_step_what_the_schedule_says(tmp_path):
    config = settings(total_kimg=0.008, ema_rampup=0.0, resolutions=[8], grow_at_kimg=[])
    run = make_run(tmp_path, config)
    before = copy.deepcopy(run.players.averaged)
    train(run)
    assert before is not None and run.players.averaged is not None
    decay = ema_decay(8, 100, 0, None)
    assert decay == 0.5 ** (8 / 100)
    parts = (before, run.players.generator, run.players.averaged)
    for old, new, mean in zip(*(part.parameters() for part in parts), strict=True):
        torch.testing.assert_close(mean, decay * old + (1 - decay) * new)


def test_without_a_ramp_the_half_life_is_the_same_from_the_start():
    assert {loop._ema_decay(settings(ema_rampup=0.0), nimg) for nimg in (0, 8, 10**6)} == {0.5 ** (8 / 100)}


def test_pictures_are_reduced_to_the_resolution_that_is_trained(tmp_path, monkeypatch):
    seen: list[int] = []
    look = steps.look
    monkeypatch.setattr(steps, "look", lambda p, i, *rest: (seen.append(i.shape[-1]), look(p, i, *rest))[1])
    train(make_run(tmp_path, settings(total_kimg=0.032, grow_at_kimg=[0.016])))
    assert next(fetch(0)).images.shape[-1] == 16
    assert seen == [8] * 6 + [16] * 6
