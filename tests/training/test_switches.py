"""Training with one of the paper's redesigns switched off: all that can learn does, whatever the micro-batch."""

import copy

import pytest
import torch

from stylegan_t.randomness import draw_latents, image_seeds
from stylegan_t.settings.training import Network
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.distributed import World
from stylegan_t.training.microbatch import Step
from stylegan_t.training.players import Players
from stylegan_t.training.steps import training_step
from tests.training.players import BATCH, C_DIM, fetch, make_players, settings, stage_two_settings

SWITCHES = ("residual", "second_order_styles", "text_bypass", "local_batch_norm")
SEED = 3


def network(switch: str) -> Network:
    return settings().network.model_copy(update={switch: False})


def after_two_steps(config, switch: str) -> tuple[Players, list[str]]:
    """Players without the redesign, and the names of the parameters that have not moved."""
    players = make_players(config, network=network(switch))
    for group in (*players.optimizer.param_groups, *players.discriminator_optimizer.param_groups):
        group["lr"] = 0.01
    learning = [*players.trained.named_parameters(), *players.discriminator.heads.named_parameters()]
    before = [parameter.detach().clone() for _, parameter in learning]
    deviations = config.deviations.model_copy(
        update={"wrong_caption_weight": 0.5}
    )  # else the logits' bias has no slope
    config = config.model_copy(update={"deviations": deviations})
    for number in range(2):  # what starts at zero lets nothing through at the first
        step = Step(config, SEED, number * BATCH, 0.0, World(torch.device("cpu")))
        batch = next(fetch(step.nimg))
        training_step(players, batch, step, WrongCaptions(batch.captions, batch.c, 0.5))
    return players, [name for (name, after), was in zip(learning, before, strict=True) if after.equal(was)]


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_parameter_of_a_network_without_the_redesign_learns(switch):
    players, unmoved = after_two_steps(settings(), switch)
    assert unmoved == []
    assert players.generator.mapping.w_avg.count_nonzero() == len(players.generator.mapping.w_avg)


@pytest.mark.parametrize("switch", SWITCHES)
def test_in_stage_two_the_text_encoder_learns_from_a_frozen_network_without_the_redesign(switch):
    players, unmoved = after_two_steps(stage_two_settings(), switch)
    assert unmoved == []
    untouched = make_players(stage_two_settings(), network=network(switch)).generator.state_dict()
    assert all(value.equal(untouched[name]) for name, value in players.generator.state_dict().items())


@pytest.mark.parametrize("microbatch_size", [None, 8])
def test_the_mean_latent_follows_the_text_that_feeds_the_generator(microbatch_size):
    deviations = settings().deviations.model_copy(update={"share_fakes": True})
    compute = settings().compute.model_copy(update={"microbatch_size": microbatch_size})
    config = settings(batch_size=16, deviations=deviations, compute=compute)
    players = make_players(config, network=network("text_bypass"))
    mapping = copy.deepcopy(players.generator.mapping)
    batch = next(fetch(0, 16))._replace(generator_c=torch.randn(16, C_DIM))
    training_step(players, batch, Step(config, SEED, 0, 0.0, World(torch.device("cpu"))), None)
    z = draw_latents(image_seeds(SEED, "fakes", 0, 16), mapping.z_dim)
    expected = 0.005 * mapping.latent(z, batch.generator_c).mean(dim=0)
    torch.testing.assert_close(players.generator.mapping.w_avg, expected)
