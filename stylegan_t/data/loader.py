"""Training batches from shards with an index, in an order that follows from the seed and the image count alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_t.data.batch import Batch, caption_numbers, captions_in_turn, make_batch
from stylegan_t.data.embeddings import StoredEmbeddings
from stylegan_t.data.order import Epochs, Mixture
from stylegan_t.data.shards import MANIFEST, Shards
from stylegan_t.data.workers import read_ahead
from stylegan_t.errors import DataError, SettingsError


class Request(NamedTuple):
    """What to make a batch of.

    Attributes:
        first: Place of the first image in the endless row: what is drawn for an image follows from its place.
        numbers: Of the samples.
        image_px: Side that the pictures will be reduced to.
    """

    first: int
    numbers: list[int]
    image_px: int | None


def batches(
    folder: Path,
    *,
    batch_size: int,
    start_nimg: int,
    seed: int,
    num_workers: int,
    share: range | None = None,
    mixture: Mapping[str, float] | None = None,
    image_px: Callable[[int], int | None] = lambda nimg: None,
    horizontal_flip: bool = False,
    generator_c: StoredEmbeddings | None = None,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Endless batches, from the image numbered ``start_nimg`` of the endless row on.

    An epoch's last batch goes on with the next epoch's first samples. The number of workers changes nothing but speed.

    Args:
        folder: Prepared shards.
        start_nimg: Images shown before; any number.
        num_workers: Processes that decode ahead; 0 = decode in this process.
        share: Which images of each batch this process wants; None = all. The order is that of the global batch.
        mixture: Weights of the data sets of the folder, by name; None = all samples alike.
        image_px: Side that the pictures of the batch after so many images will be reduced to; None = as stored.
        horizontal_flip: Mirror every second picture.
        generator_c: Of the folder's samples; goes into the batches.
        pin_memory: Lock the batches in memory, so that copies to a GPU run beside its work.

    Raises:
        DataError: The shards are empty, missing or damaged.
        SettingsError: The mixture is not one of the folder's data sets.
    """
    samples = _Samples(folder, seed, horizontal_flip, generator_c)
    row = row_of(samples.shards, mixture, seed)
    share = share or range(batch_size)
    requests = (
        Request(nimg + share.start, row.at(nimg + share.start, len(share)).tolist(), image_px(nimg))
        for nimg in itertools.count(start_nimg, batch_size)
    )
    return read_ahead(samples, requests, num_workers=num_workers, pin_memory=pin_memory)


def row_of(shards: Shards, mixture: Mapping[str, float] | None, seed: int) -> Epochs | Mixture:
    """The endless row of a folder's samples. Raises as ``batches``."""
    if not len(shards):
        raise DataError(f"{shards.folder}: holds no samples; loosen the rules of params.yaml's section filter")
    return Epochs(len(shards), seed) if mixture is None else Mixture(_datasets(shards, mixture), mixture, seed)


def some_captions(folder: Path, count: int) -> tuple[list[str], Float[Tensor, "m c_dim"]]:
    """Captions and embeddings of ``count`` samples spread evenly over the shards (all, where there are fewer)."""
    shards = Shards(folder)
    numbers = np.linspace(0, len(shards) - 1, min(count, len(shards))).round().astype(int)
    return captions_in_turn([shards[number] for number in numbers.tolist()])


def check_encoder(place: str, manifest: dict[str, Any], identity: str) -> None:
    """Raise DataError unless the shards' text embeddings were made by the encoder of this identity.

    Args:
        place: Where the shards are, for the message.
    """
    made_by = manifest.get("encoder")
    if made_by != identity:
        raise DataError(
            f"{place}: its text embeddings are of another encoder ({str(made_by)[:12]}…) than the one to train "
            f"with ({identity[:12]}…); run `dvc repro filter`, or `stylegan-t run score` and `stylegan-t run filter`"
        )


class _Samples(Dataset[Batch]):
    """Decoded batches of shards with an index."""

    def __init__(self, folder: Path, seed: int, horizontal_flip: bool, generator_c: StoredEmbeddings | None) -> None:
        self.shards = Shards(folder)
        self._seed, self._horizontal_flip, self._generator_c = seed, horizontal_flip, generator_c

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, request: Request) -> Batch:
        samples = [self.shards[number] for number in request.numbers]
        first, seed = request.first, self._seed
        try:
            batch = make_batch(samples, first, seed, image_px=request.image_px, horizontal_flip=self._horizontal_flip)
        except DataError as error:
            raise DataError(f"{self.shards.folder}: {error}; run `dvc repro -f filter`") from None
        if self._generator_c is None:
            return batch
        rows = self._generator_c.rows(request.numbers, caption_numbers(samples, first, seed))
        return batch._replace(generator_c=rows)


def _datasets(shards: Shards, mixture: Mapping[str, float]) -> dict[str, list[range]]:
    """Numbers of the samples of each data set; their names must be the mixture's."""
    found: dict[str, list[range]] = {}
    for shard, entry in enumerate(shards.manifest["shards"]):
        found.setdefault(entry.get("dataset", ""), []).append(shards.shard_range(shard))
    if list(found) == [""]:
        raise SettingsError(
            f"mixture: {', '.join(mixture)}: the shards of {shards.folder} are of one source without data sets in it "
            f"({MANIFEST} names none); use null, or a download.source of kind mixture"
        )
    if unknown := sorted(mixture.keys() ^ found.keys()):
        raise SettingsError(
            f"mixture: {', '.join(unknown)}: a weight for each data set and for no other; "
            f"there are {', '.join(sorted(found))}"
        )
    return found
