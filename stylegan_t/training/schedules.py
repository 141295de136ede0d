"""What changes while training, each a function of the images shown so far; none depends on the total length."""

from __future__ import annotations

from collections.abc import Sequence


def images(kimg: float) -> int:
    """Thousand images as a whole number of them: 16.056 * 1000 is a little more than 16056 in floating point."""
    return round(kimg * 1000)


def resolution_at(nimg: int, resolutions: Sequence[int], grow_at_kimg: Sequence[float]) -> int:
    """The resolution trained at ``nimg``: the first, and one further with each growing step passed."""
    return resolutions[sum(nimg >= images(at) for at in grow_at_kimg)]


def lr_factor(nimg: int, start_kimg: float, end_kimg: float, final_factor: float) -> float:
    """Factor on a learning rate: 1 until ``start_kimg``, then linear to ``final_factor`` at ``end_kimg``."""
    done = (nimg / 1000 - start_kimg) / (end_kimg - start_kimg)
    return 1 + (final_factor - 1) * min(max(done, 0.0), 1.0)


def blur_sigma_at(nimg: int, blur_sigma: float, fade_kimg: float) -> float:
    """Blur of the discriminator's input in pixels: ``blur_sigma`` at the start, linear to 0 at ``fade_kimg``."""
    return blur_sigma * max(1 - nimg / (fade_kimg * 1000), 0.0) if fade_kimg else 0.0


def passed(nimg: int, step: int, every_kimg: float) -> bool:
    """True where the last ``step`` images crossed a multiple of ``every_kimg``."""
    every = max(images(every_kimg), 1)
    return nimg // every > (nimg - step) // every
