"""The training loop of all three training stages: fetch, D, G, average, count, log, save."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.data.loader import Batch
from stylegan_t.ema import ema_decay, update_ema
from stylegan_t.errors import DataError, Stopped, TrainingDiverged
from stylegan_t.models.generator import resized
from stylegan_t.progress import Progress
from stylegan_t.randomness import derive_seed, draw_latents, image_seeds
from stylegan_t.records import LogRecord, RunRecord
from stylegan_t.sampling import sample
from stylegan_t.settings.training import FinetuneTextEncoder, GeneratorTraining, TrainGenerator, TrainSuperResolution
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.checkpoint import StateWriter, drop_states, load_state, newest_state
from stylegan_t.training.distributed import World
from stylegan_t.training.live import LiveFolder
from stylegan_t.training.meters import Clock, Means
from stylegan_t.training.microbatch import Step
from stylegan_t.training.monitors import clamped_share
from stylegan_t.training.players import Players
from stylegan_t.training.rollback import Rollbacks, forget_rollbacks
from stylegan_t.training.schedules import blur_sigma_at, images, lr_factor, passed, resolution_at
from stylegan_t.training.signals import Wish, Wishes
from stylegan_t.training.steps import training_step

Settings = TrainGenerator | FinetuneTextEncoder | TrainSuperResolution
Resume = Literal["never", "auto", "must"]
CLAMP_PROBE = 8
"""Latents on which the share of clamped activations is measured."""


@dataclass
class Run:
    """Everything that one training run needs.

    Attributes:
        players: In their state at 0 images; resuming replaces it.
        fetch: This process's part of each batch from the image with a given number on, in an order that depends on
            nothing else.
        state_folder: Where resume state is kept.
        prompt_c: Embeddings of the sample grids' prompts (their captions are ``live.prompts``), as stored.
        resume: Whether an earlier state may or must be there to go on from.
        grown_from_px: Resolution of the model that the players were grown from; its grid is shown before theirs.
    """

    record: RunRecord
    settings: Settings
    seed: int
    world: World
    players: Players
    fetch: Callable[[int], Iterator[Batch]]
    wrong_captions: WrongCaptions | None
    state_folder: Path
    live: LiveFolder
    prompt_c: Float[Tensor, "p c_dim"]
    resume: Resume = "auto"
    grown_from_px: int | None = None

    @property
    def last_nimg(self) -> int:
        """Images shown at the end: the last batch is a whole one."""
        batch_size = self.settings.batch_size
        return math.ceil(images(self.settings.total_kimg) / batch_size) * batch_size


def train(run: Run) -> int:
    """Train until ``total_kimg``, going on from the newest state; the number of images shown.

    Raises:
        Stopped: A signal asked for it; the state is saved.
        TrainingDiverged: A loss or gradient is not finite, and no further rollback is allowed.
        DataError: All states are damaged, or there is none though there must be one.
        NotSaved: A state could not be written.
    """
    if run.resume == "never" and run.world.is_main and not run.world.restarted:
        drop_states(run.state_folder)
        forget_rollbacks(run.state_folder)
        run.live.forget()
    run.world.wait_for_all()
    rollbacks = Rollbacks(run.state_folder, run.settings.guard, run.world)
    with Wishes() as wishes, StateWriter(run.state_folder, run.settings.keep_states) as writer:
        while True:
            try:
                return _train(run, rollbacks.lr_factor, writer, wishes)
            except TrainingDiverged as failure:
                _finish_saving(run.world, writer)
                rollbacks.after(failure)


def _train(run: Run, lr_scale: float, writer: StateWriter, wishes: Wishes) -> int:
    settings, players, world = run.settings, run.players, run.world
    end, batch_size = run.last_nimg, settings.batch_size
    means, clock = Means(world), Clock()
    writer.last_nimg = _resume(run, means)
    nimg = writer.last_nimg or 0
    if world.is_main:
        run.live.begin(run.record, nimg / 1000, end / 1000)
    if nimg == 0:
        if run.grown_from_px is not None:
            _show(run, nimg, run.grown_from_px)
        _show(run, nimg)
        _save(run, nimg, means, writer)
    batches = run.fetch(nimg)
    clock.start(nimg)
    with Progress(run.record.stage, end, done=nimg, shown=world.is_main) as progress:
        while nimg < end:
            batch = clock.wait(batches)
            writer.check()
            _grow_if_due(run, nimg)
            rates = _set_learning_rates(run, nimg, lr_scale)
            step = Step(settings, run.seed, nimg, _blur_sigma(settings, nimg), world)
            means.add(training_step(players, batch, step, run.wrong_captions), nimg)
            if isinstance(settings, GeneratorTraining) and players.averaged is not None:
                rates["ema_decay"] = _ema_decay(settings, nimg)
                update_ema(players.averaged, players.generator, rates["ema_decay"])
            nimg += batch_size

            progress.advance(batch_size)
            wish = Wish(world.most(wishes.current))
            if passed(nimg, batch_size, settings.log_every_kimg):
                _log(run, nimg, means, rates, clock, writer)
            if passed(nimg, batch_size, settings.sample_every_kimg) or nimg >= end:
                _show(run, nimg)
            if passed(nimg, batch_size, settings.save_every_kimg) or nimg >= end or wish:
                _save(run, nimg, means, writer)
                wishes.saved()
            if wish == Wish.STOP and nimg < end:
                _finish_saving(world, writer)
                raise Stopped(f"{run.record.stage}: stopped at {nimg / 1000:.3f} kimg; {_how_to_go_on(run)}")
    _finish_saving(world, writer)
    if world.is_main:
        run.live.finish()
    return nimg


def _resume(run: Run, means: Means) -> int | None:
    """Take over the newest state; the number of images shown, or None where there is no state yet."""
    found = None
    if run.world.is_main:  # one reads and hashes the files for all
        found = newest_state(run.state_folder, at_most=run.last_nimg)
    nimg = run.world.agree(found if found is not None else -1)
    if nimg < 0:
        if run.resume == "must":
            raise DataError(f"{run.state_folder}: no state to go on from; --resume auto starts afresh where none is")
        return None
    state = load_state(run.state_folder, nimg)
    run.players.load_state_dict(state)
    means.load_state_dict(state["means"])
    return nimg


def _save(run: Run, nimg: int, means: Means, writer: StateWriter) -> None:
    """Write the state, unless it is no longer worth going back to."""
    means.check(writer.last_nimg)
    state: dict[str, Any] = {"nimg": nimg, "means": means.state_dict(), **run.players.state_dict()}
    if run.world.is_main:
        writer.save(nimg, state)


def _how_to_go_on(run: Run) -> str:
    return "the same command goes on" + (", without `--resume never`" if run.resume == "never" else "")


def _finish_saving(world: World, writer: StateWriter) -> None:
    """Return when the state is on disk, on every process: none may end before, or torchrun would end the others."""
    writer.wait()
    world.wait_for_all()


def _grow_if_due(run: Run, nimg: int) -> None:
    if isinstance(run.settings, FinetuneTextEncoder):
        return
    due = resolution_at(nimg, run.settings.resolutions, run.settings.grow_at_kimg)
    if due > run.players.generator.resolution:
        _show(run, nimg)
        torch.manual_seed(derive_seed(run.seed, "new layers", due))
        run.players.resize(due)
        _show(run, nimg)


def _blur_sigma(settings: Settings, nimg: int) -> float:
    if not isinstance(settings, GeneratorTraining):
        return 0.0
    return blur_sigma_at(nimg, settings.blur_sigma, settings.blur_fade_kimg)


def _set_learning_rates(run: Run, nimg: int, scale: float) -> dict[str, float]:
    """Give both optimisers their rates; what they are, by the settings' names."""
    settings, decay = run.settings, run.settings.lr_decay
    factor = scale * lr_factor(nimg, decay.start_kimg, decay.end_kimg, decay.final_factor)
    name = "text_encoder_lr" if isinstance(settings, FinetuneTextEncoder) else "generator_lr"
    rates = {name: getattr(settings, name) * factor, "discriminator_lr": settings.discriminator_lr * factor}
    run.players.optimizer.param_groups[0]["lr"] = rates[name]
    run.players.discriminator_optimizer.param_groups[0]["lr"] = rates["discriminator_lr"]
    return rates


def _ema_decay(settings: GeneratorTraining, nimg: int) -> float:
    return ema_decay(settings.batch_size, settings.ema_halflife_kimg * 1000, nimg, settings.ema_rampup or None)


def _log(run: Run, nimg: int, means: Means, rates: dict[str, float], clock: Clock, writer: StateWriter) -> None:
    means.check(writer.last_nimg)
    terms = means.take() | rates
    if not run.world.is_main:
        return
    players, speed = run.players, clock.take(nimg, run.world.device)
    if players.averaged is not None:
        z = draw_latents(image_seeds(run.seed, "clamp probe", 0, CLAMP_PROBE), players.generator.z_dim)
        c = run.prompt_c[torch.arange(CLAMP_PROBE) % len(run.prompt_c)]
        terms["clamped"] = clamped_share(players.generator, z.to(run.world.device), c.to(run.world.device))
    resolution = players.generator.resolution
    run.live.log(LogRecord(kimg=nimg / 1000, resolution=resolution, terms=terms, speed=speed))


def _show(run: Run, nimg: int, px: int | None = None) -> None:
    """A sample grid by the averaged generator, fed as it will be when people use it.

    Args:
        px: Without the blocks above this resolution; None = all of them.
    """
    if not run.world.is_main:
        return
    players, seeds = run.players, run.live.seeds
    generator = players.averaged if players.averaged is not None else players.generator
    if px is not None:
        generator = resized(generator, px)
    with torch.no_grad():
        c = players.condition(run.live.prompts, run.prompt_c.to(run.world.device))
    c = c.repeat_interleave(len(seeds), dim=0)
    # A pass no larger than those of the training: a grid of large pictures at once would need more memory than that.
    batch_size = run.settings.compute.microbatch_size or len(run.world.share(run.settings.batch_size))
    run.live.show(sample(generator, c, seeds * len(run.live.prompts), batch_size=batch_size), nimg / 1000)
