"""Stage two: the text encoder learns to speak to the frozen generator."""

from __future__ import annotations

import copy

from stylegan_t.config import Config
from stylegan_t.models.bundle import load_bundle, load_discriminator_state
from stylegan_t.stages.adversarial import TrainingStage
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.players import Players, adam, trainable

NAME = "finetune_text_encoder"


def run(config: Config, workspace: Workspace, device: str) -> None:
    """Train a copy of the text encoder; discriminator and guidance keep the original's embeddings.

    Sauer et al. 2023, section 3.3: the stronger guidance here costs no image quality, as the generator is frozen.
    """
    settings = config.finetune_text_encoder
    stage = TrainingStage(NAME, config, workspace, device, upstream="train_generator")
    upstream = workspace.artifacts("train_generator")
    bundle = load_bundle(upstream)
    clip, discriminator = stage.load_players()
    discriminator.load_trainable_state(load_discriminator_state(upstream))
    text_encoder = copy.deepcopy(bundle.text_encoder).to(stage.device)
    generator = bundle.generator.requires_grad_(False).to(stage.device)
    players = Players(
        generator=generator,
        averaged=None,
        text_encoder=text_encoder,
        discriminator=discriminator,
        guide=stage.guide(clip),
        frozen=frozenset(name for name, _ in generator.named_parameters()),
        optimizer=adam(trainable(text_encoder), settings.text_encoder_lr),
        discriminator_optimizer=adam(trainable(discriminator.heads), settings.discriminator_lr),
    )
    nimg = stage.train(players)
    stage.write(players, text_encoder, nimg)
