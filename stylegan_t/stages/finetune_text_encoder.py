"""Stage two: the text encoder learns to speak to the frozen generator."""

from __future__ import annotations

import copy

from stylegan_t.config import Config
from stylegan_t.device import pick_device
from stylegan_t.errors import SettingsError
from stylegan_t.stages.adversarial import training_stage
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.distributed import join_world
from stylegan_t.training.loop import Resume
from stylegan_t.training.players import Players

NAME = "finetune_text_encoder"


def run(
    config: Config, workspace: Workspace, device: str, *, resume: Resume = "auto", wandb_project: str | None = None
) -> None:
    """Train a copy of the text encoder; discriminator and guidance keep the original's embeddings.

    Sauer et al. 2023, section 3.3: the stronger guidance here costs no image quality, as the generator is frozen.
    """
    with (
        join_world(pick_device(device)) as world,
        training_stage(NAME, config, workspace, world, "train_generator") as stage,
    ):
        clip, discriminator = stage.load_players()
        start = stage.load_start(clip, discriminator)
        assert start is not None
        if start.generator.resolution > config.filter.image_px:
            raise SettingsError(
                f"{stage.start}: its generator paints {start.generator.resolution} px, but the pictures are stored at "
                f"filter.image_px = {config.filter.image_px}; store them at {start.generator.resolution} or more"
            )
        text_encoder = copy.deepcopy(start.text_encoder or clip.text).train().to(world.device)
        players = Players(
            generator=start.generator.requires_grad_(False).to(world.device),
            averaged=None,
            text_encoder=text_encoder,
            discriminator=discriminator,
            guide=stage.guide(clip),
            frozen=frozenset(),
            compute=stage.settings.compute,
        )
        nimg = stage.train(players, resume, wandb_project)
        stage.write(players, text_encoder, nimg)
