"""What the three training stages share: their inputs, the identity of a run, their outputs."""

from __future__ import annotations

import copy
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.config import Config
from stylegan_t.data.embeddings import StoredEmbeddings, store_embeddings
from stylegan_t.data.loader import Batch, batches, check_encoder, naming_lost_workers, some_captions
from stylegan_t.data.shards import Shards
from stylegan_t.files import alone_in
from stylegan_t.models.bundle import Facts, save_bundle, save_discriminator
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoder_files import identity, load_clip, load_discriminator_vit
from stylegan_t.models.encoders import Clip, TextEncoder
from stylegan_t.models.generator import Generator
from stylegan_t.progress import Progress
from stylegan_t.randomness import derive_seed
from stylegan_t.records import LIVE, RunRecord
from stylegan_t.sampling import embed
from stylegan_t.settings.data import FolderSource
from stylegan_t.stages.identity import announce, digest_of, run_facts
from stylegan_t.stages.start import Start, files_of, load_start, take_heads
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.distributed import World, make_repeatable
from stylegan_t.training.live import LiveFolder
from stylegan_t.training.loop import Resume, Run, Settings, train
from stylegan_t.training.players import Players

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
        manifests = [workspace.prepared / split / "manifest.json" for split in ("train", "heldout")]
        start = [] if self.start is None else files_of(self.start)
        check_encoder(workspace.prepared / "train", identity(workspace.players / "clip"))
        network = config.train_generator.network
        facts = run_facts(self.settings, network, config.seed, [*manifests, workspace.players, *start])
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
        return clip, Discriminator(vit, clip.embed_dim).to(self.world.device)

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
            captions, c = some_captions(self.workspace.prepared / "train", WRONG_CAPTION_POOL)
            wrong = WrongCaptions(captions, c.to(self.world.device), deviations.p_hard_caption)
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
            fetch=self._fetch(self._stored(tuned) if tuned else None),
            wrong_captions=wrong,
            state_folder=self.state_folder,
            live=live,
            prompt_c=embed(tuned, prompts) if tuned else prompt_c,
            resume=resume,
            grown_from_px=start_px if start_px and start_px < players.generator.resolution else None,
        )
        with naming_lost_workers():
            return train(run)

    def _stored(self, encoder: TextEncoder) -> StoredEmbeddings:
        """The encoder's embeddings of all training captions, computed by all processes together, once per run."""
        folder, shards = self.state_folder / "generator_c", self.workspace.prepared / "train"
        with Progress("embeddings", len(Shards(shards)) / self.world.size, "captions", shown=self.world.is_main) as bar:
            mine = slice(self.world.rank, None, self.world.size)
            store_embeddings(folder, shards, lambda captions: embed(encoder, captions), mine=mine, done=bar.advance)
        self.world.wait_for_all()
        return StoredEmbeddings(folder)

    def _fetch(self, generator_c: StoredEmbeddings | None) -> Callable[[int], Iterator[Batch]]:
        return lambda nimg: batches(
            self.workspace.prepared / "train",
            batch_size=self.settings.batch_size,
            start_nimg=nimg,
            seed=self.config.seed,
            num_workers=self.settings.num_workers,
            share=self.world.share(self.settings.batch_size),
            generator_c=generator_c,
            pin_memory=self.world.device.type == "cuda",
        )

    def _data_in_words(self) -> str:
        source, stored = self.config.download.source, Shards(self.workspace.prepared / "train")
        where = source.path if isinstance(source, FolderSource) else "drawn shapes"
        return f"{where}: {len(stored)} pictures of {self.config.filter.image_px} px"

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
        fields = shards[i].fields
        caption = fields["txt"].decode()
        if caption not in found:
            found[caption] = torch.from_numpy(np.load(io.BytesIO(fields["npy"]))).float()
        if len(found) == count:
            break
    return list(found), torch.stack(list(found.values()))
