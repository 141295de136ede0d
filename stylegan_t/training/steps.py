"""One update of the discriminator and one of the generator (or of the text encoder that feeds it)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stylegan_t.data.loader import Batch
from stylegan_t.losses import clip_guidance, hinge_fake, hinge_generator, hinge_real, range_penalty
from stylegan_t.models.augment import NUM_DRAWS, crop_origin, diff_augment
from stylegan_t.models.ops import blur
from stylegan_t.models.vit import Tokens
from stylegan_t.randomness import derive_seed, draw_latents, draw_spatial_noise, draw_uniform, image_seeds
from stylegan_t.settings.training import AdversarialTraining
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.players import Players

GUIDANCE_CROP_PX = 64
P_CROP = 0.5
"""Chance that the discriminator sees a crop, where images are larger than its ViT's input."""


@dataclass(frozen=True)
class View:
    """What the discriminator's frozen ViT sees of some images: its tokens, and the image embedding if asked for."""

    tokens: Tokens
    embedding: Float[Tensor, "n e"] | None

    def detached(self) -> View:
        return View([t.detach() for t in self.tokens], None)


@dataclass(frozen=True)
class Step:
    """The settings and the random draws of one optimiser step, which begins when ``nimg`` images have been shown."""

    settings: AdversarialTraining
    seed: int
    nimg: int
    blur_sigma: float
    device: torch.device

    def seeds(self, purpose: str) -> list[int]:
        return image_seeds(self.seed, purpose, self.nimg, self.settings.batch_size)

    def uniform(self, purpose: str, count: int) -> Float[Tensor, "n count"]:
        return draw_uniform(self.seeds(purpose), count).to(self.device)

    def once(self, purpose: str, count: int) -> Float[Tensor, " count"]:
        """Uniform numbers that all images of the step share."""
        return draw_uniform([derive_seed(self.seed, purpose, self.nimg)], count)[0]


def training_step(players: Players, batch: Batch, step: Step, wrong: WrongCaptions | None) -> dict[str, Tensor]:
    """Update the discriminator, then the generator's side; the losses by name, as detached scalars.

    The discriminator and the guidance read the shards' ``c``, the original encoder's, whatever feeds the generator.
    """
    deviations = step.settings.deviations
    c = batch.c.to(step.device)
    reals = to_resolution(batch.images, players.generator.resolution, step.device)
    wrong_c = wrong.draw(batch.captions, c, step.uniform("wrong captions", 2)) if wrong else None

    with torch.set_grad_enabled(deviations.share_fakes):
        fakes = paint(players, batch, step, "fakes")
        seen_fakes = look(players, fakes, step, "fakes")
    with torch.no_grad():
        seen_reals = look(players, reals, step, "reals")
    losses = update_discriminator(players, seen_fakes.detached(), seen_reals, c, wrong_c, step)

    if not deviations.share_fakes:
        fakes = paint(players, batch, step, "generator's fakes")
        seen_fakes = look(players, fakes, step, "generator's fakes")
    return losses | update_generator(players, fakes, seen_fakes, c, step)


def to_resolution(images: Tensor, resolution: int, device: torch.device) -> Float[Tensor, "n 3 resolution resolution"]:
    """Float images in [-1, 1] at the resolution that is trained, larger ones reduced by area."""
    reals = images.to(device, torch.float32) / 127.5 - 1
    return reals if reals.shape[-1] == resolution else F.interpolate(reals, size=resolution, mode="area")


def paint(players: Players, batch: Batch, step: Step, purpose: str) -> Float[Tensor, "n 3 h w"]:
    """A fake for each caption of the batch."""
    seeds = step.seeds(purpose)
    z = draw_latents(seeds, players.generator.z_dim).to(step.device)
    c = players.condition(batch.captions, batch.c.to(step.device))
    if not step.settings.spatial_noise:
        return players.paint(z, c, "none")
    noise = draw_spatial_noise(seeds, players.generator.synthesis.noise_shapes)
    return players.paint(z, c, [n.to(step.device) for n in noise])


def look(players: Players, images: Float[Tensor, "n 3 h w"], step: Step, purpose: str) -> View:
    """Blur, augment and pass images through the discriminator's ViT."""
    images = blur(images, step.blur_sigma)
    if step.settings.augment:
        images = diff_augment(images, step.uniform(f"augment {purpose}", NUM_DRAWS), step.settings.augment)
    vit = players.discriminator.vit
    if images.shape[-1] > vit.input_px:
        draws = step.once(f"crop {purpose}", 3)
        if draws[0] < P_CROP:
            images = crop(images, vit.input_px, draws[1:])
    return View(*vit(images, with_embedding=step.settings.deviations.share_vit_pass))


def crop(images: Float[Tensor, "n 3 h w"], px: int, draws: Float[Tensor, " 2"]) -> Float[Tensor, "n 3 px px"]:
    """The same square of ``px`` from all images; uniform ``draws`` (down, right) pick one of its places."""
    top, left = crop_origin(images.shape[-1], px, draws)
    return images[:, :, top : top + px, left : left + px]


def update_discriminator(
    players: Players,
    fakes: View,
    reals: View,
    c: Float[Tensor, "n c_dim"],
    wrong_c: Float[Tensor, "n c_dim"] | None,
    step: Step,
) -> dict[str, Tensor]:
    """One step of the heads on the hinge loss of reals and fakes (and of reals under a wrong caption)."""
    players.discriminator.heads.requires_grad_(True)
    logits_fake = players.discriminator.judge(fakes.tokens, c)
    logits_real = players.discriminator.judge(reals.tokens, c)
    losses = {"d_fake": hinge_fake(logits_fake), "d_real": hinge_real(logits_real)}
    loss = losses["d_fake"] + losses["d_real"]
    if wrong_c is not None:
        losses["d_wrong_caption"] = hinge_fake(players.discriminator.judge(reals.tokens, wrong_c))
        loss = loss + step.settings.deviations.wrong_caption_weight * losses["d_wrong_caption"]
    players.discriminator_optimizer.zero_grad()
    loss.backward()
    players.discriminator_optimizer.step()
    losses |= {"logits_fake": logits_fake.mean(), "logits_real": logits_real.mean()}
    return {name: value.detach() for name, value in losses.items()}


def update_generator(
    players: Players, fakes: Float[Tensor, "n 3 h w"], seen: View, c: Float[Tensor, "n c_dim"], step: Step
) -> dict[str, Tensor]:
    """One step of whatever is trained on the generator's side: adversarial loss and CLIP guidance."""
    settings = step.settings
    players.discriminator.heads.requires_grad_(False)
    losses = {"g_adversarial": hinge_generator(players.discriminator.judge(seen.tokens, c))}
    loss = losses["g_adversarial"]
    if settings.clip_guidance_weight:
        losses["clip_guidance"] = guidance(players, fakes, seen, c, step)
        loss = loss + settings.clip_guidance_weight * losses["clip_guidance"]
    if settings.deviations.range_penalty_weight:
        losses["range_penalty"] = range_penalty(fakes)
        loss = loss + settings.deviations.range_penalty_weight * losses["range_penalty"]
    players.optimizer.zero_grad()
    loss.backward()
    players.optimizer.step()
    return {name: value.detach() for name, value in losses.items()}


def guidance(
    players: Players, fakes: Float[Tensor, "n 3 h w"], seen: View, c: Float[Tensor, "n c_dim"], step: Step
) -> Float[Tensor, ""]:
    """Squared spherical distance of fakes and captions in CLIP's space, on one random crop above 64 px."""
    if seen.embedding is not None:
        return clip_guidance(F.normalize(seen.embedding, dim=1), c)
    assert players.guide is not None
    if fakes.shape[-1] > GUIDANCE_CROP_PX:
        fakes = crop(fakes, GUIDANCE_CROP_PX, step.once("guidance crop", 2))
    return clip_guidance(players.guide.encode_image(fakes), c)
