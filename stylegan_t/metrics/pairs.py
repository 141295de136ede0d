"""Agreement between pictures and captions."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Scale = Literal["cosine", "x100", "w2.5"]
"""Of CLIP scores in use: the raw cosine (the StyleGAN-T paper's), that times 100, and 2.5 times its positive part."""


def cosines(images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Cosine of each image's embedding with its caption's; any lengths.

    Their mean is the CLIP score of Hessel et al. (2021, arXiv:2104.08718) without its scale and floor.
    """
    return torch.cosine_similarity(images.double(), texts.double(), dim=1)


def scaled(cosines: Float[Tensor, "*shape"], scale: Scale) -> Float[Tensor, "*shape"]:
    """Each cosine on the scale of that name; scale before averaging, as the floor acts on single pictures.

    ``w2.5`` is Hessel et al.'s CLIPScore (2021, arXiv:2104.08718, section 3).
    """
    match scale:
        case "cosine":
            return cosines
        case "x100":
            return 100 * cosines
        case "w2.5":
            return 2.5 * cosines.clamp(min=0)
