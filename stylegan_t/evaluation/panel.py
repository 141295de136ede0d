"""The judges: a CLIP that compares pictures with captions, and features that compare sets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stylegan_t.data.images import to_signed
from stylegan_t.models.encoder_files import identity
from stylegan_t.models.judges import (
    ClipFeatures,
    Features,
    InceptionFeatures,
    load_judge_clip,
    load_judge_features,
)

SEEN_IN_TRAINING = "_seen_in_training"
TEXT_BATCH = 256


@dataclass(frozen=True)
class Measured:
    """What the judges see in a list of pictures, row by row, on the CPU."""

    features: Float[Tensor, "n f"]
    embeddings: Float[Tensor, "n e"]

    def first(self, count: int) -> Measured:
        return Measured(self.features[:count], self.embeddings[:count])


def joined(parts: Sequence[Measured]) -> Measured:
    return Measured(torch.cat([p.features for p in parts]), torch.cat([p.embeddings for p in parts]))


class Panel:
    """The judges on one device.

    Attributes:
        identities: Content hashes of both networks: ``clip`` and ``features``.
    """

    def __init__(self, judges: Path, device: torch.device) -> None:
        self.device = device
        self.clip = load_judge_clip(judges).to(device)
        self.extractor = load_judge_features(judges).to(device)
        self.identities = {name: identity(judges / name) for name in ("clip", "features")}

    @torch.no_grad()
    def measure(self, images: UInt8[Tensor, "n 3 h w"]) -> Measured:
        """Features and embeddings of pictures of any size; each judge resizes them to its own input."""
        signed = to_signed(images.to(self.device))
        embeddings = self.clip.encode_image(signed)
        features = embeddings if isinstance(self.extractor, ClipFeatures) else self.extractor(signed)
        return Measured(features.float().cpu(), embeddings.float().cpu())

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Float[Tensor, "n e"]:
        """The judge's embeddings of captions."""
        parts = [captions[i : i + TEXT_BATCH] for i in range(0, len(captions), TEXT_BATCH)]
        return torch.cat([self.clip.encode_text(part).float().cpu() for part in parts])

    def names(self, players: Path) -> tuple[str, str]:
        """How the CLIP and the feature network appear in a metric's name.

        Where the same weights took part in the training, the name ends in ``_seen_in_training``: such a
        figure flatters the model.
        """
        in_training = {identity(folder) for folder in players.iterdir() if folder.is_dir()}
        clip = SEEN_IN_TRAINING if self.identities["clip"] in in_training else ""
        features = SEEN_IN_TRAINING if self.identities["features"] in in_training else ""
        if isinstance(self.extractor, ClipFeatures):
            features = clip
        return f"judge{clip}", f"{extractor_name(self.extractor)}{features}"


def extractor_name(extractor: Features) -> str:
    if isinstance(extractor, ClipFeatures):
        return "judge_clip"
    return f"inception_{extractor.mode}" if isinstance(extractor, InceptionFeatures) else "dinov2"
