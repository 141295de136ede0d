"""Adam as in the paper, on one device or with its state spread over several, and its state as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Adam, Optimizer

BETAS = (0.0, 0.99)
UNSET_LR = 0.0
"""Until the loop sets the schedule's, before each step."""


def adam(parameters: Sequence[nn.Parameter], *, sharded: bool) -> Optimizer:
    """Adam without momentum and weight decay; its learning rate is still to be set.

    Args:
        parameters: What it updates.
        sharded: Each process keeps the state of its share of the parameters only, updates these and sends them to
            the others (ZeRO stage 1, Rajbhandari et al. 2020, arXiv:1910.02054).
    """
    if sharded and dist.is_initialized():
        return ZeroRedundancyOptimizer(parameters, Adam, lr=UNSET_LR, betas=BETAS, fused=True)
    return Adam(parameters, lr=UNSET_LR, betas=BETAS, fused=True)


def whole_state(optimizer: Optimizer, *, everywhere: bool = False) -> dict[int, Any]:
    """Adam's numbers by the parameter's position.

    Learning rates are not part of it: they follow from the images shown. Where the numbers are spread over processes,
    all of them must ask; the main one gets the answer, and the others an empty one unless it is wanted everywhere.
    """
    if not isinstance(optimizer, ZeroRedundancyOptimizer):
        return optimizer.state_dict()["state"]
    optimizer.consolidate_state_dict(to=0)
    found = [optimizer.state_dict()["state"] if dist.get_rank() == 0 else {}]
    if everywhere:
        dist.broadcast_object_list(found, src=0)
    return found[0]


def load_state(optimizer: Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    """Take over numbers by the parameter's position; parameters without any start afresh."""
    groups = _groups(optimizer)
    if not isinstance(optimizer, ZeroRedundancyOptimizer):
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        _own_numbers(optimizer)
        return
    optimizer.optim.state.clear()  # torch keeps the old numbers of parameters that have no new ones,
    optimizer.load_state_dict({"state": dict(state), "param_groups": groups})
    optimizer.state.clear()  # holds this process's share twice,
    for parameter, numbers in optimizer.optim.state.items():
        numbers["step"] = numbers["step"].to(parameter.device)  # and puts the step on the CPU, which fused Adam refuses
    _own_numbers(optimizer.optim)


def _own_numbers(optimizer: Optimizer) -> None:
    """Copy what may still lie in the file that it was read from."""
    for numbers in optimizer.state.values():
        numbers.update({name: value.clone() for name, value in numbers.items() if value.device.type == "cpu"})


def _groups(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The parameter groups in the form that a state dict has, with positions for parameters."""
    (group,) = optimizer.param_groups
    settings = {name: value for name, value in group.items() if name != "params"}
    return [{**settings, "params": list(range(len(group["params"])))}]
