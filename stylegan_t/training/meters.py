"""What a step tells of itself, averaged over the steps between two lines of the log."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from stylegan_t.errors import TrainingDiverged
from stylegan_t.progress import resident_memory_mib
from stylegan_t.records import Speed
from stylegan_t.training.distributed import World

NEVER = 2**62
Item = TypeVar("Item")


class Means:
    """Means of named values since the last line of the log; part of the resume state, so that no line changes.

    Values stay on the device until someone asks: a step does not wait for it. Each process adds its part of a value;
    the parts are summed when the means are taken.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._names: tuple[str, ...] = ()
        self._sums = self._first_bad = torch.empty(0)
        self._count = 0

    def add(self, values: dict[str, Tensor], nimg: int) -> None:
        """Count the values of the step that began at ``nimg`` images; names are the same at every step."""
        stacked = torch.stack(list(values.values())).double()
        if not self._count:
            self._names = tuple(values)
            self._sums, self._first_bad = torch.zeros_like(stacked), torch.full_like(stacked, NEVER, dtype=torch.int64)
        self._sums += stacked
        self._first_bad = torch.where(stacked.isfinite(), self._first_bad, self._first_bad.clamp(max=nimg))
        self._count += 1

    def check(self, last_good_nimg: int | None) -> None:
        """Raise TrainingDiverged where a value has not been finite, naming the first step at which one was not."""
        bad = self.world.least(self._first_bad.tolist()) if self._count else []
        first = min(bad, default=NEVER)
        if first == NEVER:
            return
        terms = [name for name, at in zip(self._names, bad, strict=True) if at == first]
        raise TrainingDiverged(
            f"training diverged at {first / 1000:.3f} kimg: not finite: {', '.join(terms)}; "
            + (f"the state at {last_good_nimg / 1000:.3f} kimg is good; " if last_good_nimg is not None else "")
            + "a larger guard.max_rollbacks goes on from the last state with lower learning rates; other settings "
            "begin a run of their own"
        )

    def take(self) -> dict[str, float]:
        """The means; counting starts again."""
        means = {name: total / self._count for name, total in self.state_dict()["sums"].items()}
        self._count = 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Sums over all processes, and how many steps they cover."""
        if not self._count:
            return {"sums": {}, "count": 0}
        total = self._sums.clone()
        self.world.sum([total])
        return {"sums": dict(zip(self._names, total.tolist(), strict=True)), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from sums that were taken before, whatever the number of processes then."""
        self._names, self._count = tuple(state["sums"]), state["count"]
        mine = list(state["sums"].values()) if self.world.is_main else [0.0] * len(self._names)
        self._sums = torch.tensor(mine, dtype=torch.float64, device=self.world.device)
        self._first_bad = torch.full_like(self._sums, NEVER, dtype=torch.int64)


class Clock:
    """Time since the start and since the last line of the log, in all and waiting for data."""

    def __init__(self) -> None:
        self.start(0)

    def start(self, nimg: int) -> None:
        """Begin to count, at ``nimg`` images."""
        self._start = self._last = time.monotonic()
        self._last_nimg = nimg
        self._waited = 0.0

    def wait(self, items: Iterator[Item]) -> Item:
        """The next item, counting the time until it is there."""
        before = time.monotonic()
        item = next(items)
        self._waited += time.monotonic() - before
        return item

    def take(self, nimg: int, device: torch.device) -> Speed:
        """Speed since the line before."""
        now = time.monotonic()
        seconds = max(now - self._last, math.ulp(1.0))
        speed = Speed(
            seconds=now - self._start,
            images_per_second=(nimg - self._last_nimg) / seconds,
            data_wait=self._waited / seconds,
            memory_mib=peak_memory_mib(device),
        )
        self._last, self._last_nimg, self._waited = now, nimg, 0.0
        return speed


def peak_memory_mib(device: torch.device) -> float:
    """The most device memory that tensors took so far, or on the CPU the process's resident memory now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident_memory_mib()
