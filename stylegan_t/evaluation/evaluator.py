"""Measures sets of pictures by one protocol; every set that was seen once stays on disk (see sets.py)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.errors import DataError
from stylegan_t.evaluation.fakes import Painted
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.pictures import FIT, Pictures, captions_sha256, fitted
from stylegan_t.evaluation.scores import NUM_CHOICES, OF_PAIRS, OF_SETS, Agreement, Reference, Scorer, absences
from stylegan_t.evaluation.sets import Seen, Share, digest_of, see, spans, summary
from stylegan_t.metrics.pairs import cosines
from stylegan_t.progress import Progress
from stylegan_t.randomness import derive_seed
from stylegan_t.records import Evaluation, Measurement
from stylegan_t.settings.protocol import Protocol

POOL = 500
"""Different captions from which the wrong ones are taken: memory does not grow with the captions."""


class Evaluator:
    """One protocol, its judges, and a folder for what they saw.

    Args:
        name: The protocol's.
        protocol: What is measured.
        panel: Its judges.
        work: Folder for the parts of sets.
        batch_size: Pictures of a judge's forward pass.
        seed: Of subsets and wrong captions.
        share: Which of several processes this is.
        progress: Counts pictures seen.
    """

    def __init__(
        self,
        name: str,
        protocol: Protocol,
        panel: Panel,
        work: Path,
        *,
        batch_size: int,
        seed: int,
        share: Share,
        progress: Progress,
    ) -> None:
        self.name, self.protocol, self.panel, self.work = name, protocol, panel, work
        self.batch_size, self.seed, self.share, self.progress = batch_size, seed, share, progress
        self._known: set[Path] = set()

    def see(self, pictures: Pictures, px: int | None, note: str = "") -> Seen:
        """What the judges see in pictures at a side of ``px``."""
        folder = self.work / digest_of("pictures", pictures.identity, px, self.panel.identity, self.batch_size)

        def look(span: range) -> dict[str, Tensor]:
            chunks = [
                span[i : i + self.batch_size] for i in range(0, len(span), self.batch_size)
            ]  # photographs are large
            found = [self.panel.look(fitted(pictures.read(chunk), px), self.batch_size) for chunk in chunks]
            return {name: torch.cat([each[name] for each in found]) for name in found[0]}

        first, self._known = folder not in self._known, self._known | {folder}
        return see(folder, pictures.count, look, self.share, self.progress if first else None, note or pictures.name)

    def read(self, captions: list[str]) -> Seen:
        """What the CLIPs see in captions, one for each picture."""
        folder = self.work / digest_of("captions", captions_sha256(captions), self.panel.identity)
        look = lambda span: self.panel.read([captions[i] for i in span], self.batch_size)
        return see(folder, len(captions), look, self.share)

    def meet(self) -> bool:
        """Wait until every process has looked at its share; True in the first one, which measures, alone from then on.

        What it does not find after that, on a slow network disk say, it looks at itself.
        """
        self.share.wait_for_all()
        first, self.share = self.share.rank == 0, Share()
        return first

    def references(self, reals: Pictures, px: int | None) -> dict[str, Reference]:
        """Real pictures as each extractor sees them."""
        return references(self.see(reals, px), self.panel)

    def evaluate(
        self,
        pictures: Pictures,
        captions: list[str] | str,
        px: int | None,
        references: Mapping[str, Reference],
        reference_sha256: str,
        *,
        seeds: str | None = None,
        limit: int | None = None,
    ) -> Evaluation:
        """All measurements of a set of pictures. Of several processes the first alone measures, after they have met.

        Args:
            captions: One for each picture; or why there are none.
            references: The real pictures.
            reference_sha256: Identity of them.
            seeds: Where the latents came from, in words.
            limit: Only the first so many pictures.

        Raises:
            DataError: There are fewer than two pictures.
        """
        count = min(limit or pictures.count, pictures.count)
        if count < 2:
            raise DataError(f"{pictures.name}: {count} picture; a set of at least 2 can be measured")
        self.progress.advance(0, f"measuring {pictures.name}")
        seen = self.see(pictures, px)
        texts = None if isinstance(captions, str) else self.read(captions)
        measurements = []
        for name, extractor in self.panel.extractors.items():
            scorer = Scorer(self.protocol, extractor, count, px, self.seed)
            if scorer.wanted(*OF_SETS):
                measurements += scorer.of_sets(summary(seen, name, self.panel.device, count), references[name])
            if scorer.wanted(*OF_PAIRS):
                if texts is None or isinstance(captions, str):
                    fit: Agreement | str = str(captions)
                else:
                    fit = agreement_of(seen, texts, captions[:count], name, self.seed)
                measurements += scorer.of_pairs(fit)
        measurements += absences(self.protocol, self.panel.absent, count, px)
        return Evaluation(
            protocol=self.name,
            subject=pictures.name,
            subject_sha256=pictures.model.identity if isinstance(pictures, Painted) else pictures.identity,
            weights=pictures.model.weights if isinstance(pictures, Painted) else "none",
            psi=pictures.psi if isinstance(pictures, Painted) else None,
            seeds=seeds,
            count=count,
            px=px,
            fit=FIT if px else None,
            captions_sha256=None if isinstance(captions, str) else captions_sha256(captions[:count]),
            reference=self.protocol.reference,
            reference_sha256=reference_sha256,
            reference_count=next((each.moments.count for each in references.values()), 0),
            measurements=measurements,
        )

    def best_of(self, pictures: Painted, px: int | None, num_pictures: int) -> list[Measurement]:
        """The best of several pictures of a prompt, which follow each other in ``pictures``."""
        seen, texts = self.see(pictures, px, "best of several"), self.read(pictures.prompts)
        found = []
        for name, extractor in self.panel.extractors.items():
            scorer = Scorer(self.protocol, extractor, pictures.count // num_pictures, px, self.seed)
            if scorer.wanted("best_of"):
                pairs = cosines(seen.rows(name), texts.rows(name))
                found += scorer.of_best(pairs.unflatten(0, (-1, num_pictures)))
        return found


def references(seen: Seen, panel: Panel) -> dict[str, Reference]:
    """What is kept of real pictures."""
    found = {}
    for name in panel.extractors:
        each = summary(seen, name, panel.device)
        found[name] = Reference(each.streamed.moments, each.features)
    return found


def agreement_of(seen: Seen, texts: Seen, captions: Sequence[str], name: str, seed: int) -> Agreement:
    """How well each picture fits its caption, and wrong ones: different captions of the same pictures.

    Args:
        seen: The pictures, or more of them.
        texts: The captions, or more of them.
        captions: One for each picture that counts.
        name: A CLIP among the extractors.
        seed: Of the wrong captions.
    """
    count = len(captions)
    place, pool = _pool(texts, captions, name, seed)
    num_choices = min(NUM_CHOICES, len(pool))
    offsets = random.Random(derive_seed(seed, "wrong captions")).sample(range(1, len(pool)), num_choices - 1)
    right, wrong = [], []
    for span, images, embeddings in zip(spans(count), seen.parts(name, count), texts.parts(name, count), strict=True):
        own = torch.tensor([place.get(captions[i], i) for i in span])  # of one that is not in the pool, all are wrong
        right.append(cosines(images, embeddings))
        others = [cosines(images, pool[(own + offset) % len(pool)]) for offset in offsets]
        wrong.append(torch.stack(others, dim=1) if others else torch.zeros(len(images), 0))
    return Agreement(torch.cat(right), torch.cat(wrong))


def _pool(texts: Seen, captions: Sequence[str], name: str, seed: int) -> tuple[dict[str, int], Float[Tensor, "p d"]]:
    """Different captions, by their place among the rows of the second, which a CLIP saw."""
    different = list(dict.fromkeys(captions))
    chosen = random.Random(derive_seed(seed, "pool")).sample(different, min(POOL, len(different)))
    missing, place, rows = set(chosen), dict[str, int](), []
    for span, embeddings in zip(spans(len(captions)), texts.parts(name, len(captions)), strict=True):
        for row, number in enumerate(span):
            if (caption := captions[number]) in missing:
                missing.remove(caption)
                place[caption] = len(rows)
                rows.append(embeddings[row].clone())  # a view would keep the whole part alive
    return place, torch.stack(rows)
