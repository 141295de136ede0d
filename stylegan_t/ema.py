"""Running average of a network's weights, with its time counted in images."""

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def ema_decay(batch_size: int, halflife_nimg: float, nimg: int, ramp: float | None = 0.05) -> float:
    """Share of the old average that one optimiser step keeps.

    A half-life in images makes the average independent of the batch size. A fresh run's first weights are
    worth forgetting soon, so the half-life starts at nothing and grows with the images seen (Karras et al.
    2020, arXiv:2006.06676).

    Args:
        batch_size: Images per optimiser step.
        halflife_nimg: Images after which the old average counts half.
        nimg: Images seen since a fresh start.
        ramp: The half-life is at most this share of ``nimg``; None keeps it constant, for a run that
            continues one.
    """
    if ramp is not None:
        halflife_nimg = min(halflife_nimg, ramp * nimg)
    return 0.5 ** (batch_size / max(halflife_nimg, 1e-8))


@torch.no_grad()
def update_ema(ema_module: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the module's, keeping ``decay`` of the old; buffers are copied.

    Args:
        ema_module: A copy of ``module``, changed in place.
        module: The network in training.
        decay: From ``ema_decay``; 0 copies.
    """
    get_ema_multi_avg_fn(decay)(list(ema_module.parameters()), list(module.parameters()), None)
    for averaged, current in zip(ema_module.buffers(), module.buffers(), strict=True):
        averaged.copy_(current)
