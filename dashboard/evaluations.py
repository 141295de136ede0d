"""The evaluation's records as figures: each number of the final model beside what it is to be held against.

Neither Streamlit nor torch is imported here.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dashboard.runs import read_json
from stylegan_t.records import EVALUATIONS, Evaluation, Measurement, read_lines

FINAL, UNTRAINED = "train_super_resolution", "untrained"
SEEN_IN_TRAINING = "seen in training"
"""Flag of a metric whose network took part in the training: the model may have learnt to please it."""
TITLES = {
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
    "cmmd": "CMMD",
    "clip_score": "CLIP score",
    "clip_score_of_wrong_captions": "CLIP score of wrong captions",
}
OF_CLIP = {"retrieval_1_of_": "own caption found, of ", "clip_score_best_of_": "CLIP score, best of "}
"""Beginnings of metrics that go on with a count."""
ONLY_INCEPTION = {"fid": "FID", "kid": "KID"}
SHARES = ("precision", "recall", "coverage", "retrieval_1_of_")


@dataclass(frozen=True)
class Found:
    """The records of an evaluation, as far as they concern the final model.

    Attributes:
        final: At psi 1 and the full count, one for each repetition.
        swept: At the count of the sweep over psi, which may be smaller.
        untrained: A generator that never saw a picture.
        reals: The real pictures, one half against the other.
    """

    final: Sequence[Evaluation]
    swept: Evaluation
    untrained: Evaluation | None
    reals: Evaluation | None


@dataclass(frozen=True)
class Figure:
    """One metric of the final model; of several repetitions, the middle one.

    Attributes:
        reals, untrained: The same metric of real pictures and of an untrained generator, where it was measured.
        spread: Range over the repetitions; None for a single one.
    """

    measurement: Measurement
    value: float
    reals: Measurement | None
    untrained: Measurement | None
    spread: float | None

    @property
    def column(self) -> str:
        """Its name in ``stages.csv``."""
        m = self.measurement
        return f"{m.metric}_{m.extractor}" + ("_seen_in_training" if m.in_training else "")

    @property
    def is_share(self) -> bool:
        return self.measurement.metric.startswith(SHARES)

    def words(self, value: float) -> str:
        return format(value, ".1%" if self.is_share else ".4g")

    def interval(self) -> str | None:
        """Where it lies with 95 %; None where that is not known."""
        low, high = self.measurement.low, self.measurement.high
        return None if low is None or high is None else f"{self.words(low)} – {self.words(high)}"


def read_found(folder: Path) -> Found | None:
    """What ``artifacts/evaluate`` holds of the final model; None for outputs without records, or by an older version.

    Real pictures are told only where they are those that the model was measured against.
    """
    evaluations = read_lines(folder / EVALUATIONS, Evaluation)
    whole = [each for each in evaluations if each.subject == FINAL and each.psi == 1]
    count = max((each.count for each in whole), default=0)
    by_seeds: dict[str | None, Evaluation] = {}
    for each in whole:
        if each.count == count:
            by_seeds.setdefault(each.seeds, each)  # the sweep's point at psi 1 may be the same pictures once more
    if not by_seeds:
        return None
    final = list(by_seeds.values())
    untrained = next((each for each in evaluations if each.subject == UNTRAINED), None)
    reals = _reals(folder.with_name("reference_statistics") / "statistics.json", final[0])
    swept = [each for each in evaluations if each.subject == FINAL][-1]  # the stages come first in the file
    return Found(final, swept, untrained, reals)


def _reals(path: Path, final: Evaluation) -> Evaluation | None:
    listed = read_json(path).get("reals")
    for facts in listed if isinstance(listed, list) else []:
        try:
            reals = Evaluation.model_validate(facts)
        except ValidationError:
            continue  # by another version
        if (reals.px, reals.reference_sha256) == (final.px, final.reference_sha256):
            return reals
    return None


def figures(found: Found) -> list[Figure]:
    """Every metric that has a value: those that lead first, each kind in the protocol's order."""
    listed = []
    for first in found.final[0].measurements:
        each = [m for e in found.final for m in e.measurements if m.name == first.name and m.value is not None]
        if each:
            middle = sorted(each, key=lambda m: m.value or 0.0)[(len(each) - 1) // 2]
            values = [m.value for m in each if m.value is not None]
            spread = max(values) - min(values) if len(values) > 1 else None
            value = middle.value or 0.0
            listed.append(Figure(middle, value, _same(found.reals, first), _same(found.untrained, first), spread))
    return sorted(listed, key=lambda figure: not figure.measurement.leads)


def _same(evaluation: Evaluation | None, wanted: Measurement) -> Measurement | None:
    """A metric by the same judge in another evaluation, whose count differs and so the full name does."""
    measurements = evaluation.measurements if evaluation else []
    alike = [m for m in measurements if (m.metric, m.extractor) == (wanted.metric, wanted.extractor)]
    return next((m for m in alike if m.value is not None), None)


def first_of_each(listed: Iterable[Figure]) -> list[Figure]:
    """The first figure of every metric by a judge that took no part in the training, or by one that did, alone."""
    by_title: dict[str, Figure] = {}
    for figure in listed:
        first = by_title.setdefault(title(figure.measurement), figure)
        if first.measurement.in_training and not figure.measurement.in_training:
            by_title[title(figure.measurement)] = figure
    return list(by_title.values())


def absent(found: Found) -> list[Measurement]:
    """The metrics that the protocol asks for and nobody could measure."""
    return [each for each in found.final[0].measurements if each.value is None]


def facts(found: Found) -> dict[str, tuple[float, float | None]]:
    """What the oracle read: the median over the repetitions, and their range where there are several."""
    names = [name for name in found.final[0].facts if all(name in each.facts for each in found.final)]
    result: dict[str, tuple[float, float | None]] = {}
    for name in names:
        values = [each.facts[name] for each in found.final]
        result[name] = statistics.median(values), (max(values) - min(values) if len(values) > 1 else None)
    return result


def headline(evaluation: Evaluation, metric: str) -> Measurement | None:
    """What the tables' columns ``frechet_distance`` and ``clip_score`` hold; never a number that flatters.

    Its rule is that of ``headline`` in ``stylegan_t/evaluation/tables.py``, which this page cannot import: torch.
    """
    fair = (m for m in evaluation.measurements if m.metric == metric and not m.in_training)
    return next((m for m in fair if m.value is not None), None)


def title(measurement: Measurement) -> str:
    """What a metric is called in a few words; only Inception's distances are FID and KID."""
    for beginning, word in ONLY_INCEPTION.items():
        if measurement.name.startswith(beginning):
            return word
    for beginning, words in OF_CLIP.items():
        if measurement.metric.startswith(beginning):
            return words + measurement.metric.removeprefix(beginning)
    return TITLES.get(measurement.metric, measurement.metric.replace("_", " "))


def by_judge(measurement: Measurement) -> str:
    """The title with the judge, and the flag where it is due: what an axis or a column is headed by."""
    flag = f" ({SEEN_IN_TRAINING})" if measurement.in_training else ""
    return f"{title(measurement)} by {measurement.extractor}{flag}"
