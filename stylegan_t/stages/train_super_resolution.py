"""Super-resolution: new synthesis layers up to the final resolution, fed by the tuned text encoder."""

from __future__ import annotations

import torch

from stylegan_t.config import Config
from stylegan_t.device import pick_device
from stylegan_t.errors import SettingsError
from stylegan_t.models.generator import resized
from stylegan_t.randomness import derive_seed
from stylegan_t.stages.adversarial import training_stage
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.distributed import join_world
from stylegan_t.training.loop import Resume

NAME = "train_super_resolution"


def run(
    config: Config, workspace: Workspace, device: str, *, resume: Resume = "auto", wandb_project: str | None = None
) -> None:
    """Grow stage two's model; discriminator and guidance read the original text embeddings, the generator the tuned."""
    settings = config.train_super_resolution
    with (
        join_world(pick_device(device)) as world,
        training_stage(NAME, config, workspace, world, "finetune_text_encoder") as stage,
    ):
        clip, discriminator = stage.load_players()
        start = stage.load_start(clip, discriminator)
        assert start is not None
        text_encoder = (start.text_encoder or clip.text).requires_grad_(False).to(world.device)
        frozen = frozenset[str]()
        if settings.trainable == "new_layers":
            if start.generator.resolution >= settings.resolutions[0]:
                raise SettingsError(
                    f"{NAME}.trainable = new_layers: the model to start from paints {start.generator.resolution} px "
                    f"already, so {settings.resolutions[0]} px adds no layers; use trainable: all"
                )
            frozen = frozenset(name for name, _ in start.generator.named_parameters())
        torch.manual_seed(derive_seed(config.seed, NAME))
        generator = resized(start.generator, settings.resolutions[0])
        players = stage.generator_players(generator, clip, discriminator, frozen)
        start_px = start.generator.resolution
        nimg = stage.train(players, resume, wandb_project, tuned=text_encoder, start_px=start_px)
        stage.write(players, text_encoder, nimg)
