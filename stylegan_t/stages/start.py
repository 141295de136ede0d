"""What a training stage starts from: the stage before, or a bundle or published weights of the user's choice."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stylegan_t.errors import DataError, SettingsError
from stylegan_t.models.bundle import DISCRIMINATOR, GENERATOR, TEXT_ENCODER, load_bundle, load_discriminator_state
from stylegan_t.models.discriminator import Discriminator, has_local_batch_norm
from stylegan_t.models.encoders import Clip, TextEncoder
from stylegan_t.models.generator import Generator
from stylegan_t.models.reference import generator_from_reference
from stylegan_t.models.weights import CONFIG, read_weights
from stylegan_t.settings.training import Network

logger = logging.getLogger(__name__)

PUBLISHED_CURE = "expected a generator's weights in the published layout, as safetensors"
KINDS = "a bundle's folder, or a safetensors file of a generator in the published layout"


@dataclass(frozen=True)
class Start:
    """A trained generator with what lay beside it.

    Attributes:
        text_encoder: Of a bundle; None for published weights, which were trained with the original one.
        heads: Of the discriminator, where there are any.
    """

    generator: Generator
    text_encoder: TextEncoder | None
    heads: dict[str, Tensor] | None


def files_of(path: Path) -> list[Path]:
    """The files that decide what is started from: a bundle's weights and their description, or the file itself.

    Raises:
        DataError: There is nothing to start from.
    """
    if path.is_file():
        return [path]
    files = [path / name for name in (CONFIG, GENERATOR, TEXT_ENCODER, DISCRIMINATOR)]
    if not path.is_dir():
        raise DataError(f"{path}: missing; {KINDS} is needed to start from: run the stage before, or set start_from")
    return [file for file in files if file.is_file()]


def load_start(path: Path, network: Network, clip: Clip) -> Start:
    """The model in a bundle's folder or in a safetensors file of the published layout, on the CPU.

    Args:
        network: The generator's architecture: published weights do not tell it, a bundle must agree with it.
        clip: Whose text embeddings condition the generator.

    Raises:
        DataError: Nothing there, or damaged, or of another kind.
        SettingsError: The model has another architecture than ``network`` says, or reads other embeddings.
    """
    start = _from_bundle(path) if path.is_dir() else _from_published(path, network, clip)
    found = start.generator.arguments
    different = [name for name, wanted in network.of_generator().items() if found[name] != wanted]
    if wrong := [f"{name} = {json.dumps(found[name])}" for name in different]:
        raise SettingsError(f"start_from {path}: its generator has {', '.join(wrong)}; set train_generator.network so")
    if start.generator.c_dim != clip.embed_dim:
        raise SettingsError(
            f"start_from {path}: its generator reads text embeddings of {start.generator.c_dim} numbers, "
            f"fetch_encoders.clip makes {clip.embed_dim}; use the encoder it was trained with"
        )
    return start


def _from_bundle(folder: Path) -> Start:
    bundle = load_bundle(folder)
    heads = load_discriminator_state(folder) if (folder / DISCRIMINATOR).exists() else None
    return Start(bundle.generator, bundle.text_encoder, heads)


def _from_published(file: Path, network: Network, clip: Clip) -> Start:
    weights = read_weights(file, PUBLISHED_CURE)
    sides = [int(found[1]) for name in weights if (found := re.match(r"synthesis\.b(\d+)\.", name))]
    if not sides:
        raise DataError(f"{file}: no tensor is called synthesis.b…; {PUBLISHED_CURE}")
    meta = {**network.model_dump(), "c_dim": clip.embed_dim, "resolution": max(sides)}
    try:
        return Start(generator_from_reference(weights, meta), None, None)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{file}: does not fit train_generator.network ({reason}); {PUBLISHED_CURE}") from None


def take_heads(discriminator: Discriminator, start: Start, path: Path) -> None:
    """Go on with the discriminator that lay beside the model; without one, with a new one.

    Raises:
        DataError: Its heads are for another feature network.
        SettingsError: They have a local batch norm and the settings say none, or the other way round.
    """
    if start.heads is None:
        logger.info("%s: no %s beside the model: the discriminator starts anew", path, DISCRIMINATOR)
        return
    if (found := has_local_batch_norm(start.heads)) != discriminator.local_batch_norm:
        raise SettingsError(
            f"start_from {path}: its discriminator has local_batch_norm = {json.dumps(found)}; set "
            f"train_generator.network so, or remove {path / DISCRIMINATOR} to start with a new discriminator"
        )
    try:
        discriminator.load_trainable_state(start.heads)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{path / DISCRIMINATOR}: does not fit fetch_encoders.discriminator_vit ({reason}); remove the file to "
            "start with a new discriminator"
        ) from None
