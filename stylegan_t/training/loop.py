"""The training loop of all three training stages: fetch, D, G, average, count, log, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.config import FinetuneTextEncoder, GeneratorTraining, TrainGenerator, TrainSuperResolution
from stylegan_t.data.loader import Batch
from stylegan_t.ema import ema_decay, update_ema
from stylegan_t.errors import Stopped
from stylegan_t.progress import Progress, resident_memory_mib
from stylegan_t.randomness import derive_seed
from stylegan_t.records import LogRecord, RunRecord, Speed
from stylegan_t.sampling import sample
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.checkpoint import load_newest_state, save_state
from stylegan_t.training.live import LiveFolder, Means
from stylegan_t.training.players import Players
from stylegan_t.training.schedules import blur_sigma_at, lr_factor, passed, resolution_at
from stylegan_t.training.signals import StopRequest
from stylegan_t.training.steps import Step, training_step

Settings = TrainGenerator | FinetuneTextEncoder | TrainSuperResolution


@dataclass
class Run:
    """Everything that one training run needs.

    Attributes:
        players: In their state at 0 images; resuming replaces it.
        fetch: Batches from the image with a given number on, in an order that depends on nothing else.
        state_folder: Where resume state is kept.
        prompt_c: Original embeddings of the sample grids' prompts (their captions are ``live.prompts``).
    """

    record: RunRecord
    settings: Settings
    seed: int
    device: torch.device
    players: Players
    fetch: Callable[[int], Iterator[Batch]]
    wrong_captions: WrongCaptions | None
    state_folder: Path
    live: LiveFolder
    prompt_c: Float[Tensor, "p c_dim"]


def train(run: Run) -> int:
    """Train until ``total_kimg``, going on from the newest state; the number of images shown.

    Raises:
        Stopped: SIGINT or SIGTERM asked for it; the state is saved.
        TrainingDiverged: A loss is not finite.
        DataError: The newest state is damaged.
    """
    settings, players = run.settings, run.players
    nimg, means = _resume(run)
    run.live.begin(run.record, nimg / 1000)
    if nimg == 0:
        _show(run, nimg)
    total = settings.total_kimg * 1000
    clock = Clock(nimg)
    batches = run.fetch(nimg)
    with Progress(run.record.stage, total, done=nimg) as progress, StopRequest() as stop:
        while nimg < total:
            batch = clock.wait(batches)
            _grow_if_due(run, nimg)
            step = _step(run, nimg)
            _set_learning_rates(run, nimg)
            losses = training_step(players, batch, step, run.wrong_captions)
            if isinstance(settings, GeneratorTraining) and players.averaged is not None:
                update_ema(players.averaged, players.generator, _ema_decay(settings, nimg))
            nimg += settings.batch_size
            means.add(losses)

            progress.advance(settings.batch_size)
            if passed(nimg, settings.batch_size, settings.log_every_kimg):
                _log(run, nimg, means, clock)
            if passed(nimg, settings.batch_size, settings.sample_every_kimg) or nimg >= total:
                _show(run, nimg)
            if passed(nimg, settings.batch_size, settings.save_every_kimg) or nimg >= total or stop.wanted:
                means.check(nimg / 1000)
                save_state(run.state_folder, nimg, {"nimg": nimg, "means": vars(means), **players.state_dict()})
            if stop.wanted and nimg < total:
                raise Stopped(f"{run.record.stage}: stopped at {nimg / 1000:.3f} kimg; the same command goes on")
    run.live.finish()
    return nimg


class Clock:
    """Time spent, in all and waiting for data."""

    def __init__(self, nimg: int) -> None:
        self.start = self.last = time.monotonic()
        self.last_nimg = nimg
        self.waited = 0.0

    def wait(self, batches: Iterator[Batch]) -> Batch:
        before = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - before
        return batch

    def record(self, nimg: int, device: torch.device) -> Speed:
        """Speed since the record before."""
        now = time.monotonic()
        seconds = now - self.last
        on_gpu = device.type == "cuda"
        speed = Speed(
            seconds=now - self.start,
            images_per_second=(nimg - self.last_nimg) / seconds,
            data_wait=self.waited / seconds,
            memory_mib=torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resident_memory_mib(),
        )
        self.last, self.last_nimg, self.waited = now, nimg, 0.0
        return speed


def _resume(run: Run) -> tuple[int, Means]:
    batch_size, total = run.settings.batch_size, run.settings.total_kimg * 1000
    state = load_newest_state(run.state_folder, at_most=math.ceil(total / batch_size) * batch_size)
    if state is None:
        return 0, Means()
    run.players.load_state_dict(state)
    return state["nimg"], Means(**state["means"])


def _grow_if_due(run: Run, nimg: int) -> None:
    if isinstance(run.settings, FinetuneTextEncoder):
        return
    due = resolution_at(nimg, run.settings.resolutions, run.settings.grow_at_kimg)
    if due > run.players.generator.resolution:
        _show(run, nimg)
        torch.manual_seed(derive_seed(run.seed, "new layers", due))
        run.players.grow_to(due)


def _step(run: Run, nimg: int) -> Step:
    settings = run.settings
    sigma = 0.0
    if isinstance(settings, GeneratorTraining):
        sigma = blur_sigma_at(nimg, settings.blur_sigma, settings.blur_fade_kimg)
    return Step(settings, run.seed, nimg, sigma, run.device)


def _set_learning_rates(run: Run, nimg: int) -> None:
    settings, decay = run.settings, run.settings.lr_decay
    factor = lr_factor(nimg, decay.start_kimg, decay.end_kimg, decay.final_factor)
    lr = settings.text_encoder_lr if isinstance(settings, FinetuneTextEncoder) else settings.generator_lr
    run.players.optimizer.param_groups[0]["lr"] = lr * factor
    run.players.discriminator_optimizer.param_groups[0]["lr"] = settings.discriminator_lr * factor


def _ema_decay(settings: GeneratorTraining, nimg: int) -> float:
    return ema_decay(settings.batch_size, settings.ema_halflife_kimg * 1000, nimg, settings.ema_rampup or None)


def _log(run: Run, nimg: int, means: Means, clock: Clock) -> None:
    means.check(nimg / 1000)
    losses = means.take() | {"lr": run.players.optimizer.param_groups[0]["lr"]}
    resolution = run.players.generator.resolution
    speed = clock.record(nimg, run.device)
    run.live.log(LogRecord(kimg=nimg / 1000, resolution=resolution, terms=losses, speed=speed))


def _show(run: Run, nimg: int) -> None:
    """A sample grid by the averaged generator, fed as it will be when people use it."""
    players, seeds = run.players, run.live.seeds
    generator = players.averaged if players.averaged is not None else players.generator
    with torch.no_grad():
        c = players.condition(run.live.prompts, run.prompt_c.to(run.device)).repeat_interleave(len(seeds), dim=0)
    run.live.show(sample(generator, c, seeds * len(run.live.prompts)), nimg / 1000)
