"""What the judges say of real pictures themselves: what a perfect model would get."""

from __future__ import annotations

from stylegan_t.evaluation.evaluator import Evaluator, agreement_of
from stylegan_t.evaluation.pictures import FIT, Pictures, captions_sha256
from stylegan_t.evaluation.scores import OF_PAIRS, OF_SETS, Reference, Scorer, absences
from stylegan_t.evaluation.sets import summary
from stylegan_t.records import Evaluation


def first_captions(pictures: Pictures) -> list[str] | str:
    """A caption for each picture, the first; or why there are none."""
    said = pictures.captions()
    missing = sum(not captions for captions in said)
    if missing == len(said):
        return f"{pictures.name}: the pictures have no captions"
    if missing:
        return f"{pictures.name}: {missing} of {len(said)} pictures have no caption"
    return [captions[0] for captions in said]


def measure_reals(evaluator: Evaluator, reals: Pictures, px: int | None) -> Evaluation:
    """Every second real picture against the others, and all against their captions.

    Distances are what two samples of the real pictures show by chance, at half their count; a model whose distance is
    as small cannot be told from the data by it.
    """
    seen, captions, half = evaluator.see(reals, px), first_captions(reals), reals.count // 2
    measurements = []
    for name, extractor in evaluator.panel.extractors.items():
        device = evaluator.panel.device
        scorer = Scorer(evaluator.protocol, extractor, half, px, evaluator.seed)
        if scorer.wanted(*OF_SETS):
            odd, even = (summary(seen, name, device, every=(start, 2)) for start in (1, 0))
            measurements += scorer.of_sets(odd, Reference(even.streamed.moments, even.features))
        if scorer.wanted(*OF_PAIRS):
            everyone = Scorer(evaluator.protocol, extractor, reals.count, px, evaluator.seed)
            if isinstance(captions, str):
                measurements += everyone.of_pairs(captions)
            else:
                fit = agreement_of(seen, evaluator.read(captions), captions, name, evaluator.seed)
                measurements += everyone.of_pairs(fit)
    measurements += absences(evaluator.protocol, evaluator.panel.absent, half, px)
    return Evaluation(
        protocol=evaluator.name,
        subject="real pictures",
        subject_sha256=reals.identity,
        weights="none",
        psi=None,
        seeds=None,
        count=half,
        px=px,
        fit=FIT if px else None,
        captions_sha256=None if isinstance(captions, str) else captions_sha256(captions),
        reference=evaluator.protocol.reference,
        reference_sha256=reals.identity,
        reference_count=reals.count - half,
        measurements=[each.model_copy(update={"seconds": None}) for each in measurements],
    )
