"""What a training stage reads its batches from: the prepared shards here, or a stream of such shards elsewhere."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from stylegan_t.data.batch import Batch
from stylegan_t.data.embeddings import StoredEmbeddings, store_embeddings
from stylegan_t.data.loader import batches, check_encoder, row_of, some_captions
from stylegan_t.data.shards import MANIFEST, Shards
from stylegan_t.data.stream import find_stream, some_streamed_captions, stream_batches
from stylegan_t.files import sha256
from stylegan_t.models.encoders import TextEncoder
from stylegan_t.progress import Progress
from stylegan_t.sampling import embed
from stylegan_t.settings.training import AdversarialTraining, StreamReader
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.distributed import World

Captions = tuple[list[str], Float[Tensor, "m c_dim"]]


class Reading(ABC):
    """Training batches, and what else a stage wants to know of its data.

    Args:
        encoder: Identity of the text encoder to train with.

    Raises:
        DataError: The data are missing, or their embeddings are of another encoder.
        SettingsError: The settings do not fit the data.
    """

    def __init__(self, settings: AdversarialTraining, seed: int, world: World, encoder: str) -> None:
        self._settings, self._seed, self._world = settings, seed, world
        for place, manifest in self._manifests().items():
            check_encoder(place, manifest, encoder)

    @property
    @abstractmethod
    def num_pictures(self) -> int:
        """How many there are to train on."""

    @abstractmethod
    def hashes(self) -> dict[str, str]:
        """What tells these data from all others, by name: part of a run's identity."""

    @abstractmethod
    def some_captions(self, count: int) -> Captions:
        """At most ``count`` captions from all over the data, and their embeddings by the original encoder."""

    @abstractmethod
    def feed_generator(self, encoder: TextEncoder, folder: Path) -> None:
        """Let batches hold this encoder's embeddings too; every process of the training calls this.

        Args:
            folder: For what is made once in a run.
        """

    @abstractmethod
    def batches(self, nimg: int, image_px: Callable[[int], int]) -> Iterator[Batch]:
        """This process's part of each batch from the image with a given number on.

        Args:
            image_px: Side at which the pictures of the batch after so many images are trained on.
        """

    @abstractmethod
    def _manifests(self) -> dict[str, dict[str, Any]]:
        """Of the shards, by their places."""


class IndexedReading(Reading):
    """The prepared shards here, in an order that follows from the seed and the image's number."""

    def __init__(self, settings: AdversarialTraining, seed: int, world: World, encoder: str, folder: Path) -> None:
        self._folder, self._shards = folder, Shards(folder)
        self._generator_c: StoredEmbeddings | None = None
        super().__init__(settings, seed, world, encoder)
        row_of(self._shards, settings.mixture, seed)  # what is wrong with it is said before the long work

    @property
    def num_pictures(self) -> int:
        return len(self._shards)

    def hashes(self) -> dict[str, str]:
        return {f"{self._folder.name}/{MANIFEST}": sha256(self._folder / MANIFEST)}

    def some_captions(self, count: int) -> Captions:
        return some_captions(self._folder, count)

    def feed_generator(self, encoder: TextEncoder, folder: Path) -> None:
        """Compute the embeddings of all captions by all processes together, once per run."""
        world = self._world
        with Progress("embeddings", self.num_pictures / world.size, "images", shown=world.is_main) as bar:
            mine = slice(world.rank, None, world.size)
            store_embeddings(folder, self._folder, lambda texts: embed(encoder, texts), mine=mine, done=bar.advance)
        world.wait_for_all()
        self._generator_c = StoredEmbeddings(folder)

    def batches(self, nimg: int, image_px: Callable[[int], int]) -> Iterator[Batch]:
        settings = self._settings
        return batches(
            self._folder,
            batch_size=settings.batch_size,
            start_nimg=nimg,
            seed=self._seed,
            num_workers=settings.num_workers,
            share=self._world.share(settings.batch_size),
            mixture=settings.mixture,
            image_px=image_px,
            horizontal_flip=settings.horizontal_flip,
            generator_c=self._generator_c,
            pin_memory=self._world.device.type == "cuda",
        )

    def _manifests(self) -> dict[str, dict[str, Any]]:
        return {str(self._folder): self._shards.manifest}


class StreamedReading(Reading):
    """Shards elsewhere, drawn at random."""

    def __init__(
        self,
        settings: AdversarialTraining,
        seed: int,
        world: World,
        encoder: str,
        reader: StreamReader,
        root: Path,
    ) -> None:
        self._reader, self._stream = reader, find_stream(reader.shards, reader.manifest, root)
        self._generator_encoder: TextEncoder | None = None
        super().__init__(settings, seed, world, encoder)

    @property
    def num_pictures(self) -> int:
        known = {str(shard.file): shard.num_samples for shard in self._stream.shards}  # some may be listed twice
        counts = [count for count in known.values() if count is not None]
        if len(counts) < len(known):  # manifests that call their shards by other names
            return sum(manifest["num_samples"] for manifest in self._stream.manifests.values())
        return sum(counts)

    def hashes(self) -> dict[str, str]:
        texts = {place: json.dumps(manifest, sort_keys=True) for place, manifest in self._stream.manifests.items()}
        return {place: hashlib.sha256(text.encode()).hexdigest() for place, text in texts.items()}

    def some_captions(self, count: int) -> Captions:
        return some_streamed_captions(self._stream.shards, count)

    def feed_generator(self, encoder: TextEncoder, folder: Path) -> None:
        """Embed each batch's captions when it comes: a stream's samples have no numbers to store them by."""
        self._generator_encoder = encoder

    def batches(self, nimg: int, image_px: Callable[[int], int]) -> Iterator[Batch]:
        settings = self._settings
        stream = stream_batches(
            self._stream.shards,
            shuffle_buffer=self._reader.shuffle_buffer,
            batch_size=settings.batch_size,
            start_nimg=nimg,
            seed=self._seed,
            num_workers=settings.num_workers,
            share=self._world.share(settings.batch_size),
            image_px=image_px,
            horizontal_flip=settings.horizontal_flip,
            pin_memory=self._world.device.type == "cuda",
        )
        if self._generator_encoder is None:
            return stream
        encoder = self._generator_encoder
        return (batch._replace(generator_c=embed(encoder, batch.captions)) for batch in stream)

    def _manifests(self) -> dict[str, dict[str, Any]]:
        return self._stream.manifests


def open_reading(settings: AdversarialTraining, seed: int, world: World, encoder: str, workspace: Workspace) -> Reading:
    """The reading that the settings ask for."""
    if isinstance(settings.reader, StreamReader):
        return StreamedReading(settings, seed, world, encoder, settings.reader, workspace.root)
    return IndexedReading(settings, seed, world, encoder, workspace.prepared / "train")
