"""The bundle, a trained model as a folder that can be shared, and the discriminator that lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from torch import Tensor

from stylegan_t.files import write_json, write_text
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoders import TextEncoder
from stylegan_t.models.generator import Generator
from stylegan_t.models.model_card import model_card
from stylegan_t.models.weights import CONFIG, build, load_weights, read_config, read_weights, save_weights

GENERATOR, TEXT_ENCODER, CARD = "generator.safetensors", "text_encoder.safetensors", "README.md"
DISCRIMINATOR = "discriminator.safetensors"

BUNDLE_CURE = (
    f"a bundle is the folder that a training stage writes, with {CONFIG}, {GENERATOR} and {TEXT_ENCODER}; "
    "copy it again or repeat that stage"
)


class Facts(TypedDict):
    """What a bundle says about its own making; nearly all of it ends in the model card."""

    stage: str
    """The training stage that wrote it."""
    kimg: float
    """Thousand images shown in that stage."""
    data: str
    """What it was trained on, in words: "shapes, 17,600 pictures at 32 px"."""
    encoder: str
    """Which CLIP made the text embeddings, in words."""
    seed: int
    local_batch_norm: NotRequired[bool]
    """Whether the discriminator that taught it had one; where nothing is said, it had."""
    players: NotRequired[list[str]]
    """Digests of the weights of all frozen networks that taught it: none of them should judge it."""


@dataclass(frozen=True)
class Bundle:
    """A trained model: all that turns captions into pictures."""

    generator: Generator
    text_encoder: TextEncoder
    config: dict[str, Any]
    """``generator`` (arguments; a switch that is not there is on), ``text_encoder`` (spec), ``facts``."""

    @property
    def players(self) -> frozenset[str] | None:
        """Digests of the weights that taught it; None where nothing is said."""
        told = self.config["facts"].get("players")
        return None if told is None else frozenset(told)


def save_bundle(folder: Path, generator: Generator, text_encoder: TextEncoder, facts: Facts) -> None:
    """Write the shareable model; its config comes last, so that a folder that has one is whole."""
    config = {
        "generator": generator.arguments,
        "text_encoder": text_encoder.spec,
        "facts": dict(facts),
    }
    save_weights(folder / GENERATOR, generator.state_dict())
    save_weights(folder / TEXT_ENCODER, text_encoder.state_dict())
    write_text(folder / CARD, model_card(config))
    write_json(folder / CONFIG, config)


def load_bundle(folder: Path) -> Bundle:
    """The model in a folder, on the CPU, in eval mode.

    Raises:
        DataError: No bundle, or a damaged one; the line says what is wrong, where, and what helps.
    """
    config = read_config(folder / CONFIG, ("generator", "text_encoder", "facts"), BUNDLE_CURE)
    generator = build(folder, BUNDLE_CURE, lambda: Generator(**config["generator"]))
    text_encoder = build(folder, BUNDLE_CURE, lambda: TextEncoder(**config["text_encoder"]))
    load_weights(generator, folder / GENERATOR, BUNDLE_CURE)
    load_weights(text_encoder, folder / TEXT_ENCODER, BUNDLE_CURE)
    return Bundle(generator.eval(), text_encoder.eval(), config)


def save_discriminator(folder: Path, discriminator: Discriminator) -> None:
    """Write what the next training stage takes over: the heads with their spectral-norm vectors."""
    save_weights(folder / DISCRIMINATOR, discriminator.trainable_state())


def load_discriminator_state(folder: Path) -> dict[str, Tensor]:
    """The heads that a training stage left in ``folder``, for the discriminator's ``load_trainable_state``.

    Raises:
        DataError: Missing or damaged.
    """
    return read_weights(folder / DISCRIMINATOR, "repeat the training stage that writes it")
