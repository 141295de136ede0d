"""What the frozen networks see of an image: the discriminator's ViT, and the CLIP that guides."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stylegan_t.losses import clip_guidance
from stylegan_t.models.augment import NUM_DRAWS, crop_origin, diff_augment
from stylegan_t.models.ops import blur
from stylegan_t.models.vit import Tokens
from stylegan_t.training.microbatch import Microbatch
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


def look(players: Players, images: Float[Tensor, "n 3 h w"], part: Microbatch, purpose: str) -> View:
    """Blur, augment and pass images through the discriminator's ViT."""
    step = part.step
    images = blur(images, step.blur_sigma)
    if step.settings.augment:
        images = diff_augment(images, part.uniform(f"augment {purpose}", NUM_DRAWS), step.settings.augment)
    vit = players.discriminator.vit
    if images.shape[-1] > vit.input_px:
        draws = step.once(f"crop {purpose}", 3)
        if draws[0] < P_CROP:
            images = crop(images, vit.input_px, draws[1:])
    with step.precision():
        return View(*vit(images, with_embedding=step.settings.deviations.share_vit_pass))


def crop(images: Float[Tensor, "n 3 h w"], px: int, draws: Float[Tensor, " 2"]) -> Float[Tensor, "n 3 px px"]:
    """The same square of ``px`` from all images; uniform ``draws`` (down, right) pick one of its places."""
    top, left = crop_origin(images.shape[-1], px, draws)
    return images[:, :, top : top + px, left : left + px]


def guidance(players: Players, fakes: Float[Tensor, "n 3 h w"], seen: View, part: Microbatch) -> Float[Tensor, ""]:
    """Squared spherical distance of fakes and captions in CLIP's space, on one random crop above 64 px."""
    if seen.embedding is not None:
        return clip_guidance(F.normalize(seen.embedding, dim=1), part.c)
    assert players.guide is not None
    if fakes.shape[-1] > GUIDANCE_CROP_PX:
        fakes = crop(fakes, GUIDANCE_CROP_PX, part.step.once("guidance crop", 2))
    with part.step.precision():
        embedding = players.guide.encode_image(fakes)
    return clip_guidance(embedding, part.c)
