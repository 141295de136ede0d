"""What the networks are trained on, as plain means."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

ANGLE_SERIES_ABOVE = 0.99
ANGLE_SHRINK = 1 - 1e-6


def hinge_real(logits: Float[Tensor, "n t"]) -> Float[Tensor, ""]:
    """Discriminator's loss on real images: how far logits stay below 1 (Lim & Ye 2017, arXiv:1705.02894)."""
    return F.relu(1 - logits).mean()


def hinge_fake(logits: Float[Tensor, "n t"]) -> Float[Tensor, ""]:
    """Discriminator's loss on generated (or wrongly captioned) images: how far their logits stay above -1."""
    return F.relu(1 + logits).mean()


def hinge_generator(logits: Float[Tensor, "n t"]) -> Float[Tensor, ""]:
    """Generator's loss: high logits for its images, without a hinge."""
    return -logits.mean()


def squared_angle(cosine: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``arccos(cosine)²``, finite and differentiable from -1 to 1 and where rounding oversteps them.

    At 1 the derivative is -2, though that of arccos itself is infinite: near it a power series in ``1 -
    cosine`` takes over. At -1 the true derivative is infinite; a slight shrinkage of the cosine makes it
    merely large.
    """
    near = cosine > ANGLE_SERIES_ABOVE
    y = 1 - torch.where(near, cosine, 1.0)
    series = y * (2 + y * (1 / 3 + y * (4 / 45 + y / 35)))
    far = torch.arccos(torch.where(cosine < 0, ANGLE_SHRINK * cosine, torch.where(near, 0.0, cosine))).square()
    return torch.where(near, series, far)


def clip_guidance(embedding: Float[Tensor, "n d"], c: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean squared spherical distance between the CLIP embeddings of images and of their captions.

    The generator's only direct word on what the picture should show (Sauer et al. 2023, arXiv:2301.09515,
    section 3.3).

    Args:
        embedding: Of the images, of any length.
        c: Of the captions, of any length.
    """
    cosine = F.cosine_similarity(embedding.float(), c.float(), dim=1)
    return squared_angle(cosine).mean()


def range_penalty(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
    """Mean square of how far pixels leave [-1, 1].

    Not in the paper: a feature network that normalises contrast away cannot tell the discriminator about it.
    """
    return F.relu(images.abs() - 1).square().mean()
