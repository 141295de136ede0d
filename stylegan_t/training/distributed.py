"""This process among those that train together: which images are its own, and what is summed over all of them.

torchrun starts the processes. Every one keeps all the weights and works on its share of each batch; gradients are
summed over flat buffers, so that all of them take the same step.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from stylegan_t.data.workers import LOADER_LOST
from stylegan_t.errors import PeerLost, SettingsError, Stopped, TrainingDiverged
from stylegan_t.settings.fields import LOCAL_BATCH_NORM_GROUP

BUCKET_NUMBERS = 2**25
"""Numbers summed over the processes in one go."""

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it gives up, e.g. while the first one draws samples."""

GATHERING_SECONDS = 0.05
CALLED = "called"


@dataclass(frozen=True)
class World:
    """All processes of a training and this one's place among them; by default it is alone.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: Where this process keeps its tensors.
        restarted: Whether torchrun has started these processes before, and starts them anew; the main one knows.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    restarted: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes the records, the states and the outputs."""
        return self.rank == 0

    def share(self, batch_size: int) -> range:
        """Numbers, within the global batch, of the images that this process works on: contiguous, as many for each.

        Raises:
            SettingsError: The batch does not split evenly into whole groups.
        """
        if batch_size % (self.size * LOCAL_BATCH_NORM_GROUP):
            step = self.size * LOCAL_BATCH_NORM_GROUP
            below, above = batch_size // step * step, (batch_size // step + 1) * step
            raise SettingsError(
                f"batch_size = {batch_size} on {self.size} devices: each takes as many images, a multiple of "
                f"{LOCAL_BATCH_NORM_GROUP}; use {f'{below} or ' if below else ''}{above}, or other --devices"
            )
        count = batch_size // self.size
        return range(self.rank * count, (self.rank + 1) * count)

    def put(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on this process's device.

        Copies to a GPU start from pinned memory, and nobody waits for them; from any other memory they would wait for
        all that the GPU has been told to do before.
        """
        if self.device.type == "cuda" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes; the same tensors in the same order on each of them."""
        if self.size == 1:
            return
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with _listening():
                dist.all_reduce(flat)
            for tensor, total in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def least(self, numbers: Sequence[int]) -> list[int]:
        """The smallest of all processes' numbers, place by place."""
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers)  # they travel between the CPUs: no device is waited for
        with _listening():
            dist.all_reduce(found, dist.ReduceOp.MIN)
        return found.tolist()

    def most(self, number: int) -> int:
        """The largest of all processes' numbers."""
        return -self.least([-number])[0]

    def agree(self, number: int) -> int:
        """The main process's number."""
        return self.most(number if self.is_main else -1)

    def wait_for_all(self) -> None:
        """Return when every process has come this far."""
        self.most(0)


@contextmanager
def _listening() -> Iterator[None]:
    """Tell a process that ended from an error of our own: torch raises a bare RuntimeError for it."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, PeerLost) or str(error).startswith(LOADER_LOST):
            raise
        reason = str(error).strip().splitlines()[0]
        raise PeerLost(f"lost the other processes of this training ({reason})") from None


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, about ``BUCKET_NUMBERS`` numbers together."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (bucket[0].dtype != tensor.dtype or sum(t.numel() for t in bucket) >= BUCKET_NUMBERS):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def make_repeatable(wanted: bool) -> None:
    """Whether torch may use operations whose results on a GPU differ from time to time in the last bit."""
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use


def gather(store: Store, rank: int, size: int) -> str:
    """A name that all processes of this start agree on, and none of an earlier start had.

    torchrun lends its store to every start of the processes. Where it starts them anew, what the dead wrote is still
    there, and torch would take their addresses for those of the living.
    """
    me = uuid.uuid4().hex
    here = [f"here {other}" for other in range(1, size)]
    answers = [f"{me} {other}" for other in range(1, size)]
    if rank > 0:
        store.set(f"here {rank}", me)
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < deadline:
        if rank > 0 and store.check([CALLED]):
            name, *called = store.get(CALLED).decode().split()
            if called[rank - 1 : rank] == [me]:  # the main process has heard of me, and so it lives
                store.set(f"{name} {rank}", "")
                return name
        elif rank == 0 and store.check(here):
            store.set(CALLED, " ".join([me, *(store.get(key).decode() for key in here)]))
            if store.check(answers):
                return me
        time.sleep(GATHERING_SECONDS)  # and not a wait in the store: it hears no signals
    raise PeerLost(f"the other processes of this training did not come within {PATIENCE}")


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """The world that torchrun described to this process by its environment; without torchrun, this process alone.

    Float32 is full float32 in it: by default torch lets convolutions, but not products, round to TF32.
    """
    torch.backends.cudnn.allow_tf32 = False
    if "RANK" not in os.environ:
        yield World(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    with _listening():
        restarted = rank == 0 and store.check([CALLED])
        store = PrefixStore(gather(store, rank, size), store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(device, rank, size, restarted)
    except (Stopped, TrainingDiverged):  # within the training, all processes raise these together
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()  # after any other error, it could wait for processes that wait for this one
