"""What this machine adds to the tensors, and how fast it trains: measured in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import torch

from stylegan_t.estimate.memory import Traced
from stylegan_t.estimate.networks import Rehearsal, build_networks, make_players
from stylegan_t.estimate.plan import Plan, make_plan
from stylegan_t.training.distributed import World

LATE_MODULES = ("pandas", "pyarrow.parquet", "torch.utils.tensorboard")
"""Loaded by the libraries that read shards and write records, and not before they do."""
CUDA_CONTEXT_BYTES = 600 * 2**20
"""Assumed for the CUDA context with cuBLAS's and cuDNN's workspaces; not measured here."""
CUDA_FRAGMENTATION = 0.05
"""Assumed share of the tensors that the caching allocator loses between them; not measured here."""
MARGIN = 0.8
"""Networks are built here only if the estimate is at most so much of the memory that is free."""
TIMED_MICROBATCHES, TIMED_STEPS, SECONDS_ENOUGH, PATIENCE_SECONDS = 4, 3, 20.0, 240.0


@dataclass(frozen=True)
class Overhead:
    """Bytes beside the tensors on one device.

    Attributes:
        process: Python with torch after a small step, or CUDA's context.
        allocator: Lost between the tensors.
    """

    process: int
    allocator: int


@dataclass(frozen=True)
class Measured:
    """A few real steps on this machine.

    Attributes:
        images_per_second: Of one device.
        peak_bytes: The process's most resident memory, or on a GPU that of its tensors.
        busy: Other work kept more than half of the cores, so that the speed is that of a shared machine.
    """

    images_per_second: float
    batch_size: int
    peak_bytes: int
    busy: bool


def process_bytes(stage: str) -> int:
    """Resident memory of this process with a stage's code loaded and every library used once, before its networks."""
    load_code(stage)
    rehearsal = rehearsal_on(make_plan(Path(), profile="micro"), torch.device("cpu"))
    rehearsal.show()
    rehearsal.step(0)
    return psutil.Process().memory_info().rss


def load_code(stage: str) -> None:
    """Load all that a stage loads until it has read its first shard and written its first record."""
    for name in (f"stylegan_t.stages.{stage}", *LATE_MODULES):
        importlib.import_module(name)


def overhead(plan: Plan, traced: Traced, process: int) -> Overhead:
    """What comes on top of the tensors; ``process`` counts on a CPU."""
    if plan.device_type == "cuda":
        return Overhead(CUDA_CONTEXT_BYTES, round(CUDA_FRAGMENTATION * traced.total))
    return Overhead(process, max(0, traced.heap_bytes - traced.total))


def free_bytes(device_type: str) -> int:
    """Memory that nothing uses now; 0 where there is no such device."""
    if device_type == "cuda":
        return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    return psutil.virtual_memory().available


def measure(plan: Plan, total_bytes: int) -> Measured | str:
    """A few real training steps on one device, or in words why there are none.

    Args:
        total_bytes: What the training is estimated to take.
    """
    free = free_bytes(plan.device_type)
    if plan.device_type == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU here"
    if total_bytes > MARGIN * free:
        gib = 2**30
        return f"it needs {total_bytes / gib:.1f} GiB of the {free / gib:.1f} GiB that are free here"
    context = multiprocessing.get_context("spawn")  # a process of its own: its peak is the training's
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(plan, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE_SECONDS):
            return f"two steps took more than {PATIENCE_SECONDS:.0f} s here"
        return ours.recv()
    except EOFError:
        child.join()
        return f"the process that tried ended with exit code {child.exitcode} (out of memory?)"
    finally:
        child.kill()
        child.join()


def rehearsal_on(plan: Plan, device: torch.device) -> Rehearsal:
    """Real steps of the plan on one device, with random weights and everything else as the stage has it."""
    networks = build_networks(plan).to(device)
    compute = plan.settings.compute.model_copy(update={"compile": False, "shard_optimizer": False})
    return Rehearsal(plan, make_players(plan, networks, compute), networks.clip.embed_dim, World(device))


def _run(plan: Plan, answer: Connection) -> None:
    """In the child: real steps; the first one warms up."""
    load_code(plan.stage)
    alone = plan.shortened(TIMED_MICROBATCHES).on_one_device()
    device = torch.device(plan.device_type)
    busy = psutil.getloadavg()[0] > (psutil.cpu_count() or 1) / 2
    rehearsal = rehearsal_on(alone, device)
    rehearsal.step(0)
    rehearsal.show()
    _finish(device)
    start, steps = time.monotonic(), 0
    while steps < TIMED_STEPS and (not steps or time.monotonic() - start < SECONDS_ENOUGH):
        steps += 1
        rehearsal.step(steps)
        _finish(device)
    seconds = time.monotonic() - start
    batch_size = alone.settings.batch_size
    answer.send(Measured(steps * batch_size / seconds, batch_size, peak_bytes(device), busy))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process had resident so far, or on a GPU its tensors.

    Linux's own count of this program: ``getrusage`` would tell the parent's, where that was larger.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, which has no /proc
