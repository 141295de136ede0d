"""How fast a whole training step is: ``python benchmarks/train.py --help``.

The last results are in benchmarks/train.md.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.generate import matmul_peak, prepare
from benchmarks.timing import environment, seconds
from stylegan_t.estimate.networks import Rehearsal, build_networks, make_players
from stylegan_t.estimate.plan import Plan, make_plan
from stylegan_t.settings.training import Compute
from stylegan_t.training.distributed import World
from stylegan_t.training.meters import peak_memory_mib

RATE = 1e-6
"""Learning rate of the timed steps: Adam works as always, and random networks stay finite."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    profile: Annotated[str, typer.Option(help="whose settings and networks; random weights")] = "lite",
    resolution: Annotated[int, typer.Option(help="side of the pictures painted, px")] = 64,
    batch_size: Annotated[int, typer.Option(min=8, help="images of a step, a multiple of 8")] = 8,
    microbatch_size: Annotated[int | None, typer.Option(help="images of a forward pass; default: all")] = None,
    precisions: Annotated[str, typer.Option(help="float32 or bf16, or both with a comma")] = "float32,bf16",
    layouts: Annotated[str, typer.Option(help="contiguous or channels_last, or both with a comma")] = "contiguous",
    compiled: Annotated[bool, typer.Option("--compile", help="with torch.compile")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 takes torch's choice")] = 0,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="where to run")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="timed steps; two more warm up")] = 5,
) -> None:
    """Time whole steps (discriminator, generator, guidance, both Adams, average) of a training stage.

    Model FLOP utilisation is the step's products and sums, by torch's count, over its time and the rate of a large
    matrix product in bf16 (and, beside it, in the step's own precision), measured right before.
    """
    place = prepare(device, threads)
    print(f"`{profile}` at {resolution} px, batch {batch_size}, {environment(place)}.\n")
    print("| precision | layout | compiled | s a step | images/s | GFLOP an image | of bf16 peak | of own peak | MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for precision, layout in itertools.product(precisions.split(","), layouts.split(",")):
        plan = make_plan(
            Path.cwd(), profile=profile, resolution=resolution, batch_size=batch_size,
            microbatch_size=microbatch_size, precision=precision, device_type=device,
        )  # fmt: skip
        changes = {"channels_last": layout == "channels_last", "compile": compiled}
        row(plan, plan.settings.compute.model_copy(update=changes), place, repeats)


def row(plan: Plan, compute: Compute, device: torch.device, repeats: int) -> None:
    """Measure one way of computing and print its line of the table."""
    settings = plan.settings.model_copy(update={"compute": compute})
    plan = replace(plan, config=plan.config.model_copy(update={plan.stage: settings}))
    torch.manual_seed(0)
    networks = build_networks(plan).to(device)
    players = make_players(plan, networks, compute)
    for optimizer in (players.optimizer, players.discriminator_optimizer):
        optimizer.param_groups[0]["lr"] = RATE
    rehearsal = Rehearsal(plan, players, networks.clip.embed_dim, World(device))
    for number in range(2):
        rehearsal.step(number)
    times = [seconds(lambda n=number: rehearsal.step(n), device) for number in range(2, 2 + repeats)]
    peaks = {precision: matmul_peak(device, precision) for precision in ("bf16", compute.precision)}
    with FlopCounterMode(display=False) as counter:
        rehearsal.step(2 + repeats)
    flops, middle = counter.get_total_flops(), statistics.median(times)
    shares = [f"{flops / middle / peaks[precision]:.0%}" for precision in ("bf16", compute.precision)]
    cells = [
        compute.precision,
        "channels_last" if compute.channels_last else "contiguous",
        "yes" if compute.compile else "no",
        f"{middle:.3f}",
        f"{settings.batch_size / middle:.2f}",
        f"{flops / settings.batch_size / 1e9:.3g}",
        *shares,
        f"{peak_memory_mib(device):.0f}",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    app()
