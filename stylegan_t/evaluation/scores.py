"""The judges' verdict on a set of pictures, as measurements under names that state the protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor

from stylegan_t.evaluation.panel import Extractor
from stylegan_t.evaluation.sets import MOST_FEATURES, Summary
from stylegan_t.metrics.frechet_errors import frechet_without_each
from stylegan_t.metrics.kernels import cmmd, cmmd_without_each, kernel_distance, kernel_distance_without_each
from stylegan_t.metrics.manifolds import density_coverage, precision_recall
from stylegan_t.metrics.moments import Moments, frechet_distance
from stylegan_t.metrics.pairs import scaled
from stylegan_t.metrics.uncertainty import Interval, jackknife, mean_interval, share_interval
from stylegan_t.records import Measurement
from stylegan_t.settings.protocol import Measure, Metric, Protocol

FEWEST_FOR_FRECHET = 2048
"""Below, Inception's covariance is singular: a Fréchet distance then tells more of the count than of the pictures."""
NEIGHBOURS_NEED = 6
NUM_CHOICES = 32
"""Captions among which a judge picks a picture's own; fewer where there are fewer different ones."""
OF_RAW_FEATURES = ("kernel", "cmmd", "precision", "recall", "density", "coverage")
OF_SETS: tuple[Metric, ...] = ("frechet", "kernel", "cmmd", "precision_recall", "density_coverage")
OF_PAIRS: tuple[Metric, ...] = ("clip_score", "retrieval")
WRONG = "clip_score_of_wrong_captions"
LOWER_IS_BETTER = ("frechet", "kernel", "cmmd", WRONG)
SEEN_IN_TRAINING = "_seen_in_training"


@dataclass(frozen=True)
class Reference:
    """Real pictures, as one extractor sees them."""

    moments: Moments
    features: Float[Tensor, "m d"]


@dataclass(frozen=True)
class Agreement:
    """Pictures and captions, as one CLIP sees them: the cosines of each picture.

    Attributes:
        own: With its caption.
        wrong: With different ones; none where all captions are the same.
    """

    own: Float[Tensor, " n"]
    wrong: Float[Tensor, "n k"]

    @property
    def found(self) -> Bool[Tensor, " n"]:
        """Whether the right caption is nearer than all wrong ones; a tie is a miss."""
        return self.own > self.wrong.amax(dim=1)


class Scorer:
    """Turns what one extractor sees into measurements.

    Args:
        protocol: What is asked for.
        extractor: The judge.
        count: Pictures.
        px: Side at which they are compared; None: as they are.
        seed: Of subsets.
    """

    def __init__(self, protocol: Protocol, extractor: Extractor, count: int, px: int | None, seed: int) -> None:
        self.protocol, self.extractor, self.seed = protocol, extractor, seed
        self.count, self.px = count, px

    def wanted(self, *metrics: Metric) -> bool:
        return any(metric in self.extractor.measure.metrics for metric in metrics)

    def of_sets(self, fakes: Summary, reals: Reference) -> list[Measurement]:
        """How far the pictures lie from real ones."""
        found = []
        if self.wanted("frechet"):
            distance = self._timed("frechet", partial(self._frechet, fakes, reals))
            found.append(distance.model_copy(update=caution(min(self.count, reals.moments.count))))
        if self.wanted("kernel"):
            found.append(self._timed("kernel", partial(self._kernel, fakes, reals)))
        if self.wanted("cmmd"):
            found.append(self._timed("cmmd", partial(self._cmmd, fakes, reals)))
        few = min(len(fakes.features), len(reals.features)) < NEIGHBOURS_NEED
        if self.wanted("precision_recall"):
            found += self._neighbours(("precision", "recall"), few, lambda: self._precision_recall(fakes, reals))
        if self.wanted("density_coverage"):
            found += self._neighbours(("density", "coverage"), few, lambda: self._density_coverage(fakes, reals))
        return found

    def of_pairs(self, agreement: Agreement | str) -> list[Measurement]:
        """How well the pictures fit their captions; a string says why nobody can tell."""
        asked = filter(self.wanted, OF_PAIRS)
        metrics = [name for each in asked for name in numbers_of(each, self.protocol)]
        if isinstance(agreement, str):
            return [self.absent(metric, agreement) for metric in metrics]
        found, num_wrong = [], agreement.wrong.shape[1]
        for metric in metrics:
            if metric == "clip_score":
                found.append(self._mean(metric, scaled(agreement.own, self.protocol.scale)))
            elif not num_wrong:
                found.append(self.absent(metric, "all captions are the same: there is no wrong one"))
            elif metric == WRONG:
                found.append(self._mean(metric, scaled(agreement.wrong[:, 0], self.protocol.scale)))
            else:
                share = agreement.found.double().mean().item()
                interval = share_interval(share, len(agreement.found))
                found.append(self._made(f"retrieval_1_of_{1 + num_wrong}", share, interval))
        return found

    def of_best(self, cosines: Float[Tensor, "p k"]) -> list[Measurement]:
        """The best of several pictures of a prompt."""
        return [self._mean(f"clip_score_best_of_{cosines.shape[1]}", scaled(cosines.amax(dim=1), self.protocol.scale))]

    def absent(self, metric: str, reason: str) -> Measurement:
        return self._made(metric, None, absent=reason)

    # ---- one metric each ----------------------------------------------------------------------------------------

    def _frechet(self, fakes: Summary, reals: Reference) -> tuple[float, Interval | None]:
        value = frechet_distance(fakes.streamed.moments, reals.moments)
        if len(fakes.streamed.blocks) < 4 or self.count < 40:
            return value, None
        without_each = frechet_without_each(fakes.streamed.blocks, reals.moments)
        return value, jackknife(value, without_each, "blocks of pictures")

    def _kernel(self, fakes: Summary, reals: Reference) -> tuple[float, Interval | None]:
        value = kernel_distance(fakes.features, reals.features, seed=self.seed)
        return value, self._without_each(value, fakes, reals, kernel_distance_without_each)

    def _cmmd(self, fakes: Summary, reals: Reference) -> tuple[float, Interval | None]:
        value = cmmd(fakes.features, reals.features)
        return value, self._without_each(value, fakes, reals, cmmd_without_each)

    def _without_each(
        self, value: float, fakes: Summary, reals: Reference, distances: Callable[[Tensor, Tensor], Tensor]
    ) -> Interval | None:
        if len(fakes.features) < 4:
            return None
        return jackknife(value, distances(fakes.features, reals.features), "pictures")

    def _precision_recall(self, fakes: Summary, reals: Reference) -> list[tuple[float, Interval | None]]:
        shares = precision_recall(fakes.features, reals.features)
        of = (len(fakes.features), len(reals.features))
        return [(share, share_interval(share, count)) for share, count in zip(shares, of, strict=True)]

    def _density_coverage(self, fakes: Summary, reals: Reference) -> list[tuple[float, Interval | None]]:
        density, covered = density_coverage(fakes.features, reals.features)
        coverage = covered.double().mean().item()
        return [
            (density.mean().item(), mean_interval(density)),
            (coverage, share_interval(coverage, len(covered))),
        ]

    def _neighbours(
        self, names: Sequence[str], few: bool, calculate: Callable[[], list[tuple[float, Interval | None]]]
    ) -> list[Measurement]:
        if few:
            return [self.absent(name, f"needs {NEIGHBOURS_NEED} pictures on each side") for name in names]
        start = time.perf_counter()
        found = calculate()
        seconds = (time.perf_counter() - start) / len(names)
        return [
            self._made(name, value, interval, seconds) for name, (value, interval) in zip(names, found, strict=True)
        ]

    def _timed(self, metric: str, calculate: Callable[[], tuple[float, Interval | None]]) -> Measurement:
        start = time.perf_counter()
        value, interval = calculate()
        return self._made(metric, value, interval, time.perf_counter() - start)

    def _mean(self, metric: str, values: Float[Tensor, " n"]) -> Measurement:
        return self._made(metric, values.mean().item(), mean_interval(values.double()) if len(values) > 1 else None)

    def _made(
        self,
        metric: str,
        value: float | None,
        interval: Interval | None = None,
        seconds: float | None = None,
        absent: str | None = None,
    ) -> Measurement:
        return Measurement(
            name=self.name(metric),
            metric=metric,
            better="lower" if metric in LOWER_IS_BETTER else "higher",
            value=value,
            absent=absent,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            uncertainty=interval.how if interval else None,
            extractor=self.extractor.name,
            weights_sha256=self.extractor.weights_sha256,
            resize=self.extractor.features.resize,
            in_training=self.extractor.in_training,
            seconds=seconds,
        )

    def name(self, metric: str) -> str:
        """The metric's name for this judge and count."""
        measure, flag = self.extractor.measure, SEEN_IN_TRAINING if self.extractor.in_training else ""
        return metric_name(metric, measure, self.count, self.px, self.protocol) + flag


def metric_name(metric: str, measure: Measure, count: int, px: int | None, protocol: Protocol) -> str:
    """What a number is called: only Inception's distances are FID and KID.

    Args:
        count: Pictures; what compares single ones takes ``MOST_FEATURES`` of them at most, and then says so.
        px: Side at which they are compared.
    """
    used = min(count, MOST_FEATURES) if metric in OF_RAW_FEATURES else count
    at = f"{count_word(used)}_{protocol.reference}{px or ''}"
    if measure.resize and metric in ("frechet", "kernel"):
        return f"{'fid' if metric == 'frechet' else 'kid'}{at}_{measure.resize}"
    if metric.startswith("clip_score"):
        return f"{metric}_{protocol.scale}_{measure.extractor}_{at}"
    short = {"frechet": "fd", "kernel": "kd"}.get(metric, metric)
    return f"{short}_{measure.extractor}_{at}"


def caution(count: int) -> dict[str, str | bool]:
    """What is to be said of a Fréchet distance between sets of which the smaller one has ``count`` pictures."""
    if count >= FEWEST_FOR_FRECHET:
        return {}
    return {"leads": False, "note": f"{count} pictures are few for it: read the kernel distance or CMMD"}


def count_word(count: int) -> str:
    """30k for 30,000; 1500 for 1,500."""
    return f"{count // 1000}k" if count % 1000 == 0 else str(count)


def absences(
    protocol: Protocol, absent: dict[str, str], count: int, px: int | None, only: Metric | None = None
) -> list[Measurement]:
    """A measurement without a value for each number of each judge that is not there, or that cannot tell ``only`` it.

    Args:
        absent: The judges, and why.
        count: Pictures.
    """
    found = []
    for measure in protocol.measures:
        for asked in measure.metrics if measure.extractor in absent else ():
            if only in (None, asked):
                of = min(count, protocol.best_of.num_prompts) if protocol.best_of and asked == "best_of" else count
                found += [
                    Measurement(
                        name=metric_name(metric, measure, of, px, protocol),
                        metric=metric,
                        better="lower" if metric in LOWER_IS_BETTER else "higher",
                        absent=absent[measure.extractor],
                        extractor=measure.extractor,
                    )
                    for metric in numbers_of(asked, protocol)
                ]
    return found


def numbers_of(metric: Metric, protocol: Protocol) -> tuple[str, ...]:
    """The names of what one entry of a protocol's metrics gives."""
    match metric:
        case "precision_recall":
            return "precision", "recall"
        case "density_coverage":
            return "density", "coverage"
        case "clip_score":
            return "clip_score", WRONG
        case "retrieval":
            return (f"retrieval_1_of_{NUM_CHOICES}",)
        case "best_of":
            assert protocol.best_of is not None
            return (f"clip_score_best_of_{protocol.best_of.num_pictures}",)
        case _:
            return (metric,)
