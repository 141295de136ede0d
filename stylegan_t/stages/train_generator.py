"""Stage one: generator and discriminator, growing from the first resolution to the last."""

from __future__ import annotations

import copy

import torch

from stylegan_t.config import Config
from stylegan_t.models.generator import Generator
from stylegan_t.randomness import derive_seed
from stylegan_t.stages.adversarial import TrainingStage
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.players import Players, adam, trainable

NAME = "train_generator"


def run(config: Config, workspace: Workspace, device: str) -> None:
    """Train a generator from nothing; all layers stay trainable while it grows (Sauer et al. 2023, section 4)."""
    settings = config.train_generator
    stage = TrainingStage(NAME, config, workspace, device, upstream=None)
    torch.manual_seed(derive_seed(config.seed, NAME))
    clip, discriminator = stage.load_players()
    generator = Generator(
        resolution=settings.resolutions[0],
        z_dim=settings.network.z_dim,
        c_dim=clip.embed_dim,
        channel_base=settings.network.channel_base,
        channel_max=settings.network.channel_max,
        num_res_blocks=settings.network.num_res_blocks,
    ).to(stage.device)
    players = Players(
        generator=generator,
        averaged=copy.deepcopy(generator).requires_grad_(False),
        text_encoder=None,
        discriminator=discriminator,
        guide=stage.guide(clip),
        frozen=frozenset(),
        optimizer=adam(trainable(generator), settings.generator_lr),
        discriminator_optimizer=adam(trainable(discriminator.heads), settings.discriminator_lr),
    )
    nimg = stage.train(players)
    stage.write(players, clip.text, nimg)
