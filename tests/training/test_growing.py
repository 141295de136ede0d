"""Growing: the picture right after a switch is the one before it, up-sampled, and training goes on from there."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from stylegan_t import records
from stylegan_t.models.generator import Generator, resized
from stylegan_t.models.ops import upsample2d
from stylegan_t.records import SampleSheet
from stylegan_t.settings.training import TrainSuperResolution
from stylegan_t.training import loop
from stylegan_t.training.loop import train
from stylegan_t.training.players import Players
from tests.training.players import BATCH, C_DIM, make_discriminator, settings
from tests.training.test_loop import make_run

WIDE = {"z_dim": 8, "channel_base": 1024, "channel_max": 32, "num_res_blocks": 1}
STEPS = {"total_kimg": 0.048, "grow_at_kimg": [0.024], "resolutions": [16, 32]}


def super_resolution_settings(**changes: object) -> TrainSuperResolution:
    one = settings()
    shared = {name: getattr(one, name) for name in TrainSuperResolution.model_fields if name != "trainable"}
    return TrainSuperResolution.model_validate({**shared, **STEPS, "trainable": "new_layers", **changes})


def trained_generator(resolution: int) -> Generator:
    """As if trained: whatever starts at zero has moved, the layer noise too."""
    torch.manual_seed(4)
    generator = Generator(resolution=resolution, c_dim=C_DIM, **WIDE)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("layer_scale", "noise_strength", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
        for block in generator.synthesis.blocks.values():
            block.to_rgb.weight.mul_(0.3)  # colours that are mostly in range
    return generator


def players_for(config) -> Players:
    """Stage one from its first resolution, or super-resolution as its stage starts it: grown from 8 px."""
    start = trained_generator(8)
    frozen = frozenset[str]()
    if isinstance(config, TrainSuperResolution):
        frozen = frozenset(n for n, _ in start.named_parameters()) if config.trainable == "new_layers" else frozen
        start = resized(start, config.resolutions[0])
    averaged = copy.deepcopy(start).requires_grad_(False)
    with torch.no_grad():  # an average that lags behind
        for parameter in averaged.synthesis.input.parameters():
            parameter.mul_(0.8)
    return Players(start, averaged, None, make_discriminator(), None, frozen, config.compute)


CASES = {
    "stage one": lambda: settings(**STEPS | {"resolutions": [8, 16, 32], "grow_at_kimg": [0.016, 0.032]}),
    "new layers": super_resolution_settings,
    "all layers": lambda: super_resolution_settings(trainable="all"),
}


class Switch:
    """Both generators just before and just after one growing step, with Adam's numbers by parameter's name."""

    def __init__(self, players: Players, resolution: int) -> None:
        self.before, self.adam_before = self._copies(players)
        Players.resize(players, resolution)
        self.after, self.adam_after = self._copies(players)
        self.frozen = players.frozen

    @staticmethod
    def _copies(players: Players):
        named = dict(players.generator.named_parameters())
        adam = {
            n: copy.deepcopy(players.optimizer.state[p]) for n, p in named.items() if players.optimizer.state.get(p)
        }
        return [copy.deepcopy(each).eval() for each in (players.generator, players.averaged)], adam


class Grown:
    """A training of six steps and its switches."""

    def __init__(self, folder: Path, config) -> None:
        self.folder, self.config = folder, config
        self.switches: list[Switch] = []
        self.shown: list[tuple[float, torch.Tensor]] = []
        self.players = players_for(config)
        self.start = copy.deepcopy(self.players.generator)
        self.players.resize = lambda resolution: self.switches.append(Switch(self.players, resolution))
        run = make_run(
            folder, config, self.players, grown_from_px=8 if isinstance(config, TrainSuperResolution) else None
        )
        show = run.live.show
        run.live.show = lambda images, kimg: (self.shown.append((kimg, images)), show(images, kimg))
        train(run)
        del self.players.resize


@pytest.fixture(scope="module", params=CASES)
def grown(request, tmp_path_factory) -> Grown:
    return Grown(tmp_path_factory.mktemp("grown"), CASES[request.param]())


def paint(generator: Generator, noise: str) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(1)
    z, c = torch.randn(2, 8, generator=drawn), torch.randn(2, C_DIM, generator=drawn)
    with torch.no_grad():
        return generator(z, c, noise=noise)


@pytest.mark.parametrize("noise", ["const", "none"])
def test_the_picture_after_a_switch_is_the_one_before_it_up_sampled(grown, noise):
    assert len(grown.switches) == len(grown.config.grow_at_kimg)
    for switch in grown.switches:
        for before, after in zip(switch.before, switch.after, strict=True):
            assert after.resolution == 2 * before.resolution
            assert torch.equal(paint(after, noise), upsample2d(paint(before, noise)))


def test_generator_and_average_are_two_until_the_switch_and_after_it(grown):
    for switch in grown.switches:
        assert not torch.equal(paint(switch.after[0], "none"), paint(switch.after[1], "none"))


def test_adam_knows_after_a_switch_what_it_knew_before(grown):
    for switch in grown.switches:
        learning = {n for n, _ in switch.before[0].named_parameters()} - switch.frozen
        assert set(switch.adam_before) == set(switch.adam_after) == learning
        for name, numbers in switch.adam_before.items():
            for key, value in numbers.items():
                assert torch.equal(value, switch.adam_after[name][key]), (name, key)


def test_every_layer_that_is_not_frozen_learns_after_the_last_switch(grown):
    last = dict(grown.switches[-1].after[0].named_parameters())
    for name, parameter in grown.players.generator.named_parameters():
        assert torch.equal(parameter, last[name]) == (name in grown.players.frozen), name


def test_frozen_layers_and_their_mean_latent_stay_bit_for_bit(grown):
    start, end = grown.start.state_dict(), grown.players.generator.state_dict()
    kept = {name for name in start if torch.equal(start[name], end[name])}
    constant = {n for n in start if n.endswith(("noise_const", "freqs", "phases"))}
    frozen = grown.players.frozen
    assert kept == constant | frozen | ({"mapping.w_avg"} if frozen else set())
    assert bool(frozen) == (getattr(grown.config, "trainable", "all") == "new_layers")


def test_the_samples_before_and_after_each_switch_are_shown_and_show_the_same(grown):
    starts_grown = isinstance(grown.config, TrainSuperResolution)
    at = [*([0.0] if starts_grown else []), *grown.config.grow_at_kimg]
    shown = [pair for pair in zip(grown.shown, grown.shown[1:], strict=False) if pair[0][0] == pair[1][0]]
    assert [before[0] for before, _ in shown] == at
    for (_, before), (_, after) in shown:
        small, large = (images.float() / 127.5 - 1 for images in (before, after))
        expected = upsample2d(small)
        assert large.shape == expected.shape
        in_range = (upsample2d((small.abs() >= 1).float()) == 0) & (expected.abs() < 1)  # colours that were not cut off
        assert in_range.float().mean() > 0.3
        assert (large - expected)[in_range].abs().max() < 4 / 127.5, "but for rounding to whole levels"
    sheet = records.read_record(grown.folder / "live" / records.SAMPLES, SampleSheet)
    assert sheet is not None
    assert [(grid.kimg, grid.resolution) for grid in sheet.grids] == [(k, i.shape[-1]) for k, i in grown.shown]


def test_growing_by_two_doublings_at_once_leaves_the_picture_too():
    players = players_for(settings())
    before = [paint(each.eval(), "const") for each in (players.generator, players.averaged) if each]
    players.resize(32)
    after = [paint(each.eval(), "const") for each in (players.generator, players.averaged) if each]
    for small, large in zip(before, after, strict=True):
        assert torch.equal(large, upsample2d(upsample2d(small)))


def test_new_layers_follow_from_the_seed_and_the_resolution_alone(tmp_path, monkeypatch):
    made = []
    for name, batch_size in (("a", BATCH), ("b", 2 * BATCH)):
        config = settings(batch_size=batch_size, total_kimg=0.032, grow_at_kimg=[0.016])
        run = make_run(tmp_path / name, config)
        run.players.resize(8)
        monkeypatch.setattr(loop, "_show", lambda *_: torch.rand(3))  # whatever draws from torch's generator
        loop._grow_if_due(run, 16)
        made.append(run.players.generator.state_dict())
    new = [name for name in made[0] if "blocks.16" in name]
    assert new
    assert all(torch.equal(made[0][name], made[1][name]) for name in new)
