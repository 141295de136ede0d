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
        first = config.train_generator.resolutions[0]
        generator = resized(start.generator, first) if start else _new_generator(config, clip.embed_dim)
        players = stage.generator_players(generator, clip, discriminator)
        nimg = stage.train(players, resume, wandb_project, start_px=start.generator.resolution if start else None)
        stage.write(players, clip.text, nimg)


def _new_generator(config: Config, c_dim: int) -> Generator:
    settings = config.train_generator
    return Generator(
        resolution=settings.resolutions[0],
        z_dim=settings.network.z_dim,
        c_dim=c_dim,
        channel_base=settings.network.channel_base,
        channel_max=settings.network.channel_max,
        num_res_blocks=settings.network.num_res_blocks,
    )
