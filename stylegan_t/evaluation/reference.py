"""What real images look like to the judges, at each resolution that a model paints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stylegan_t.data.images import UndecodableImage, decode_batch, to_signed, to_uint8
from stylegan_t.data.shards import Shards
from stylegan_t.errors import DataError
from stylegan_t.files import atomic, write_json
from stylegan_t.metrics import Moments

STATISTICS, FACTS = "statistics.safetensors", "statistics.json"
MOST_FEATURES = 10_000
"""Raw features kept for the kernel distance."""


@dataclass(frozen=True)
class Reference:
    """Real images at one resolution: moments of all features, and raw ones for the kernel distance."""

    moments: Moments
    features: Float[Tensor, "m f"]


def real_images(heldout: Shards, numbers: Iterable[int]) -> UInt8[Tensor, "n 3 h w"]:
    """Raises DataError where a stored picture is damaged."""
    try:
        return decode_batch([heldout[number].image for number in numbers])
    except UndecodableImage as error:
        raise DataError(f"{heldout.folder}: {error}; run `dvc repro --force filter`") from None


def reduced(images: UInt8[Tensor, "n 3 h w"], px: int) -> UInt8[Tensor, "n 3 px px"]:
    """The pictures area-reduced, as in training: a stage is compared with reals of its own resolution."""
    if images.shape[3] == px:
        return images
    return to_uint8(F.interpolate(to_signed(images), size=(px, px), mode="area"))


def reference_of(features: Float[Tensor, "n f"]) -> Reference:
    return Reference(Moments.of(features), features[:MOST_FEATURES].clone())


def save_statistics(folder: Path, references: dict[int, Reference], facts: dict[str, Any]) -> None:
    """Write the numbers and then what they are of; a folder with the facts is complete."""
    tensors = {}
    for px, reference in references.items():
        tensors[f"{px}px.mean"] = reference.moments.mean
        tensors[f"{px}px.scatter"] = reference.moments.scatter
        tensors[f"{px}px.features"] = reference.features
    with atomic(folder / STATISTICS) as temporary:
        save_file(tensors, temporary)
    write_json(folder / FACTS, facts)


def load_statistics(
    folder: Path, origin: dict[str, str], resolutions: Sequence[int]
) -> tuple[dict[int, Reference], dict[str, dict[str, float]]]:
    """The reals of each resolution, and the judges' scores of the reals themselves.

    Args:
        origin: Content hashes of the data and of the judges, which the statistics must have been made from.

    Raises:
        DataError: Absent, damaged, or of other data, judges or resolutions.
    """
    cure = "run `dvc repro reference_statistics`"
    try:
        facts = json.loads((folder / FACTS).read_text())
        tensors = load_file(folder / STATISTICS)
        count, stored, scores = facts["num_images"], facts["origin"], facts["reals"]
    except FileNotFoundError as error:
        raise DataError(f"{error.filename or folder}: missing; {cure}") from None
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder}: damaged ({' '.join(str(error).split())}); {cure}") from None
    if changed := [name for name, value in origin.items() if stored.get(name) != value]:
        raise DataError(f"{folder / FACTS}: made from another {' and another '.join(changed)}; {cure}")
    references = {}
    for px in resolutions:
        if f"{px}px.mean" not in tensors:
            raise DataError(f"{folder / STATISTICS}: nothing at {px} px; {cure}")
        moments = Moments(count, tensors[f"{px}px.mean"], tensors[f"{px}px.scatter"])
        references[px] = Reference(moments, tensors[f"{px}px.features"])
    return references, scores


def halves(features: Float[Tensor, "n f"]) -> tuple[Float[Tensor, "m f"], Float[Tensor, "m f"]]:
    """Every second one, and the others: two samples of the same pictures' world, of one size."""
    half = len(features) // 2
    return features[0 : 2 * half : 2], features[1 : 2 * half : 2]
