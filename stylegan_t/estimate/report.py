"""The whole estimate, as facts and as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from stylegan_t.estimate.machine import Measured, Overhead, measure, overhead, process_bytes
from stylegan_t.estimate.memory import Traced, trace
from stylegan_t.estimate.plan import Plan
from stylegan_t.profile import profile_values

PAPER_BATCH_SIZE = 2048
SECONDS_PER_DAY = 86400


@dataclass(frozen=True)
class Budget:
    """What the paper spent on one step of its schedule (Sauer et al. 2023, arXiv:2301.09515)."""

    a100_days: int
    iterations: int

    @property
    def images(self) -> int:
        return self.iterations * PAPER_BATCH_SIZE

    @property
    def images_per_second(self) -> float:
        """Of one A100."""
        return self.images / (self.a100_days * SECONDS_PER_DAY)


PAPER = {
    16: Budget(450, 118_000),
    32: Budget(450, 78_000),
    64: Budget(450, 57_000),
    128: Budget(96, 10_000),
    256: Budget(70, 6_000),
    512: Budget(30, 3_000),
}
"""By resolution."""
PAPER_TEXT_ENCODER = Budget(190, 20_000)
PAPER_NETWORK = profile_values("full")["train_generator"]["network"]


@dataclass(frozen=True)
class Estimate:
    """What a training would take. Memory is that of one device."""

    plan: Plan
    traced: Traced
    overhead: Overhead
    measured: Measured | str

    @property
    def total_bytes(self) -> int:
        return self.traced.total + self.overhead.process + self.overhead.allocator

    @property
    def paper(self) -> Budget | None:
        """The paper's budget for this step of the schedule; None for a resolution that it does not have."""
        return PAPER_TEXT_ENCODER if self.plan.stage == "finetune_text_encoder" else PAPER.get(self.plan.resolution)

    @property
    def images_per_second(self) -> float | None:
        """Of one device: as measured, or else, for the paper's model on GPUs, that of the paper's A100s."""
        if isinstance(self.measured, Measured):
            return self.measured.images_per_second
        papers_own = self.plan.config.train_generator.network.model_dump() == PAPER_NETWORK
        return self.paper.images_per_second if self.paper and papers_own and self.plan.device_type == "cuda" else None

    def days(self, images: float) -> float | None:
        """How long so many images take on all devices, if each is as fast as one."""
        if self.images_per_second is None:
            return None
        return images / (self.images_per_second * self.plan.devices) / SECONDS_PER_DAY


def estimate(plan: Plan, *, measured: bool = True) -> Estimate:
    """Count, and measure if wanted and possible. Raises SettingsError."""
    process = process_bytes(plan.stage) if plan.device_type == "cpu" else 0
    traced = trace(plan)
    extra = overhead(plan, traced, process)
    total = traced.total + extra.process + extra.allocator
    return Estimate(plan, traced, extra, measure(plan, total) if measured else "--no-measure")


def facts(found: Estimate) -> dict[str, Any]:
    """All numbers, for a program to read; bytes, days, images a second."""
    plan, paper = found.plan, found.paper
    return {
        "stage": plan.stage,
        "resolution": plan.resolution,
        "batch_size": plan.settings.batch_size,
        "microbatch_size": plan.microbatch_size,
        "devices": plan.devices,
        "device": plan.device_type,
        "parameters": asdict(found.traced.parameters),
        "memory": {**found.traced.parts, **asdict(found.overhead), "total": found.total_bytes},
        "largest_phase": found.traced.phase,
        "measured": found.measured if isinstance(found.measured, str) else asdict(found.measured),
        "images_per_second": found.images_per_second,
        "days": found.days(plan.settings.total_kimg * 1000),
        "days_paper_budget": found.days(paper.images) if paper else None,
        "state_bytes": found.traced.state_bytes,
        "bundle_bytes": found.traced.bundle_bytes,
    }


def show(found: Estimate, console: Console) -> None:
    """Print the tables."""
    plan = found.plan
    compute = plan.settings.compute
    console.print(
        f"{plan.origin}, {plan.stage} at {plan.resolution} px: batch {plan.settings.batch_size} on {plan.devices} "
        f"{plan.device_type} device{'s' * (plan.devices > 1)}, micro-batch {plan.microbatch_size}, {compute.precision}"
    )
    for table in (_parameters(found), _memory(found), _time(found), _disk(found)):
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 3, 0, 0))
    table.add_column(min_width=24)
    table.add_column(justify="right", min_width=10)
    for _ in columns:
        table.add_column(style="dim")
    return table


def _parameters(found: Estimate) -> Table:
    table = _table("\nparameters", "note")
    counts = found.traced.parameters
    trained = "" if counts.generator_trained == counts.generator else f"{counts.generator_trained / 1e6:,.3f} M trained"
    table.add_row("generator", f"{counts.generator / 1e6:,.3f} M", trained)
    table.add_row("discriminator's heads", f"{counts.heads / 1e6:,.3f} M", "")
    table.add_row("discriminator's ViT", f"{counts.discriminator_vit / 1e6:,.3f} M", "frozen")
    table.add_row("CLIP, images", f"{counts.clip_image / 1e6:,.3f} M", "frozen")
    table.add_row("CLIP, text", f"{counts.text_encoder / 1e6:,.3f} M", "frozen; stage two trains a copy")
    return table


def _memory(found: Estimate) -> Table:
    plan, parts = found.plan, found.traced.parts
    notes = {
        "frozen networks": "CLIP, ViT; in stage two the generator",
        "Adam": "one device's share" if plan.settings.compute.shard_optimizer and plan.devices > 1 else "",
        "activations": f"forward pass of {plan.microbatch_size} images",
        "temporaries": "backward pass",
    }
    table = _table(f"\nmemory of each device, when it is most ({found.traced.phase})", "note")
    for part, size in sorted(parts.items(), key=lambda item: -item[1]):
        table.add_row(part, size_in_words(size), notes.get(part, ""))
    on_cpu = plan.device_type == "cpu"
    table.add_row("tensors", size_in_words(found.traced.total), "" if on_cpu else "torch.cuda.max_memory_allocated")
    extra = found.overhead
    table.add_row(
        "allocator",
        size_in_words(extra.allocator),
        "lost between tensors: glibc's heap, simulated" if on_cpu else "lost between tensors: an allowance",
    )
    process = "Python, torch and libraries: measured here" if on_cpu else "CUDA context: an allowance"
    table.add_row("process", size_in_words(extra.process), process)
    table.add_row("total", size_in_words(found.total_bytes), "", style="bold")
    if isinstance(found.measured, Measured):
        what = f"{'process' if on_cpu else 'tensors'}, batch of {found.measured.batch_size}"
        table.add_row("measured here", size_in_words(found.measured.peak_bytes), what)
    note = "copy in the host's memory" + (", on top of the total" if on_cpu else "")
    table.add_row("while a state is written", f"+ {size_in_words(found.traced.state_bytes)}", note)
    return table


def _time(found: Estimate) -> Table:
    plan, paper = found.plan, found.paper
    table = _table("\ntime", "note")
    if isinstance(found.measured, str):
        table.add_row("images a second", "not measured", found.measured)
    if (speed := found.images_per_second) is not None:
        table.add_row("images a second, device", f"{speed:,.3g}", _whose_speed(found))
        kimg = plan.settings.total_kimg
        scaling = f", if {plan.devices} devices are {plan.devices} times as fast" if plan.devices > 1 else ""
        note = f"days, all at {plan.resolution} px{scaling}"
        table.add_row(f"total_kimg = {kimg:,.0f}", f"{found.days(kimg * 1000):,.2f}", note)
        if paper:
            table.add_row(f"the paper's {paper.images / 1000:,.0f} kimg", f"{found.days(paper.images):,.1f}", "days")
    if paper:
        step = "text encoder" if plan.stage == "finetune_text_encoder" else f"{plan.resolution} px"
        table.add_row(f"the paper's own, {step}", str(paper.a100_days), "A100-days, the paper's model")
    return table


def _whose_speed(found: Estimate) -> str:
    if isinstance(found.measured, str):
        return "an A100 of the paper's, by its table"
    machine = torch.cuda.get_device_name() if found.plan.device_type == "cuda" else f"{torch.get_num_threads()} threads"
    busy = "; other work keeps this machine busy: repeat when it is idle" if found.measured.busy else ""
    return f"{machine}, torch {torch.__version__}, no torch.compile{busy}"


def _disk(found: Estimate) -> Table:
    table = _table("\ndisk", "note")
    keep = found.plan.settings.keep_states
    state = found.traced.state_bytes
    table.add_row(
        "resume state", size_in_words(state), f"{keep} kept: {size_in_words(keep * state)}, one more in writing"
    )
    table.add_row("bundle and discriminator", size_in_words(found.traced.bundle_bytes), "at the end")
    return table


def size_in_words(size: float) -> str:
    """MiB, or GiB from one on."""
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
