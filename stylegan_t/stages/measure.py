"""What ``score`` tells of pictures and captions, batch by batch, with all but the networks done in the background.

Pillow, hashlib and numpy let other Python threads run while they work: while the networks look at one batch, the next
is read, decoded, hashed, resized and tokenised. Two batches are in memory at a time, however long a shard is, and no
row depends on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32, Int, UInt8
from PIL import Image
from torch import Tensor

from stylegan_t.data import measures
from stylegan_t.data.images import UndecodableImage, decode_in_thread, square, to_signed
from stylegan_t.data.scores import PLUGIN
from stylegan_t.data.shards import Sample
from stylegan_t.models.encoders import Clip
from stylegan_t.models.plugins import EmbeddingHead, PictureClassifier
from stylegan_t.stages.passes import Pass

NO_PICTURE = np.zeros((1, 1, 3), np.uint8)
"""Stands in for one that does not decode, so that each batch has a picture for each sample."""


@dataclass(frozen=True)
class Networks:
    """What looks at pictures and captions, all on one device."""

    clip: Clip
    heads: Mapping[str, EmbeddingHead] = field(default_factory=dict)
    classifiers: Mapping[str, PictureClassifier] = field(default_factory=dict)


class Look(NamedTuple):
    """A picture without its pixels: what is told without a network, and what the networks see.

    Attributes:
        seen: The centre square, at the CLIP's resolution.
        squashed: The whole picture, at that of each classifier.
    """

    decodable: bool
    width: int
    height: int
    pixel_sha256: bytes
    hash_input: UInt8[np.ndarray, "q q"]
    sharpness: float
    seen: UInt8[np.ndarray, "p p 3"]
    squashed: dict[str, UInt8[np.ndarray, "_ _ 3"]]


class Batch(NamedTuple):
    """Samples, ready for the networks.

    Attributes:
        captions: Of each sample.
        tokens: Of all captions, one sample's after the other's.
        languages: The same.
    """

    samples: list[Sample]
    looks: list[Look]
    captions: list[list[str]]
    tokens: Int[Tensor, "m context"]
    languages: list[str]


@dataclass(frozen=True)
class Measurer:
    """Measures samples. While it does, ``images.pillow_warnings`` must be entered.

    Args:
        networks: What they are measured with.
        forward: How these are applied; see ``forward_passes``.
        batch_size: Pictures, and captions, a forward pass.
        sharpness_px: See ``measures.sharpness``.
        languages: What tells a caption's language.
        num_threads: Threads that decode.
    """

    networks: Networks
    forward: Pass
    batch_size: int
    sharpness_px: int
    languages: measures.Languages
    num_threads: int

    def pairs(self, samples: Iterable[Sample]) -> Iterator[pa.Table]:
        """Tables of ``score_schema``'s columns, with a row for each sample, in order."""
        return (measure(batch, self.networks, self.forward, self.batch_size) for batch in self._batches(samples))

    def pictures(self, samples: Iterable[Sample]) -> Iterator[pa.Table]:
        """Tables of ``evaluation_schema``'s columns (and more), with a row for each picture that decodes, in order."""
        for batch in self._batches(samples):
            _, columns = see(batch.looks, Networks(self.networks.clip), self.forward)
            table = pa.table({"key": [sample.key for sample in batch.samples], **columns})
            yield table.filter(table["decodable"])

    def _batches(self, samples: Iterable[Sample]) -> Iterator[Batch]:
        """All samples, the next batch made ready while the caller works on the last one."""
        with ThreadPoolExecutor(self.num_threads) as pool, ThreadPoolExecutor(1) as ahead:
            make_ready = partial(self._next_batch, iter(samples), pool)
            following = ahead.submit(make_ready)
            while batch := following.result():
                following = ahead.submit(make_ready)
                yield batch

    def _next_batch(self, samples: Iterator[Sample], pool: ThreadPoolExecutor) -> Batch | None:
        """The next samples, None where there are no more."""
        chosen = list(islice(samples, self.batch_size))
        if not chosen:
            return None
        clip, squash_px = self.networks.clip, {name: net.image_px for name, net in self.networks.classifiers.items()}
        look = partial(look_at, clip_px=clip.image_px, sharpness_px=self.sharpness_px, squash_px=squash_px)
        looks = pool.map(look, [sample.image for sample in chosen])
        captions = [sample.captions for sample in chosen]
        flat = list(chain.from_iterable(captions))
        tokens = clip.text.tokenize(flat)
        return Batch(chosen, list(looks), captions, tokens, [self.languages(caption) for caption in flat])


def look_at(data: bytes, *, clip_px: int, sharpness_px: int, squash_px: Mapping[str, int]) -> Look:
    """What a thread does with a picture's file."""
    try:
        picture, decodable = decode_in_thread(data), True
    except UndecodableImage:
        picture, decodable = NO_PICTURE, False
    height, width = picture.shape[:2]
    grey = measures.luminance(picture)
    return Look(
        decodable=decodable,
        width=width,
        height=height,
        pixel_sha256=measures.pixel_hash(picture),
        hash_input=measures.hash_input(grey),
        sharpness=measures.sharpness(grey, sharpness_px),
        seen=square(picture, clip_px),
        squashed={name: squash(picture, side) for name, side in squash_px.items()},
    )


def squash(picture: UInt8[np.ndarray, "h w 3"], side_px: int) -> UInt8[np.ndarray, "p p 3"]:
    """The whole picture as a square."""
    return np.array(Image.fromarray(picture).resize((side_px, side_px), Image.Resampling.BICUBIC))


def measure(batch: Batch, networks: Networks, forward: Pass, batch_size: int) -> pa.Table:
    """The columns of ``score_schema``, with a row for each sample; several captions each are several passes."""
    image, columns = see(batch.looks, networks, forward)
    text = torch.cat([forward(networks.clip.text, tokens) for tokens in batch.tokens.split(batch_size)]).numpy()
    counts = [len(captions) for captions in batch.captions]
    sample_of = np.repeat(np.arange(len(counts)), counts)
    decodable = np.array([look.decodable for look in batch.looks])
    clip_score = np.where(decodable[sample_of], (image[sample_of] * text).sum(axis=1), np.float32(np.nan))
    captions = list(chain.from_iterable(batch.captions))
    of_captions = {
        "captions": pa.array(captions, pa.string()),
        "caption_words": pa.array([measures.num_words(caption) for caption in captions], pa.int32()),
        "language": pa.array(batch.languages, pa.string()),
        "clip_score": pa.array(clip_score),
        "text_embedding": _vectors(text),
    }
    starts = pa.array(np.cumsum([0, *counts]), pa.int32())
    urls = [sample.metadata.get("url") for sample in batch.samples]
    return pa.table({
        "key": [sample.key for sample in batch.samples],
        "num_bytes": pa.array([len(sample.image) for sample in batch.samples], pa.int32()),
        "url": pa.array([url if isinstance(url, str) else None for url in urls], pa.string()),
        **columns,
        **{name: pa.ListArray.from_arrays(starts, values) for name, values in of_captions.items()},
    })  # fmt: skip


def see(looks: list[Look], networks: Networks, forward: Pass) -> tuple[Float32[np.ndarray, "n c"], dict[str, pa.Array]]:
    """The pictures' embeddings, and all columns that need no caption; zeros or NaN where one does not decode."""
    decodable = np.array([look.decodable for look in looks])
    encode = lambda seen: networks.clip.encode_image(to_signed(seen))
    embeddings = forward(encode, _stacked(look.seen for look in looks))
    told = {name: forward(head, embeddings) for name, head in networks.heads.items()}
    for name, net in networks.classifiers.items():
        squashed = _stacked(look.squashed[name] for look in looks)
        told[name] = forward(lambda seen, net=net: net(to_signed(seen)), squashed)
    image = np.where(decodable[:, None], embeddings.numpy(), np.float32(0))
    hashes = measures.perceptual_hashes(np.stack([look.hash_input for look in looks]))
    number = lambda values: pa.array(np.where(decodable, values, np.nan), pa.float32())
    return image, {
        "decodable": pa.array(decodable),
        "width": pa.array([look.width * look.decodable for look in looks], pa.int32()),
        "height": pa.array([look.height * look.decodable for look in looks], pa.int32()),
        "pixel_sha256": pa.array([look.pixel_sha256 if look.decodable else bytes(32) for look in looks], pa.binary(32)),
        "perceptual_hash": pa.array(hashes * decodable),
        "sharpness": number([look.sharpness for look in looks]),
        "image_embedding": _vectors(image),
        **{PLUGIN + name: number(values.numpy()) for name, values in told.items()},
    }


def _stacked(pictures: Iterable[UInt8[np.ndarray, "h w 3"]]) -> UInt8[Tensor, "n 3 h w"]:
    return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2)


def _vectors(embeddings: Float32[np.ndarray, "n c"]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(embeddings.astype(np.float16).ravel()), embeddings.shape[1])
