"""What the three training stages share: their inputs, the identity of a run, their outputs."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.config import Config
from stylegan_t.data.shards import Shards
from stylegan_t.data.workers import naming_lost_workers
from stylegan_t.files import alone_in
from stylegan_t.models.bundle import Facts, save_bundle, save_discriminator
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoder_files import identity, load_clip, load_discriminator_vit, player_weights
from stylegan_t.models.encoders import Clip, TextEncoder
from stylegan_t.models.generator import Generator
from stylegan_t.randomness import derive_seed
from stylegan_t.records import LIVE, RunRecord
from stylegan_t.sampling import embed
from stylegan_t.settings.training import FinetuneTextEncoder
from stylegan_t.stages.identity import announce, digest_of, run_facts
from stylegan_t.stages.reading import open_reading
from stylegan_t.stages.start import Start, files_of, load_start, take_heads
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.distributed import World, make_repeatable
from stylegan_t.training.live import LiveFolder
from stylegan_t.training.loop import Resume, Run, Settings, train
from stylegan_t.training.players import Players
from stylegan_t.training.schedules import resolution_at

WRONG_CAPTION_POOL = 4096
SAMPLE_PROMPTS, SAMPLE_SEEDS = 8, 6


class TrainingStage:
    """One training stage on the way from its inputs to its outputs.

    Args:
        world: The processes that train together, of which this is one.
        upstream: The stage whose model this one continues unless ``start_from`` names another; None for the first.
    """

    def __init__(self, name: str, config: Config, workspace: Workspace, world: World, upstream: str | None) -> None:
        self.name, self.config, self.workspace, self.world = name, config, workspace, world
        self.settings: Settings = getattr(config, name)
        make_repeatable(self.settings.compute.deterministic)
        self.start = workspace.artifacts(upstream) if upstream else None
        if self.settings.start_from is not None:
            self.start = workspace.root / self.settings.start_from
        self.output = workspace.artifacts(name)
        prompts = workspace.prepared / "heldout" / "manifest.json"
        start = [] if self.start is None else files_of(self.start)
        self.reading = open_reading(self.settings, config.seed, world, identity(workspace.players / "clip"), workspace)
        network = config.train_generator.network
        facts = run_facts(self.settings, network, config.seed, [prompts, workspace.players, *start])
        facts["inputs"] |= self.reading.hashes()
        self.digest = digest_of(facts)
        self.state_folder = workspace.state(name, self.digest)
        if world.is_main:
            announce(self.state_folder, facts)

    def load_players(self) -> tuple[Clip, Discriminator]:
        """The conditioning CLIP and an untrained discriminator on its frozen ViT, on the device.

        The discriminator, and what is drawn after it, follow from the seed: the same on every process.
        """
        torch.manual_seed(derive_seed(self.config.seed, self.name))
        clip = load_clip(self.workspace.players / "clip").requires_grad_(False).eval().to(self.world.device)
        vit = load_discriminator_vit(self.workspace.players)
        switch = self.config.train_generator.network.local_batch_norm
        return clip, Discriminator(vit, clip.embed_dim, local_batch_norm=switch).to(self.world.device)

    def load_start(self, clip: Clip, discriminator: Discriminator) -> Start | None:
        """The model to start from, its heads given to ``discriminator``; None where everything is new."""
        if self.start is None:
            return None
        start = load_start(self.start, self.config.train_generator.network, clip)
        take_heads(discriminator, start, self.start)
        return start

    def guide(self, clip: Clip) -> Clip | None:
        """The CLIP for the guidance, unless the discriminator's pass serves for it."""
        return None if self.settings.deviations.share_vit_pass else clip

    def generator_players(
        self, generator: Generator, clip: Clip, discriminator: Discriminator, frozen: frozenset[str] = frozenset()
    ) -> Players:
        """Players that train a generator, whose average starts as its copy.

        Args:
            frozen: Names of the generator's parameters that keep their values.
        """
        generator = generator.train().to(self.world.device)
        return Players(
            generator=generator,
            averaged=copy.deepcopy(generator).requires_grad_(False),
            text_encoder=None,
            discriminator=discriminator,
            guide=self.guide(clip),
            frozen=frozen,
            compute=self.settings.compute,
        )

    def train(
        self,
        players: Players,
        resume: Resume,
        wandb_project: str | None,
        *,
        tuned: TextEncoder | None = None,
        start_px: int | None = None,
    ) -> int:
        """Train, or go on; the number of images shown.

        Args:
            resume: Whether an earlier state may or must be there to go on from.
            wandb_project: Of Weights & Biases, to log to; None = not.
            tuned: A text encoder other than the original that feeds the generator and is not trained.
            start_px: Resolution of the generator that was started from; None where it is new.
        """
        prompts, prompt_c = _first_prompts(self.workspace.prepared / "heldout", SAMPLE_PROMPTS)
        deviations = self.settings.deviations
        wrong = None
        if deviations.wrong_caption_weight:
            captions, c = self.reading.some_captions(WRONG_CAPTION_POOL)
            wrong = WrongCaptions(captions, c.to(self.world.device), deviations.p_hard_caption)
        if tuned:
            self.reading.feed_generator(tuned, self.state_folder / "generator_c")
        record = RunRecord(
            stage=self.name,
            digest=self.digest,
            started="",
            total_kimg=self.settings.total_kimg,
            settings=self.settings.model_dump(mode="json"),
            finished=False,
        )
        live = LiveFolder(self.state_folder / LIVE, prompts, list(range(SAMPLE_SEEDS)), wandb_project)
        run = Run(
            record=record,
            settings=self.settings,
            seed=self.config.seed,
            world=self.world,
            players=players,
            fetch=partial(self.reading.batches, image_px=self._image_px(players)),
            wrong_captions=wrong,
            state_folder=self.state_folder,
            live=live,
            prompt_c=embed(tuned, prompts) if tuned else prompt_c,
            resume=resume,
            grown_from_px=start_px if start_px and start_px < players.generator.resolution else None,
        )
        with naming_lost_workers():
            return train(run)

    def _image_px(self, players: Players) -> Callable[[int], int]:
        """The resolution that is trained after so many images: pictures may be decoded for it."""
        settings = self.settings
        if isinstance(settings, FinetuneTextEncoder):
            return partial(resolution_at, resolutions=[players.generator.resolution], grow_at_kimg=[])
        return partial(resolution_at, resolutions=settings.resolutions, grow_at_kimg=settings.grow_at_kimg)

    def _data_in_words(self) -> str:
        where = self.config.download.source.in_words
        return f"{where}: {self.reading.num_pictures} pictures of {self.config.filter.image_px} px"

    def write(self, players: Players, text_encoder: TextEncoder, nimg: int) -> None:
        """Write the bundle, the discriminator and the run's records; whole or not at all, by the main process."""
        if not self.world.is_main:
            return
        generator = players.averaged if players.averaged is not None else players.generator
        facts = Facts(
            stage=self.name,
            kimg=nimg / 1000,
            data=self._data_in_words(),
            encoder=f"CLIP {identity(self.workspace.players / 'clip')[:16]}",
            seed=self.config.seed,
            local_batch_norm=players.discriminator.local_batch_norm,
            players=sorted(player_weights(self.workspace.players)),
        )
        unfinished = self.output.with_name(f".{self.output.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save_bundle(unfinished, generator, text_encoder, facts)
        save_discriminator(unfinished, players.discriminator)
        LiveFolder(self.state_folder / LIVE, [], []).copy_to(unfinished)
        shutil.rmtree(self.output, ignore_errors=True)
        unfinished.rename(self.output)


@contextmanager
def training_stage(
    name: str, config: Config, workspace: Workspace, world: World, upstream: str | None
) -> Iterator[TrainingStage]:
    """A stage that nobody else works on meanwhile: two trainings would write over each other's states.

    Raises:
        InUse: Another process trains the same run.
    """
    stage = TrainingStage(name, config, workspace, world, upstream)
    with alone_in(stage.state_folder) if world.is_main else nullcontext():
        yield stage


def _first_prompts(heldout: Path, count: int) -> tuple[list[str], Float[Tensor, "p c_dim"]]:
    """The first ``count`` different held-out captions and their embeddings."""
    shards = Shards(heldout)
    found: dict[str, Tensor] = {}
    for i in range(len(shards)):
        sample = shards[i]
        if sample.caption not in found:
            found[sample.caption] = torch.from_numpy(sample.c[0]).float()
        if len(found) == count:
            break
    return list(found), torch.stack(list(found.values()))
