"""DiffAugment: differentiable augmentation of what the discriminator sees."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

AUGMENTATIONS = ("brightness", "saturation", "contrast", "translation", "cutout")
NUM_DRAWS = 7  # one per colour operation, then two each for translation and cutout: (y, x)
TRANSLATION_RATIO = 1 / 8
CUTOUT_RATIO = 1 / 5


def diff_augment(
    images: Float[Tensor, "n 3 h w"], draws: Float[Tensor, "n num_draws"], ops: Sequence[str]
) -> Float[Tensor, "n 3 h w"]:
    """Augmented images, differentiable with respect to the images, each by its own draws.

    Reals and fakes pass through the same family of changes, so that the discriminator cannot learn the data
    by heart and the generator is still pulled towards unchanged images (Zhao et al. 2020, arXiv:2006.10738).

    Args:
        images: In [-1, 1]; colour operations may leave that range.
        draws: Uniform in [0, 1), ``NUM_DRAWS`` per image; every operation has its own columns, so that
            leaving one out does not change what the others do.
        ops: Any of ``AUGMENTATIONS``; they are applied in that tuple's order. None of them leaves the images
            alone.
    """
    unknown = [op for op in ops if op not in AUGMENTATIONS]
    if unknown:
        raise ValueError(f"augmentation {unknown[0]!r} is unknown; use any of {', '.join(AUGMENTATIONS)}")
    if draws.shape[1] != NUM_DRAWS:
        raise ValueError(f"{draws.shape[1]} draws per image; diff_augment needs {NUM_DRAWS}")
    per_image = draws[:, :, None, None, None]
    if "brightness" in ops:
        images = images + (per_image[:, 0] - 0.5)
    if "saturation" in ops:
        images = torch.lerp(images.mean(dim=1, keepdim=True), images, 2 * per_image[:, 1])
    if "contrast" in ops:
        images = torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, per_image[:, 2] + 0.5)
    if "translation" in ops:
        images = translate(images, draws[:, 3:5])
    if "cutout" in ops:
        images = cutout(images, draws[:, 5:7])
    return images


def translate(images: Float[Tensor, "n c h w"], draws: Float[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """Each image moved by whole pixels, down and right when its draws are above one half; zeros move in."""
    n, c, h, w = images.shape
    reach_y, reach_x = round(h * TRANSLATION_RATIO), round(w * TRANSLATION_RATIO)
    rows = _moved(draws[:, 0], h, reach_y)[:, None, :, None].expand(n, c, h, w + 2 * reach_x)
    columns = _moved(draws[:, 1], w, reach_x)[:, None, None, :].expand(n, c, h, w)
    padded = F.pad(images, (reach_x, reach_x, reach_y, reach_y))
    return padded.gather(2, rows).gather(3, columns)


def _moved(draw: Float[Tensor, "n"], side: int, reach: int) -> Tensor:
    """For each image, which row of the padded image shows in each of its rows: (n, side) integers."""
    shift = (draw * (2 * reach + 1)).floor().long() - reach
    return torch.arange(side, device=draw.device) + reach - shift[:, None]


def cutout(images: Float[Tensor, "n c h w"], draws: Float[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """Each image with one square set to 0, centred on any pixel; at the border a part falls outside."""
    h, w = images.shape[2:]
    rows = _covered(draws[:, 0], h, round(h * CUTOUT_RATIO))
    columns = _covered(draws[:, 1], w, round(w * CUTOUT_RATIO))
    hidden = (rows[:, :, None] & columns[:, None, :])[:, None]
    return images.masked_fill(hidden, 0.0)


def _covered(draw: Float[Tensor, "n"], side: int, size: int) -> Tensor:
    """For each image, which of its rows the square covers: (n, side) booleans."""
    first = (draw * side).floor().long()[:, None] - size // 2
    position = torch.arange(side, device=draw.device)
    return (position >= first) & (position < first + size)


def crop_origin(side: int, size: int, draws: Float[Tensor, "2"]) -> tuple[int, int]:
    """Top and left of a square of ``size`` inside an image of ``side`` pixels, every place equally likely.

    Args:
        draws: Uniform in [0, 1), best on the CPU: the result is a pair of numbers for the host.
    """
    if size > side:
        raise ValueError(f"a crop of {size} px does not fit an image of {side} px")
    top, left = (draws * (side - size + 1)).floor().long().tolist()
    return top, left
