"""Bytes of the tensors that are alive, by what they are for."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from stylegan_t.estimate.heap import Event

Part = Literal["weights", "frozen networks", "average", "Adam", "gradients", "activations", "temporaries"]


class Ledger(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, by part, and remembers their most.

    A number that the code asks of a tensor without numbers is 0, so that no random crop is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: Counter[Part] = Counter()
        self.peak: dict[Part, int] = {}
        self._total = self._most = 0
        self.events: list[Event] = []
        """All storages made and freed, in order."""
        self._made = 0
        self._known: dict[int, tuple[Part, int, int, weakref.ref[Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0
        result = func(*args, **(kwargs or {}))
        backward = torch._C._current_graph_task_id() != -1
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor, "temporaries" if backward else "activations")
        return result

    def _count(self, tensor: Tensor, part: Part) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._made += 1
        if size:
            self.events.append((self._made, size))
        self._known[key] = (part, size, self._made, weakref.ref(storage, lambda _: self._forget(key)))
        self._add(part, size)

    def _add(self, part: Part, size: int) -> None:
        self.live[part] += size
        self._total += size
        if self._total > self._most:
            self._most, self.peak = self._total, dict(self.live)

    def _forget(self, key: int) -> None:
        part, size, number, _ = self._known.pop(key)
        if size:
            self.events.append((number, 0))
        self.live[part] -= size
        self._total -= size

    def claim(self, tensors: Iterable[Tensor | None], part: Part) -> None:
        """Say which part these tensors belong to."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata if tensor is not None else None
            if key in self._known:
                before, size, number, reference = self._known[key]
                self._known[key] = (part, size, number, reference)
                self.live[before] -= size
                self.live[part] += size

    def restart(self) -> None:
        """Look for the most from here on."""
        self._most, self.peak = self._total, dict(self.live)
