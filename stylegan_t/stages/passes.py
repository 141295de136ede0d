"""Forward passes over large batches that give the same numbers whatever the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

CHUNK = 16
"""Rows that a thread takes at a time: enough to keep its core busy, few enough that all threads end together."""

Pass = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


@contextmanager
def forward_passes(device: torch.device) -> Iterator[Pass]:
    """What applies a network to a batch, row by row independent, without gradients; the result is on the CPU.

    On a GPU that is one pass. On a CPU each of torch's threads takes chunks of the batch, and computes alone: torch
    would let all threads share each product, and then how it rounds depends on their number (seen in batches of a few
    rows). It is faster, too: nobody waits for the slowest thread after every product.
    """
    if device.type != "cpu":
        yield lambda network, batch: _inferred(network, batch.to(device)).cpu()
        return
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            yield lambda network, batch: torch.cat(list(pool.map(partial(_inferred, network), batch.split(CHUNK))))
    finally:
        torch.set_num_threads(num_threads)


@torch.inference_mode()
def _inferred(network: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    return network(batch).float()
