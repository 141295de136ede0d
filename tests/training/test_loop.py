"""The loop: what trains, what stays, and that an interrupted run ends like an unbroken one."""

import copy
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from stylegan_t import records
from stylegan_t.errors import Stopped
from stylegan_t.records import LogRecord, RunRecord, SampleSheet
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.distributed import World
from stylegan_t.training.live import LiveFolder
from stylegan_t.training.loop import Run, train
from stylegan_t.training.players import Players
from tests.training.players import fetch, make_players, settings, stage_two_settings


def make_run(folder: Path, config, players: Players | None = None, **changes) -> Run:
    prompts = ["a red picture", "a blue picture"]
    values = dict(
        record=RunRecord(stage="test", digest="d", started="", total_kimg=0.08, settings={}, finished=False),
        settings=config, seed=3, world=World(torch.device("cpu")), players=players or make_players(config), fetch=fetch,
        wrong_captions=None, state_folder=folder, live=LiveFolder(folder / "live", prompts, [0, 1]),
        prompt_c=next(fetch(0)).c[:2],
    )  # fmt: skip
    return Run(**values | changes)


def weights(players: Players) -> dict[str, torch.Tensor]:
    state = players.state_dict()
    parts = {"trained": state["trained"], "averaged": state["averaged"] or {}, "heads": state["heads"]}
    return {f"{part}.{name}": value.clone() for part, tensors in parts.items() for name, value in tensors.items()}


def files(folder: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: what goes to the outputs."""
    output = folder / "output"
    output.mkdir(exist_ok=True)
    LiveFolder(folder / "live", [], []).copy_to(output)
    return {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[Path, Players]:
    folder, config = tmp_path_factory.mktemp("unbroken"), settings()
    run = make_run(folder, config)
    assert train(run) == 80
    return folder, run.players


class Killed(Exception):
    """Stands for kill -9: nothing is saved on the way out."""


@pytest.mark.parametrize("at", [24, 32, 56])
def test_a_killed_run_ends_like_an_unbroken_one(unbroken, tmp_path, at):
    def fetch_until_killed(nimg):
        for i, batch in enumerate(fetch(nimg)):
            if nimg + 8 * i >= at + 8:
                raise Killed
            yield batch

    with pytest.raises(Killed):
        train(make_run(tmp_path, settings(), fetch=fetch_until_killed))
    run = make_run(tmp_path, settings(), make_players(settings(), seed=99))  # the state replaces these weights
    # Before the first growing step there is a state at 24 images; after it, the state brings the larger networks.
    train(run)
    expected, found = weights(unbroken[1]), weights(run.players)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert files(unbroken[0]) == files(tmp_path)


def test_sigterm_saves_and_stops_to_be_resumed(unbroken, tmp_path):
    def fetch_and_ask(nimg):
        for i, batch in enumerate(fetch(nimg)):
            if i == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.raises(Stopped, match=r"0\.040 kimg"):
        train(make_run(tmp_path, settings(), fetch=fetch_and_ask))
    run = make_run(tmp_path, settings(), make_players(settings(), seed=99))
    train(run)
    assert all(torch.equal(value, weights(run.players)[name]) for name, value in weights(unbroken[1]).items())
    record = records.read_record(tmp_path / "live" / records.RUN, RunRecord)
    assert record is not None
    assert (record.resumed, record.finished) == ([0.04], True)


def test_stage_one_moves_every_part_old_and_new(unbroken):
    start, end = make_players(settings()), unbroken[1]
    assert end.generator.resolution == 16
    before = start.generator.state_dict()
    still = [n for n, p in end.generator.named_parameters() if n in before and torch.equal(p, before[n])]
    assert still == []
    to_rgb = end.generator.synthesis.blocks["16"].to_rgb
    assert to_rgb.weight.abs().max() > 0  # it began at zero
    heads = start.discriminator.heads.state_dict()
    assert all(not torch.equal(v, heads[n]) for n, v in end.discriminator.heads.state_dict().items())


def test_the_average_lags_behind_the_generator(unbroken):
    players = unbroken[1]
    assert players.averaged is not None
    live, mean = (dict(m.named_parameters())["synthesis.input.weight"] for m in (players.generator, players.averaged))
    assert not torch.equal(live, mean)
    assert torch.equal(players.generator.mapping.w_avg, players.averaged.mapping.w_avg)


def test_growing_keeps_what_adam_knows(unbroken):
    players = make_players(settings())
    for name, parameter in players.generator.named_parameters():
        parameter.grad = torch.full_like(parameter, float(len(name)))
    players.optimizer.step()
    players.resize(16)
    for name, parameter in players.generator.named_parameters():
        state = players.optimizer.state[parameter]
        is_new = "blocks.16" in name
        assert bool(state) != is_new
        if not is_new:
            torch.testing.assert_close(state["exp_avg_sq"], torch.full_like(parameter, 0.01 * len(name) ** 2))


def test_new_layers_start_alike_in_the_generator_and_its_average():
    players = make_players(settings())
    with torch.no_grad():
        players.generator.mapping.fc0.weight.add_(1)
    players.resize(16)
    assert players.averaged is not None
    for (name, live), mean in zip(players.generator.named_parameters(), players.averaged.parameters(), strict=True):
        assert torch.equal(live, mean) == (name != "mapping.fc0.weight"), name


def test_stage_two_trains_the_text_encoder_and_nothing_of_the_generator(tmp_path):
    config = stage_two_settings()
    players = make_players(config)
    generator = copy.deepcopy(players.generator).state_dict()
    text, heads = (copy.deepcopy(m).state_dict() for m in (players.text_encoder, players.discriminator.heads))
    train(make_run(tmp_path, config, players))
    assert all(torch.equal(value, players.generator.state_dict()[name]) for name, value in generator.items())
    assert isinstance(players.text_encoder, nn.Module)
    moved = [n for n, v in players.text_encoder.named_parameters() if not torch.equal(v, text[n])]
    assert len(moved) == len(list(players.text_encoder.parameters()))
    assert any(not torch.equal(v, heads[n]) for n, v in players.discriminator.heads.state_dict().items())


def test_frozen_layers_stay_bit_for_bit_while_new_ones_move(tmp_path):
    config = settings(resolutions=[16], grow_at_kimg=[])
    players = make_players(config)
    old = {name: value.clone() for name, value in players.generator.state_dict().items()}
    players.frozen = frozenset(name for name, _ in players.generator.named_parameters())
    players.resize(16)
    train(make_run(tmp_path, config, players))
    for name, value in players.generator.state_dict().items():
        if name in old:
            assert torch.equal(value, old[name]), name
    assert players.generator.synthesis.blocks["16"].to_rgb.weight.abs().max() > 0


@pytest.mark.parametrize(
    "change",
    [
        {"share_fakes": True},
        {"wrong_caption_weight": 0.5},
        {"range_penalty_weight": 5.0},
        {"clip_guidance_weight": 3.0},
        {"augment": ["brightness", "saturation", "contrast"]},
        {"spatial_noise": False},
        {"blur_sigma": 2.0, "blur_fade_kimg": 1.0},
        {"generator_lr": 0.02},
        {"discriminator_lr": 0.02},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_changes_the_training(unbroken, tmp_path, change):
    inner = {name: value for name, value in change.items() if name in type(settings().deviations).model_fields}
    outer = {name: value for name, value in change.items() if name not in inner}
    config = settings(deviations=settings().deviations.model_copy(update=inner), **outer)
    wrong = (
        WrongCaptions(next(fetch(0)).captions, next(fetch(0)).c, p_hard=0.5)
        if config.deviations.wrong_caption_weight
        else None
    )
    train(make_run(tmp_path, config.model_copy(update={"total_kimg": 0.016}), wrong_captions=wrong))
    assert files(tmp_path)[records.LOG] not in files(unbroken[0])[records.LOG]


def test_learning_rates_follow_their_schedule(unbroken):
    lines = records.read_lines(unbroken[0] / "live" / records.LOG, LogRecord)
    # A line's rate is that of its last step, which began 8 images earlier.
    expected = [0.01 * (1 - 0.5 * (line.kimg - 0.008) / 0.08) for line in lines]
    assert [line.terms["generator_lr"] for line in lines] == pytest.approx(expected)
    assert [line.terms["discriminator_lr"] for line in lines] == pytest.approx(expected)


def test_the_sample_sheet_tells_the_growth(unbroken):
    sheet = records.read_record(unbroken[0] / "live" / records.SAMPLES, SampleSheet)
    assert sheet is not None
    assert [(g.kimg, g.resolution) for g in sheet.grids] == [(0.0, 8), (0.032, 8), (0.032, 16), (0.04, 16), (0.08, 16)]
    assert all((unbroken[0] / "live" / g.file).is_file() for g in sheet.grids)
