"""The networks of a training as its stage would build them, with random weights or with none at all."""

from __future__ import annotations

import copy

import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer as OpenClipViT
from torch import nn

from stylegan_t.data.loader import Batch
from stylegan_t.data.shapes import TEMPLATES, caption, combinations
from stylegan_t.ema import update_ema
from stylegan_t.errors import SettingsError
from stylegan_t.estimate.plan import Plan
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoder_files import new_timm
from stylegan_t.models.encoders import OPENAI_MEAN, OPENAI_STD, Clip, TextEncoder, clip_from_spec, open_clip_spec
from stylegan_t.models.generator import Generator
from stylegan_t.models.vit import OpenClipFrozenViT, TimmFrozenViT
from stylegan_t.sampling import sample
from stylegan_t.settings.encoders import TimmViT, TrainedClip
from stylegan_t.settings.training import Compute, GeneratorTraining, TrainSuperResolution
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.clip import new_clip
from stylegan_t.training.distributed import World
from stylegan_t.training.microbatch import Step
from stylegan_t.training.players import Players
from stylegan_t.training.steps import training_step

SAMPLE_GRID = 48
"""Pictures of a sample grid: as many as the training stages show (8 prompts, 6 seeds)."""
STAND_IN = "a picture of something, told in about as many words as people use"


class Networks(nn.Module):
    """All networks that a training keeps on its device.

    Args:
        clip: Conditions and guides; frozen, its text tower too.
        discriminator: On its frozen ViT.
        generator: As the stage begins to train (or freezes) it.
        averaged: Its running average; None where the generator is frozen.
        text_encoder: The tuned one, trained (stage two) or used for its stored embeddings (super-resolution).
        frozen: Names of generator parameters that keep their values.
    """

    def __init__(
        self,
        clip: Clip,
        discriminator: Discriminator,
        generator: Generator,
        averaged: Generator | None,
        text_encoder: TextEncoder | None,
        frozen: frozenset[str],
    ) -> None:
        super().__init__()
        self.clip, self.discriminator, self.generator = clip, discriminator, generator
        self.averaged, self.text_encoder, self.frozen = averaged, text_encoder, frozen


def build_networks(plan: Plan) -> Networks:
    """The networks at their random start, on torch's default device.

    Raises:
        SettingsError: The settings name a model that does not exist, or that cannot be built here.
    """
    clip = _clip(plan).requires_grad_(False).eval()
    switch = plan.config.train_generator.network.local_batch_norm
    discriminator = Discriminator(_vit(plan, clip), clip.embed_dim, local_batch_norm=switch)
    generator = _generator(plan, plan.resolution, clip.embed_dim)
    averaged = text_encoder = None
    frozen = frozenset[str]()
    if isinstance(plan.settings, GeneratorTraining):
        averaged = copy.deepcopy(generator).requires_grad_(False)
    else:
        generator.requires_grad_(False)
        text_encoder = copy.deepcopy(clip.text).train()
    if isinstance(plan.settings, TrainSuperResolution):
        text_encoder = copy.deepcopy(clip.text)
        if plan.settings.trainable == "new_layers":
            below = _generator(plan, plan.config.train_generator.resolutions[-1], clip.embed_dim)
            frozen = frozenset(name for name, _ in below.named_parameters())
    return Networks(clip, discriminator, generator, averaged, text_encoder, frozen)


def make_players(plan: Plan, networks: Networks, compute: Compute) -> Players:
    """The players of the plan's stage, with their optimisers."""
    trains_text = networks.averaged is None
    return Players(
        generator=networks.generator,
        averaged=networks.averaged,
        text_encoder=networks.text_encoder if trains_text else None,
        discriminator=networks.discriminator,
        guide=None if plan.settings.deviations.share_vit_pass else networks.clip,
        frozen=networks.frozen,
        compute=compute,
    )


def captions_of(plan: Plan) -> list[str]:
    """Captions as the data will have them where it is drawn, else one of usual length."""
    if plan.config.download.source.kind == "shapes":
        return [caption(combination, i) for combination in combinations() for i in range(len(TEMPLATES))]
    return [STAND_IN]


class Rehearsal:
    """Steps of a training, by its own code, on random pictures and embeddings.

    Args:
        world: Where, and how many take part.
    """

    def __init__(self, plan: Plan, players: Players, c_dim: int, world: World) -> None:
        self.plan, self.players, self.world, self.c_dim = plan, players, world, c_dim
        self.captions = captions_of(plan)
        self.image_px = max(plan.resolution, plan.config.filter.image_px)
        self.wrong = None
        deviations = plan.settings.deviations
        if deviations.wrong_caption_weight:
            pool = self.captions[:256]
            self.wrong = WrongCaptions(pool, self._embeddings(len(pool)).to(world.device), deviations.p_hard_caption)

    @property
    def bytes_per_image(self) -> int:
        """Of a real image as stored, with its embedding: a batch waits on the device as a whole."""
        return 3 * self.image_px**2 + 4 * self.c_dim

    def step(self, number: int) -> None:
        """One training step and a move of the average, as in the loop."""
        settings, players = self.plan.settings, self.players
        count, px = self.plan.share, self.image_px
        batch = Batch(
            images=torch.randint(0, 256, (count, 3, px, px), dtype=torch.uint8),
            c=self._embeddings(count),
            captions=[self.captions[i % len(self.captions)] for i in range(count)],
        )
        blur_sigma = settings.blur_sigma if isinstance(settings, GeneratorTraining) else 0.0
        nimg = number * settings.batch_size
        training_step(players, batch, Step(settings, self.plan.config.seed, nimg, blur_sigma, self.world), self.wrong)
        if players.averaged is not None:
            update_ema(players.averaged, players.generator, 0.5)

    def show(self) -> None:
        """A sample grid, as the loop draws one."""
        generator = self.players.averaged if self.players.averaged is not None else self.players.generator
        seeds = list(range(SAMPLE_GRID))
        sample(generator, self._embeddings(SAMPLE_GRID), seeds, batch_size=self.plan.microbatch_size)

    def _embeddings(self, count: int) -> torch.Tensor:
        return F.normalize(torch.randn(count, self.c_dim), dim=1)


def _generator(plan: Plan, resolution: int, c_dim: int) -> Generator:
    network = plan.config.train_generator.network
    return Generator(resolution=resolution, c_dim=c_dim, **network.of_generator()).train()


def _clip(plan: Plan) -> Clip:
    settings = plan.config.fetch_encoders.clip
    if isinstance(settings, TrainedClip):
        return new_clip(settings, captions_of(plan))
    model_cfg = open_clip.get_model_config(settings.model)
    if model_cfg is None:
        raise SettingsError(
            f"fetch_encoders.clip.model = {settings.model!r}: open_clip does not know it; see open_clip.list_models()"
        )
    size = model_cfg["vision_cfg"].get("image_size", 224)
    try:
        return clip_from_spec({"kind": "open_clip", **open_clip_spec(model_cfg, size, OPENAI_MEAN, OPENAI_STD)})
    except ValueError as error:
        raise SettingsError(f"fetch_encoders.clip.model = {settings.model!r}: {error}") from None


def _vit(plan: Plan, clip: Clip) -> TimmFrozenViT | OpenClipFrozenViT:
    settings = plan.config.fetch_encoders.discriminator_vit
    if isinstance(settings, TimmViT):
        cfg = timm.get_pretrained_cfg(settings.model) if timm.is_model(settings.model) else None
        if cfg is None:
            raise SettingsError(
                f"fetch_encoders.discriminator_vit.model = {settings.model!r}: timm does not know it; "
                "see timm.list_models('vit_*')"
            )
        net, mean, std = new_timm(settings.model, cfg.input_size[-1]), cfg.mean, cfg.std
    else:
        net, mean, std = copy.deepcopy(clip.image), clip.mean, clip.std  # loaded once more from its file
    wrapper = OpenClipFrozenViT if isinstance(net, OpenClipViT) else TimmFrozenViT
    try:
        return wrapper(net, hooks=settings.hooks, mean=mean, std=std)  # pyright: ignore[reportArgumentType]
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"fetch_encoders.discriminator_vit: {error}") from None
