"""One update of the discriminator and one of the generator (or of the text encoder that feeds it).

Each phase (the discriminator's on fakes, on reals, on wrong captions, and the generator's) is one forward pass of the
global batch, worked through in micro-batches on every process; what happens once per forward pass (a power iteration,
a move of the mean latent) happens once per phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from stylegan_t.data.loader import Batch
from stylegan_t.losses import hinge_fake, hinge_generator, hinge_real, range_penalty
from stylegan_t.models.discriminator import Estimates
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.distributed import World
from stylegan_t.training.microbatch import Microbatch, Step, split
from stylegan_t.training.monitors import gradient_norm, logit_signs, relative_diversity
from stylegan_t.training.players import Players
from stylegan_t.training.views import View, guidance, look

Terms = dict[str, Tensor]
"""Named scalars, detached: this process's part of means over the global batch."""


@dataclass(frozen=True)
class Fakes:
    """Painted images and what the discriminator's ViT sees of them."""

    images: Float[Tensor, "n 3 h w"]
    view: View


def training_step(players: Players, batch: Batch, step: Step, wrong: WrongCaptions | None) -> Terms:
    """Update the discriminator, then the generator's side; the losses and monitors of this step.

    The discriminator and the guidance read the shards' ``c``, the original encoder's, whatever feeds the generator.

    Args:
        batch: This process's images of the global batch.
    """
    parts = list(split(batch, step))
    share_fakes = step.settings.deviations.share_fakes
    keep = share_fakes and len(parts) == 1  # of several parts, graphs would fill the memory: they are painted again
    follow_latents(players, parts, "fakes")
    with torch.set_grad_enabled(keep):
        terms, fakes = update_discriminator(players, parts, wrong)
    purpose = "fakes" if share_fakes else "generator's fakes"
    if not share_fakes:
        follow_latents(players, parts, purpose)
    return terms | update_generator(players, parts, purpose, fakes if keep else None)


def follow_latents(players: Players, parts: Sequence[Microbatch], purpose: str) -> None:
    """Move the mean latent towards that of the global batch, where the mapping is trained."""
    if players.follows_latents:
        mapping = players.generator.mapping
        with torch.no_grad():
            each = [mapping.latent(part.latents(purpose, mapping.z_dim), part.generator_c) for part in parts]
            sums = [part.weight * x.mean(dim=0) for part, x in zip(parts, each, strict=True)]
            mean = torch.stack(sums).sum(dim=0)
            parts[0].step.world.sum([mean])
            mapping.follow(mean)


def paint(players: Players, part: Microbatch, purpose: str) -> Fakes:
    """A fake for each caption of the part."""
    generator = players.generator
    z = part.latents(purpose, generator.z_dim)
    noise = part.noise(purpose, generator.synthesis.noise_shapes) if part.step.settings.spatial_noise else "none"
    with part.step.precision():
        c = players.condition(part.captions, part.generator_c)
        images = generator(z, c, noise=noise, track=False)
    return Fakes(images, look(players, images, part, purpose))


def update_discriminator(
    players: Players, parts: Sequence[Microbatch], wrong: WrongCaptions | None
) -> tuple[Terms, Fakes | None]:
    """One step of the heads on the hinge loss of reals and fakes (and of reals under a wrong caption).

    Gradients reach the generator's side of the fakes only if they are enabled around this call; the last part's fakes
    are returned for that case.
    """
    step, discriminator = parts[0].step, players.discriminator
    discriminator.heads.requires_grad_(True)
    players.discriminator_optimizer.zero_grad()
    on_fakes, on_reals = discriminator.power_iteration(), discriminator.power_iteration()
    on_wrong = discriminator.power_iteration() if wrong else None
    terms: Terms = {}
    fakes = None
    for part in parts:
        fakes = paint(players, part, "fakes")
        with torch.no_grad():
            reals = look(players, part.reals(players.generator.resolution), part, "reals")
        with torch.enable_grad():
            losses, monitors = judge_both(players, part, fakes.view.detached(), reals, (on_fakes, on_reals))
            loss = losses["d_fake"] + losses["d_real"]
            if wrong and on_wrong:
                wrong_c = wrong.draw(part.captions, part.c, part.uniform("wrong captions", 2))
                losses["d_wrong_caption"] = hinge_fake(judge(players, part, reals, wrong_c, on_wrong))
                loss = loss + step.settings.deviations.wrong_caption_weight * losses["d_wrong_caption"]
            (part.weight * loss).backward()
        _count(terms, losses | monitors, part)
    heads = list(discriminator.heads.parameters())
    return terms | {"d_grad_norm": _take_step(players.discriminator_optimizer, heads, step.world)}, fakes


def judge_both(
    players: Players,
    part: Microbatch,
    fakes: View,
    reals: View,
    estimates: tuple[Estimates, Estimates],
) -> tuple[Terms, Terms]:
    """The discriminator's losses on fakes and reals, and what their logits and features tell."""
    logits_fake = judge(players, part, fakes, part.c, estimates[0])
    logits_real = judge(players, part, reals, part.c, estimates[1])
    monitors = logit_signs(logits_real, logits_fake) | {
        "logits_fake": logits_fake.mean(),
        "logits_real": logits_real.mean(),
        "fakes_diversity": relative_diversity(fakes.tokens, reals.tokens),
    }
    return {"d_fake": hinge_fake(logits_fake), "d_real": hinge_real(logits_real)}, monitors


def judge(
    players: Players, part: Microbatch, seen: View, c: Float[Tensor, "n c_dim"], estimates: Estimates
) -> Float[Tensor, "n all_tokens"]:
    with part.step.precision():
        return players.discriminator.judge(seen.tokens, c, estimates).float()


def update_generator(players: Players, parts: Sequence[Microbatch], purpose: str, kept: Fakes | None) -> Terms:
    """One step of whatever is trained on the generator's side: adversarial loss and CLIP guidance.

    Args:
        purpose: Of the fakes' random draws.
        kept: Fakes of the only part, with their graph; None paints them.
    """
    settings, discriminator = parts[0].step.settings, players.discriminator
    discriminator.heads.requires_grad_(False)
    players.optimizer.zero_grad()
    estimates = discriminator.power_iteration()
    terms: Terms = {}
    for part in parts:
        fakes = kept or paint(players, part, purpose)
        losses = {"g_adversarial": hinge_generator(judge(players, part, fakes.view, part.c, estimates))}
        loss = losses["g_adversarial"]
        if settings.clip_guidance_weight:
            losses["clip_guidance"] = guidance(players, fakes.images, fakes.view, part)
            loss = loss + settings.clip_guidance_weight * losses["clip_guidance"]
        if settings.deviations.range_penalty_weight:
            losses["range_penalty"] = range_penalty(fakes.images)
            loss = loss + settings.deviations.range_penalty_weight * losses["range_penalty"]
        (part.weight * loss).backward()
        _count(terms, losses, part)
    learning = [p for p in players.trained.parameters() if p.requires_grad]
    return terms | {"g_grad_norm": _take_step(players.optimizer, learning, parts[0].step.world)}


def _count(terms: Terms, values: Terms, part: Microbatch) -> None:
    for name, value in values.items():
        terms[name] = terms.get(name, 0.0) + part.weight * value.detach()


def _take_step(optimizer: Optimizer, parameters: Sequence[nn.Parameter], world: World) -> Tensor:
    """Sum the gradients over the processes and update; this process's part of their norm."""
    world.sum([parameter.grad for parameter in parameters if parameter.grad is not None])
    norm = gradient_norm(parameters)
    optimizer.step()
    return norm / world.size
