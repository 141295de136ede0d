"""Training batches from webdataset shards that are read from front to back: pipes, web servers, object stores.

Statistical, where the indexed reader is exact: shards are drawn at random with replacement and samples are mixed in a
buffer, so there are no epochs, and a resumed run goes on at another random place.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import signal
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.filters import shuffle
from webdataset.gopen import Pipe, gopen, set_options

from stylegan_t.data.batch import Batch, captions_in_turn, make_batch
from stylegan_t.data.manifest import MANIFEST, check_entries
from stylegan_t.data.shards import Sample
from stylegan_t.data.sources.remote import PIPE, File, find, remote_errors
from stylegan_t.data.tars import split_name
from stylegan_t.data.workers import read_ahead
from stylegan_t.errors import DataError, SettingsError, Unreachable
from stylegan_t.randomness import derive_seed

logger = logging.getLogger(__name__)

DAMAGE = (EOFError, ValueError, tarfile.TarError, zlib.error)
"""What a shard raises that breaks off or is no tar."""
MOST_FAILURES = 5
"""So many shards in a row may fail that lie elsewhere, before the training ends."""
CAPTION_SHARDS = 16
"""Shards that some captions are read from."""
BUFFER_BYTES = 2**18
CURL_NOT_WRITTEN = 23
STOPPED = {0, -signal.SIGPIPE, 128 + signal.SIGPIPE, CURL_NOT_WRITTEN}
"""How a command may end of whose output enough was read."""


class StreamedShard(NamedTuple):
    """A shard to stream.

    Attributes:
        num_samples: By its manifest, where that names the shard.
    """

    file: File
    num_samples: int | None


class Stream(NamedTuple):
    """Shards, and the manifests that say how they were made, by their places."""

    shards: list[StreamedShard]
    manifests: dict[str, dict[str, Any]]


def find_stream(patterns: Sequence[str], manifest: str | None, root: Path) -> Stream:
    """The shards that a setting names, and their manifests.

    Args:
        patterns: Paths, addresses and commands, with braces and globs.
        manifest: Place of the manifest; None = beside the shards.
        root: Where relative paths start.

    Raises:
        DataError: There is no shard or no manifest.
        SettingsError: It cannot be known which manifest it is.
    """
    files = find(patterns, root)
    if manifest is not None:
        named = find([manifest], root)
        if len(named) != 1:
            some = ", ".join(map(str, named[:3])) + (", …" if len(named) > 3 else "")
            raise SettingsError(f"reader.manifest = {manifest}: {len(named)} files ({some}); name one")
        places = named * len(files)
    elif homeless := [file for file in files if file.address.startswith(PIPE) or "::" in file.address]:
        raise SettingsError(
            f"{homeless[0]}: it is not known which folder has its {MANIFEST}; name it in reader.manifest"
        )
    else:
        places = [File(file.address, f"{file.path.rpartition('/')[0]}/{MANIFEST}") for file in files]
    manifests: dict[str, dict[str, Any]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for place in places:
        if str(place) not in manifests:
            manifests[str(place)] = found = _read_manifest(place)
            sizes[str(place)] = {entry["file"]: entry["num_samples"] for entry in found["shards"]}
    shards = [
        StreamedShard(file, sizes[str(place)].get(file.path.rpartition("/")[2]))
        for file, place in zip(files, places, strict=True)
    ]
    return Stream(shards, manifests)


def stream_batches(
    shards: Sequence[StreamedShard],
    *,
    shuffle_buffer: int,
    batch_size: int,
    start_nimg: int,
    seed: int,
    num_workers: int,
    share: range | None = None,
    image_px: Callable[[int], int | None] = lambda nimg: None,
    horizontal_flip: bool = False,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Endless batches; what is drawn follows from ``seed``, ``start_nimg``, ``share`` and the number of workers.

    Args:
        shuffle_buffer: Samples that each worker mixes.
        share: As of ``loader.batches``, like all others; each process and each worker draws shards of its own.

    Raises:
        DataError: A local shard is damaged, or others fail again and again; no shard holds a sample.
    """
    share = share or range(batch_size)
    if share.start == 0:
        logger.info(
            "a stream of %d shards, drawn at random: what comes from image %d on is not what an unbroken run would "
            "have shown, or one on other devices or with other workers (reader.kind = indexed repeats itself exactly)",
            len(shards), start_nimg,
        )  # fmt: skip
    samples = _Streamed(shards, shuffle_buffer, batch_size, start_nimg, seed, share, image_px, horizontal_flip)
    return read_ahead(samples, None, num_workers=num_workers, pin_memory=pin_memory)


def read_shard(shard: StreamedShard) -> Iterator[Sample]:
    """The samples of a shard, from front to back.

    Raises:
        DataError: It is damaged; the message does not name it, like those of all the errors of files and servers.
    """
    file = _open(shard.file)
    count = 0
    try:
        with tarfile.open(fileobj=file, mode="r|*", bufsize=BUFFER_BYTES) as tar:
            for key, fields in itertools.groupby(_members(tar), lambda member: member[0]):
                count += 1
                yield Sample(key, {ext: data for _, ext, data in fields})
        while file.read(BUFFER_BYTES):  # a command that may write to its end tells whether it failed
            pass
    except (OSError, *DAMAGE) as error:
        raise (_failure(file) or DataError(_line(error))) from None
    finally:
        set_options(file, ignore_errors=True)  # of a command that nobody let finish
        file.close()
    if failure := _failure(file):
        raise failure
    if shard.num_samples not in (None, count):
        raise DataError(f"holds {count} samples, by its manifest {shard.num_samples}")


def _failure(file: Any) -> OSError | None:
    """Why the command behind a pipe failed, other than for want of a reader."""
    if not isinstance(file, Pipe):
        return None
    set_options(file, ignore_errors=True)
    file.close()
    status = file.proc.returncode
    return OSError(f"the command that reads it ended with status {status}") if status not in STOPPED else None


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes]]:
    """Key, extension and bytes of each part of a sample."""
    while member := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
        name = split_name(member.name) if member.isreg() else None
        if name and (file := tar.extractfile(member)):
            yield *name, file.read()


def some_streamed_captions(shards: Sequence[StreamedShard], count: int) -> tuple[list[str], Float[Tensor, "m c_dim"]]:
    """At most ``count`` captions and embeddings, from the beginnings of shards spread evenly over the list.

    Raises:
        DataError: A shard cannot be read, or there are no samples.
    """
    numbers = np.linspace(0, len(shards) - 1, min(CAPTION_SHARDS, len(shards))).round().astype(int)
    samples: list[Sample] = []
    for number in numbers.tolist():
        try:
            samples += itertools.islice(read_shard(shards[number]), -(-count // len(numbers)))
        except (DataError, *remote_errors()) as error:
            raise _unreadable(shards[number], error) from None
    if not samples:
        raise _nothing([shards[number] for number in numbers.tolist()])
    return captions_in_turn(samples[:count])


class _Streamed(IterableDataset[Batch]):
    """Decoded batches of samples as they come."""

    def __init__(
        self,
        shards: Sequence[StreamedShard],
        shuffle_buffer: int,
        batch_size: int,
        start_nimg: int,
        seed: int,
        share: range,
        image_px: Callable[[int], int | None],
        horizontal_flip: bool,
    ) -> None:
        super().__init__()
        self._shards, self._shuffle_buffer = list(shards), shuffle_buffer
        self._batch_size, self._start_nimg, self._seed, self._share = batch_size, start_nimg, seed, share
        self._image_px, self._horizontal_flip = image_px, horizontal_flip

    def __iter__(self) -> Iterator[Batch]:
        """This worker's batches: torch takes one of each worker in turn."""
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        rng = random.Random(derive_seed(self._seed, "stream", self._start_nimg, self._share.start, worker))
        samples = shuffle(self._shuffle_buffer, rng=rng)(self._samples(rng))
        first = self._start_nimg + worker * self._batch_size
        for nimg in itertools.count(first, num_workers * self._batch_size):
            drawn = list(itertools.islice(samples, len(self._share)))
            yield make_batch(
                drawn, nimg + self._share.start, self._seed,
                image_px=self._image_px(nimg), horizontal_flip=self._horizontal_flip,
            )  # fmt: skip

    def _samples(self, rng: random.Random) -> Iterator[Sample]:
        """Samples of shards drawn with replacement, without end."""
        failures, shards = 0, list(self._shards)
        while shards:
            shard, is_empty = rng.choice(shards), True
            try:
                for sample in read_shard(shard):
                    is_empty = False
                    yield sample
                failures = 0
                if is_empty:
                    shards.remove(shard)  # else a stream of nothing would be read for ever
            except (DataError, *remote_errors()) as error:
                failures += 1
                if shard.file.is_local or failures == MOST_FAILURES:
                    raise _unreadable(shard, error) from None
                logger.warning("%s: not a readable shard (%s); going on with another", shard.file, _line(error))
        raise _nothing(self._shards)


def _nothing(shards: Sequence[StreamedShard]) -> DataError:
    others = f", like the other {len(shards) - 1} that were read" if len(shards) > 1 else ""
    return DataError(
        f"{shards[0].file}: holds no samples{others}; loosen the rules of params.yaml's section filter, or name others "
        "in reader.shards"
    )


def _unreadable(shard: StreamedShard, error: Exception) -> DataError | Unreachable:
    what = f"{shard.file}: not a readable shard ({_line(error)})"
    if shard.file.is_local:
        return DataError(f"{what}; replace it by a whole one")
    return Unreachable(f"{what}; when it can be read, the same command goes on")


def _open(file: File) -> Any:
    """What commands write and web servers send comes through a pipe, anything else as fsspec reads it, in pieces."""
    if file.address.startswith((PIPE, "http://", "https://")):
        return gopen(str(file))
    return file.fs.open(file.path, "rb")


def _read_manifest(place: File) -> dict[str, Any]:
    try:
        with _open(place) as file:
            manifest = json.loads(file.read())
        if not isinstance(manifest, dict) or {"encoder", "num_samples", "shards"} - manifest.keys():
            raise ValueError("not the manifest of prepared shards")
        check_entries(manifest["shards"])
    except (ValueError, *remote_errors()) as error:
        raise DataError(
            f"{place}: not readable ({_line(error)}), so that the encoder of the shards' text embeddings is unknown; "
            "copy the manifest of stage filter there, or name its place in reader.manifest"
        ) from None
    return manifest


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
