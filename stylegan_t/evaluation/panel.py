"""The judges of a protocol, loaded: what each sees in pictures and captions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stylegan_t.data.images import to_signed
from stylegan_t.models.encoder_files import weights_sha256
from stylegan_t.models.judges import ClipFeatures, Features, load_judge, why_absent
from stylegan_t.settings.protocol import OF_CLIPS, Measure


@dataclass(frozen=True)
class Extractor:
    """A judge with its resize.

    Attributes:
        measure: What the protocol wants of it.
        features: The network.
        weights: Digests of its weight files.
        in_training: Whether the same weights took part in the training; None where that is not known.
    """

    measure: Measure
    features: Features
    weights: frozenset[str]
    in_training: bool | None

    @property
    def name(self) -> str:
        return self.measure.extractor

    @property
    def weights_sha256(self) -> str:
        """One digest of all weight files."""
        return hashlib.sha256("".join(sorted(self.weights)).encode()).hexdigest()


class Panel:
    """The judges that a protocol names, on one device.

    Args:
        judges: Folder of them, as ``fetch_encoders`` writes it.
        measures: What the protocol wants.
        device: Where they run.
        players: Digests of the weights that took part in the training (see ``player_weights``); None: not known.
        elsewhere: The folders of judges that do not lie in ``judges``, by their name.

    Attributes:
        extractors: Those that there are, by name.
        absent: Why each of the others is not there, by name.

    Raises:
        SettingsError: The protocol asks a network for what it cannot do.
        DataError: A judge's folder is damaged.
    """

    def __init__(
        self,
        judges: Path,
        measures: Sequence[Measure],
        device: torch.device,
        players: Collection[str] | None,
        elsewhere: Mapping[str, Path] | None = None,
    ) -> None:
        self.device = device
        self.extractors: dict[str, Extractor] = {}
        self.absent: dict[str, str] = {}
        for measure in measures:
            folder = (elsewhere or {}).get(measure.judge, judges / measure.judge)
            if reason := why_absent(folder.parent, folder.name):
                self.absent[measure.extractor] = reason
                continue
            features = load_judge(folder, measure.resize).to(device)
            if not isinstance(features, ClipFeatures) and (wrong := [m for m in measure.metrics if m in OF_CLIPS]):
                self.absent[measure.extractor] = f"{', '.join(wrong)} need a CLIP, and {measure.judge!r} is none"
                continue
            weights = weights_sha256(folder)
            in_training = None if players is None else not weights.isdisjoint(players)
            self.extractors[measure.extractor] = Extractor(measure, features, weights, in_training)

    @property
    def identity(self) -> dict[str, str]:
        """A digest for each extractor: other features, another one."""
        return {name: f"{each.weights_sha256} {each.features.resize}" for name, each in self.extractors.items()}

    @torch.no_grad()
    def look(self, pictures: Sequence[UInt8[Tensor, "3 _ _"]], batch_size: int) -> dict[str, Float[Tensor, "n _"]]:
        """What each extractor sees in pictures of any sizes, on the CPU."""
        rows: dict[str, list[Tensor]] = {name: [] for name in self.extractors}
        for first in range(0, len(pictures), batch_size):
            for name, found in self._look(pictures[first : first + batch_size]).items():
                rows[name].append(found)
        return {name: torch.cat(parts) for name, parts in rows.items()}

    def _look(self, pictures: Sequence[UInt8[Tensor, "3 _ _"]]) -> dict[str, Float[Tensor, "n _"]]:
        """The same in one batch: those of one size are prepared together, and all run together where they can."""
        prepared: dict[str, list[Tensor]] = {name: [] for name in self.extractors}
        groups = _of_one_size(pictures)
        for places in groups:
            signed = to_signed(torch.stack([pictures[place] for place in places]).to(self.device))
            for name, extractor in self.extractors.items():
                prepared[name].append(extractor.features.prepare(signed))
        order = torch.tensor([place for places in groups for place in places]).argsort()
        return {name: _seen(each.features, prepared[name])[order] for name, each in self.extractors.items()}

    @torch.no_grad()
    def read(self, captions: Sequence[str], batch_size: int) -> dict[str, Float[Tensor, "n _"]]:
        """What each CLIP sees in captions, on the CPU; a repeated one is read once."""
        unique = list(dict.fromkeys(captions))
        row = {caption: i for i, caption in enumerate(unique)}
        order = torch.tensor([row[caption] for caption in captions])
        result = {}
        for name, extractor in self.extractors.items():
            if isinstance(extractor.features, ClipFeatures):
                clip = extractor.features.clip
                spans = [unique[i : i + batch_size] for i in range(0, len(unique), batch_size)]
                result[name] = torch.cat([clip.encode_text(span).float() for span in spans]).cpu()[order]
        return result


def _of_one_size(pictures: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[list[int]]:
    """The places of the pictures of each size."""
    places: dict[torch.Size, list[int]] = {}
    for place, picture in enumerate(pictures):
        places.setdefault(picture.shape, []).append(place)
    return list(places.values())


def _seen(features: Features, prepared: list[Float[Tensor, "_ 3 _ _"]]) -> Float[Tensor, "n d"]:
    """The features of all images, on the CPU: in one pass, unless they still differ in size."""
    if len({images.shape[1:] for images in prepared}) == 1:
        prepared = [torch.cat(prepared)]
    return torch.cat([features(images).float() for images in prepared]).cpu()
