"""How fast the generator is: ``python benchmarks/generate.py --help``.

The last results are in benchmarks/generate.md.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import typer
import yaml
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import (
    Call,
    environment,
    interleaved,
    per_sample_conv2d,
    percentile,
    seconds,
)
from stylegan_t.models import layers
from stylegan_t.models.generator import Generator
from stylegan_t.models.ops import modulated_conv2d
from stylegan_t.settings import training

C_DIM = 768
PUBLISHED_UNITS = (12.3, 34.0)
TARGET_UNITS = {"float32": (8.2, 22.7), "bf16": (4.9, 13.6)}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

app = typer.Typer(help="Time the generator, on a CPU or a GPU, with weights as they are drawn.", no_args_is_help=True)

Network = Annotated[Literal["lite", "full"], typer.Option(help="profile whose generator is built")]
Resolution = Annotated[int, typer.Option(help="side of the images, px")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 takes torch's choice")]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="where to run")]
Repeats = Annotated[int, typer.Option(min=1, help="timed rounds; all cases take turns in each")]
Compile = Annotated[bool, typer.Option("--compile", help="compiled beside (passes) or instead of (latency) eager")]


def build(network: str, resolution: int, device: torch.device) -> Generator:
    """The generator of a profile at any resolution, freshly initialised."""
    profile = yaml.safe_load((Path(layers.__file__).parents[1] / "profiles" / f"{network}.yaml").read_text())
    torch.manual_seed(0)
    with device:
        settings = training.Network.model_validate(profile["train_generator"]["network"])
        return Generator(resolution=resolution, c_dim=C_DIM, **settings.of_generator()).eval()


def inputs(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Latents, and text embeddings of unit length."""
    return torch.randn(n, 64, device=device), F.normalize(torch.randn(n, C_DIM, device=device))


@contextlib.contextmanager
def per_sample_kernels() -> Iterator[None]:
    """While open, every layer builds a kernel per image and convolves all images in one grouped convolution."""
    layers.modulated_conv2d = per_sample_conv2d
    try:
        yield
    finally:
        layers.modulated_conv2d = modulated_conv2d


def check_per_sample(generator: Generator, z: Tensor, c: Tensor) -> float:
    """Relative difference of the two formulations' images; an error if they are not the same function."""
    with torch.no_grad():
        ours = generator(z, c, noise="const")
        with per_sample_kernels():
            theirs = generator(z, c, noise="const")
    error = ((ours - theirs).norm() / ours.norm()).item()
    if not error < 1e-4:
        raise RuntimeError(f"per-sample kernels paint other images: relative difference {error:.1e}")
    return error


def unit_convolution(n: int, device: torch.device) -> Call:
    """One plain float32 3x3 convolution, 512 to 512 channels, on ``n`` images of 64x64 pixels: the yardstick."""
    x = torch.randn(n, 512, 64, 64, device=device)
    weight = torch.randn(512, 512, 3, 3, device=device)

    def run() -> None:
        with torch.no_grad():
            F.conv2d(x, weight, padding=1)

    return run


def one_pass(
    generator: Generator,
    net: Callable[..., Tensor],
    z: Tensor,
    c: Tensor,
    *,
    precision: str,
    layout: str,
    backward: bool,
    per_sample: bool,
) -> Call:
    """A forward pass with fresh noise, or one with gradients to all parameters, as a call to time."""

    def run() -> None:
        kernels = per_sample_kernels() if per_sample else contextlib.nullcontext()
        with kernels, torch.set_grad_enabled(backward):
            with torch.autocast(z.device.type, torch.bfloat16, enabled=precision == "bf16"):
                images = net(z, c)
            if backward:
                images.square().mean().backward()
                generator.zero_grad()

    def run_in_layout() -> None:
        generator.to(memory_format=LAYOUTS[layout])  # costs nothing where it changes nothing
        run()

    return run_in_layout


@app.command()
def passes(
    network: Network = "lite",
    resolution: Resolution = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="images a pass; also of the unit convolution")] = 4,
    threads: Threads = 2,
    device: Device = "cpu",
    repeats: Repeats = 3,
    compiled: Compile = False,
) -> None:
    """Forward and forward + backward, in units of one plain convolution timed in the same rounds.

    Float32 and bf16 autocast, both memory layouts, and kernels per sample (a grouped convolution) beside ours. Prints
    the ratio of the fastest rounds, which other load on the machine disturbs least, and the median in seconds.
    """
    place = prepare(device, threads)
    generator = build(network, resolution, place)
    z, c = inputs(batch_size, place)
    error = check_per_sample(generator, z, c)
    kinds: dict[str, tuple[Callable[..., Tensor], bool]] = {"ours": (generator, False)}
    if compiled:
        kinds["ours, compiled"] = (torch.compile(generator), False)
    kinds["per-sample kernels"] = (generator, True)

    times: dict[str, dict[str, list[float]]] = {}
    for layout in LAYOUTS:  # a layout's cases take turns together, so that the weights are not converted in between
        cases = {"unit": unit_convolution(batch_size, place)}
        for kind, precision in itertools.product(kinds, TARGET_UNITS):
            net, per_sample = kinds[kind]
            for backward in (False, True):
                cases[f"{kind}/{precision}/{backward}"] = one_pass(
                    generator, net, z, c, precision=precision, layout=layout, backward=backward, per_sample=per_sample
                )
        times[layout] = interleaved(cases, repeats, place)

    print(
        f"`{network}` at {resolution} px, {batch_size} images; kernels per sample paint the same images to {error:.0e}."
    )
    print(f"{environment(place)}.\n")
    print_passes(list(kinds), times)


def print_passes(kinds: list[str], times: dict[str, dict[str, list[float]]]) -> None:
    """The table: seconds by layout and ``kind/precision/backward``, beside the published and the wanted figures."""
    unit = min(min(t["unit"]) for t in times.values())
    print(f"| unit: {unit:.3f} s | precision | layout | forward, units | s | forward + backward, units | s |")
    print("|---|---|---|---|---|---|---|")
    print(f"| published, another CPU | float32 | | {PUBLISHED_UNITS[0]} | 4.2 | {PUBLISHED_UNITS[1]} | 11.6 |")
    for precision, (forward, both) in TARGET_UNITS.items():
        print(f"| target | {precision} | | ≤ {forward} | | ≤ {both} | |")
    for kind, precision, layout in itertools.product(kinds, TARGET_UNITS, LAYOUTS):
        cells = [times[layout][f"{kind}/{precision}/{backward}"] for backward in (False, True)]
        text = " | ".join(f"{min(t) / unit:.1f} | {statistics.median(t):.2f}" for t in cells)
        print(f"| {kind} | {precision} | {layout} | {text} |")


def prepare(device: str, threads: int) -> torch.device:
    if threads:
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no GPU here; use --device cpu", param_hint="--device")
    return torch.device(device)


def matmul_peak(device: torch.device, precision: str) -> float:
    """FLOP per second of the best of several large square matrix products in the same precision."""
    side = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(10))


def flops_per_image(generator: Generator, device: torch.device) -> int:
    """What one image costs in products and sums, by torch's own count."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(*inputs(1, device))
    return counter.get_total_flops()


def painter(net: Callable[..., Tensor], n: int, device: torch.device, precision: str) -> Call:
    """Paints ``n`` images per call; on a GPU as one recorded graph, which launches thousands of kernels at once."""
    z, c = inputs(n, device)

    @torch.no_grad()
    def paint() -> Tensor:
        # No cache of cast weights: a graph must own everything that it reads.
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            return net(z, c)

    if device.type != "cuda":
        return paint
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            paint()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        paint()
    return graph.replay


@app.command()
def latency(
    network: Network = "full",
    resolution: Resolution = 512,
    batch_sizes: Annotated[str, typer.Option(help="batch sizes for the throughput, with commas")] = "1,4,16",
    threads: Threads = 2,
    device: Device = "cpu",
    repeats: Repeats = 20,
    precision: Annotated[Literal["float32", "bf16"], typer.Option(help="bf16: under autocast")] = "bf16",
    layout: Annotated[Literal["contiguous", "channels_last"], typer.Option(help="of weights and activations")] = (
        "channels_last"
    ),
    compiled: Compile = False,
) -> None:
    """Time to one image (p50, p95), and images/s with their share of the measured peak of a matrix product.

    On a GPU the passes are CUDA graphs. The paper states 0.10 s an image for `full` at 512 px; the aim is 10 ms.
    """
    place = prepare(device, threads)
    sizes = [int(size) for size in batch_sizes.split(",")]
    generator = build(network, resolution, place).to(memory_format=LAYOUTS[layout])
    flops = flops_per_image(generator, place)
    peak = matmul_peak(place, precision)
    net = torch.compile(generator) if compiled else generator
    print(f"`{network}` at {resolution} px, {precision}, {layout}, {'compiled' if compiled else 'eager'}:")
    print(f"{flops / 1e12:.3f} TFLOP an image; matrix product {peak / 1e12:.2f} TFLOP/s. {environment(place)}.\n")
    print("| images a pass | p50, ms | p95, ms | images/s | share of the peak |")
    print("|---|---|---|---|---|")
    for n in sorted({1, *sizes}):
        times = interleaved({"paint": painter(net, n, place, precision)}, repeats, place)["paint"]
        middle = statistics.median(times)
        cells = f"{1e3 * middle:.1f} | {1e3 * percentile(times, 95):.1f} | {n / middle:.2f}"
        print(f"| {n} | {cells} | {n * flops / middle / peak:.0%} |", flush=True)


if __name__ == "__main__":
    app()
