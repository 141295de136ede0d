"""Super-resolution: new synthesis layers up to the final resolution, fed by the tuned text encoder."""

from __future__ import annotations

import copy

import torch

from stylegan_t.config import Config
from stylegan_t.models.bundle import load_bundle, load_discriminator_state
from stylegan_t.models.generator import grow
from stylegan_t.randomness import derive_seed
from stylegan_t.stages.adversarial import TrainingStage
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.players import Players, adam, trainable

NAME = "train_super_resolution"


def run(config: Config, workspace: Workspace, device: str) -> None:
    """Grow stage two's model; discriminator and guidance read the original text embeddings, the generator the tuned."""
    settings = config.train_super_resolution
    stage = TrainingStage(NAME, config, workspace, device, upstream="finetune_text_encoder")
    upstream = workspace.artifacts("finetune_text_encoder")
    bundle = load_bundle(upstream)
    clip, discriminator = stage.load_players()
    discriminator.load_trainable_state(load_discriminator_state(upstream))
    text_encoder = bundle.text_encoder.requires_grad_(False).to(stage.device)
    torch.manual_seed(derive_seed(config.seed, NAME))
    generator = grow(bundle.generator, settings.resolutions[0]).to(stage.device)
    frozen = frozenset[str]()
    if settings.trainable == "new_layers":
        frozen = frozenset(name for name, _ in bundle.generator.named_parameters())
    players = Players(
        generator=generator,
        averaged=copy.deepcopy(generator).requires_grad_(False),
        text_encoder=text_encoder,
        discriminator=discriminator,
        guide=stage.guide(clip),
        frozen=frozen,
        optimizer=adam(trainable(generator, frozen), settings.generator_lr),
        discriminator_optimizer=adam(trainable(discriminator.heads), settings.discriminator_lr),
    )
    nimg = stage.train(players)
    stage.write(players, text_encoder, nimg)
