"""The judges' verdict on a list of pictures, as named numbers."""

from __future__ import annotations

from stylegan_t.evaluation.captions import Captions
from stylegan_t.evaluation.panel import Measured
from stylegan_t.evaluation.reference import Reference, halves
from stylegan_t.metrics import Moments, clip_score, frechet_distance, kernel_distance, retrieval_accuracy


def distances(measured: Measured, reference: Reference) -> dict[str, float]:
    """How far the pictures' features lie from those of real ones."""
    return {
        "frechet_distance": frechet_distance(Moments.of(measured.features), reference.moments),
        "kernel_distance": kernel_distance(measured.features, reference.features),
    }


def distances_of_halves(measured: Measured) -> dict[str, float]:
    """The same between two halves of one list: what a perfect model would reach at half the count."""
    a, b = halves(measured.features)
    return {
        "frechet_distance": frechet_distance(Moments.of(a), Moments.of(b)),
        "kernel_distance": kernel_distance(a, b),
    }


def agreement(measured: Measured, captions: Captions) -> dict[str, float]:
    """How well the pictures match the captions; ``shuffled`` is the same for wrong captions, a control."""
    embeddings = measured.embeddings
    choices = captions.choices(len(embeddings))
    return {
        "clip_score": clip_score(embeddings, captions.texts[choices[:, 0]]),
        "clip_score_shuffled": clip_score(embeddings, captions.texts[choices[:, 1]]),
        "retrieval_accuracy": retrieval_accuracy(embeddings, captions.texts, choices),
    }
