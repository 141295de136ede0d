"""What the three training stages share: their inputs, the identity of a run, their outputs."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from stylegan_t.config import Config
from stylegan_t.data.loader import Batch, batches, check_encoder, some_captions
from stylegan_t.data.shards import Shards
from stylegan_t.device import pick_device
from stylegan_t.files import sha256
from stylegan_t.models.bundle import Facts, save_bundle, save_discriminator
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoder_files import identity, load_clip, load_discriminator_vit
from stylegan_t.models.encoders import Clip, TextEncoder
from stylegan_t.records import LIVE, RunRecord
from stylegan_t.settings.data import FolderSource
from stylegan_t.settings.training import AdversarialTraining
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.live import LiveFolder
from stylegan_t.training.loop import Run, Settings, train
from stylegan_t.training.players import Players

UNDIGESTED = {"total_kimg", "log_every_kimg", "sample_every_kimg", "save_every_kimg", "num_workers"}
"""Settings that do not change what an image contributes: a run goes on when they change."""

PACKAGE = Path(__file__).parents[1]
CODE = sorted(
    path
    for pattern in ("models/*.py", "training/*.py", "losses.py", "ema.py", "randomness.py", "data/loader.py")
    for path in PACKAGE.glob(pattern)
)
"""What decides the result besides settings and inputs: a run under other code is another run."""

WRONG_CAPTION_POOL = 4096
SAMPLE_PROMPTS, SAMPLE_SEEDS = 8, 6


def run_digest(settings: AdversarialTraining, seed: int, inputs: list[Path]) -> str:
    """Identity of a run: every setting that changes its result, and the content of all input files and folders."""
    facts = {
        "settings": settings.model_dump(mode="json", exclude=UNDIGESTED),
        "seed": seed,
        "inputs": [[(str(file.relative_to(root)), sha256(file)) for file in _files(root)] for root in inputs],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]


class TrainingStage:
    """One training stage on the way from its inputs to its outputs.

    Args:
        upstream: The stage whose model this one continues; None for the first.
    """

    def __init__(self, name: str, config: Config, workspace: Workspace, device: str, upstream: str | None) -> None:
        self.name, self.config, self.workspace = name, config, workspace
        self.settings: Settings = getattr(config, name)
        self.device = pick_device(device)
        self.upstream = workspace.artifacts(upstream) if upstream else None
        self.output = workspace.artifacts(name)
        manifests = [workspace.prepared / split / "manifest.json" for split in ("train", "heldout")]
        upstream_files = sorted(self.upstream.glob("*.safetensors")) if self.upstream else []
        self.digest = run_digest(self.settings, config.seed, [*manifests, workspace.players, *upstream_files, *CODE])
        self.state_folder = workspace.state(name, self.digest)
        check_encoder(workspace.prepared / "train", identity(workspace.players / "clip"))

    def load_players(self) -> tuple[Clip, Discriminator]:
        """The conditioning CLIP and an untrained discriminator on its frozen ViT, on the device."""
        clip = load_clip(self.workspace.players / "clip").requires_grad_(False).eval().to(self.device)
        vit = load_discriminator_vit(self.workspace.players)
        return clip, Discriminator(vit, clip.embed_dim).to(self.device)

    def guide(self, clip: Clip) -> Clip | None:
        """The CLIP for the guidance, unless the discriminator's pass serves for it."""
        return None if self.settings.deviations.share_vit_pass else clip

    def train(self, players: Players) -> int:
        """Train, or go on; the number of images shown."""
        prompts, prompt_c = _first_prompts(self.workspace.prepared / "heldout", SAMPLE_PROMPTS)
        deviations = self.settings.deviations
        wrong = None
        if deviations.wrong_caption_weight:
            captions, c = some_captions(self.workspace.prepared / "train", WRONG_CAPTION_POOL)
            wrong = WrongCaptions(captions, c.to(self.device), deviations.p_hard_caption)
        record = RunRecord(
            stage=self.name,
            digest=self.digest,
            started="",
            total_kimg=self.settings.total_kimg,
            settings=self.settings.model_dump(mode="json"),
            finished=False,
        )
        live = LiveFolder(self.state_folder / LIVE, prompts, list(range(SAMPLE_SEEDS)))
        return train(
            Run(
                record=record,
                settings=self.settings,
                seed=self.config.seed,
                device=self.device,
                players=players,
                fetch=self._fetch(),
                wrong_captions=wrong,
                state_folder=self.state_folder,
                live=live,
                prompt_c=prompt_c,
            )
        )

    def _fetch(self) -> Callable[[int], Iterator[Batch]]:
        return lambda nimg: batches(
            self.workspace.prepared / "train",
            batch_size=self.settings.batch_size,
            start_nimg=nimg,
            seed=self.config.seed,
            num_workers=self.settings.num_workers,
        )

    def _data_in_words(self) -> str:
        source, stored = self.config.download.source, Shards(self.workspace.prepared / "train")
        where = source.path if isinstance(source, FolderSource) else "drawn shapes"
        return f"{where}: {len(stored)} pictures of {self.config.filter.image_px} px"

    def write(self, players: Players, text_encoder: TextEncoder, nimg: int) -> None:
        """Write the bundle, the discriminator and the run's records; whole or not at all."""
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


def _first_prompts(heldout: Path, count: int) -> tuple[list[str], torch.Tensor]:
    """The first ``count`` different held-out captions and their embeddings."""
    shards = Shards(heldout)
    found: dict[str, torch.Tensor] = {}
    for i in range(len(shards)):
        fields = shards[i].fields
        caption = fields["txt"].decode()
        if caption not in found:
            found[caption] = torch.from_numpy(np.load(io.BytesIO(fields["npy"]))).float()
        if len(found) == count:
            break
    return list(found), torch.stack(list(found.values()))
