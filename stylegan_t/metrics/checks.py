"""What every metric asks of feature vectors before it calculates."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def require_finite(features: Float[Tensor, ...]) -> None:
    """Raises ValueError where a number is NaN or infinite: an average over it would say nothing and not show why."""
    if not bool(features.isfinite().all()):
        rows = int((~features.isfinite()).reshape(len(features), -1).any(dim=1).sum())
        raise ValueError(f"{rows} of {len(features)} feature vectors hold NaN or infinity; look at their images")


def require_comparable(a: Float[Tensor, "n d"], b: Float[Tensor, "m e"], least: int = 2) -> None:
    """Raises ValueError unless both sets hold ``least`` finite vectors or more, of one width."""
    require_one_width(a.shape[1], b.shape[1])
    smaller = min(len(a), len(b))
    if smaller < least:
        raise ValueError(f"this distance needs at least {least} feature vectors on each side, got {smaller}")
    require_finite(a)
    require_finite(b)


def require_one_width(a: int, b: int) -> None:
    if a != b:
        raise ValueError(f"feature vectors of {a} and of {b} numbers come from different networks: no distance")
