"""Stage one: generator and discriminator, growing from the first resolution to the last."""

from __future__ import annotations

from stylegan_t.config import Config
from stylegan_t.device import pick_device
from stylegan_t.models.generator import Generator, resized
from stylegan_t.stages.adversarial import training_stage
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.distributed import join_world
from stylegan_t.training.loop import Resume

NAME = "train_generator"


def run(
    config: Config, workspace: Workspace, device: str, *, resume: Resume = "auto", wandb_project: str | None = None
) -> None:
    """Train a generator; all layers stay trainable while it grows (Sauer et al. 2023, section 4)."""
    with join_world(pick_device(device)) as world, training_stage(NAME, config, workspace, world, None) as stage:
        clip, discriminator = stage.load_players()
        start = stage.load_start(clip, discriminator)
        network, first = config.train_generator.network, config.train_generator.resolutions[0]
        if start:
            generator = resized(start.generator, first)
        else:
            generator = Generator(resolution=first, c_dim=clip.embed_dim, **network.of_generator())
        players = stage.generator_players(generator, clip, discriminator)
        nimg = stage.train(players, resume, wandb_project, start_px=start.generator.resolution if start else None)
        stage.write(players, clip.text, nimg)
