"""What benchmarks share: a clock, the line that says where they ran, and the published pass to compare with."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_t.models.ops import demodulation, fir_kernel, full_precision, working_dtype

Call = Callable[[], object]


def environment(device: torch.device) -> str:
    """Processor, cores, threads, versions, allocator, date and command, as one line of a report."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "").split()
    units = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    preloaded = os.environ.get("LD_PRELOAD", "")  # an allocator may be: it decides what large tensors cost on a CPU
    parts = [
        torch.cuda.get_device_name(device) if device.type == "cuda" else "not run on a GPU",
        f"{cpu} ({', '.join(units) or 'no bf16 units'}), {torch.get_num_threads()} threads",
        f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}",
        f"memory by {Path(preloaded).name or 'the C library'}",
        datetime.date.today().isoformat(),
        f"`{shlex.join(['python', 'benchmarks/' + Path(sys.argv[0]).name, *sys.argv[1:]])}`",
    ]
    return "; ".join(parts)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def seconds(call: Call, device: torch.device) -> float:
    """How long a call takes, its work on the GPU included."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(cases: Mapping[str, Call], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each case, once per round after a round that warms up: what else the machine does hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, call in cases.items():
            elapsed = seconds(call, device)
            if turn:
                times[name].append(elapsed)
    return times


def percentile(times: list[float], percent: int) -> float:
    """The value that ``percent`` of the times stay below."""
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1] if len(times) > 1 else times[0]


def per_sample_conv2d(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    *,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    gain: float = 1.0,
    x_gain: float = 1.0,
    upsample: bool = False,
) -> Tensor:
    """The same numbers as ``modulated_conv2d``, by one kernel per image in one grouped convolution."""
    n, channels = x.shape[0], weight.shape[0]
    with full_precision(x):
        factors = demodulation(weight.float(), style.float())[:, :, None] * style.float()[:, None] / x_gain
        kernels = weight * factors[:, :, :, None, None]
    x = x.to(working_dtype(x)).flatten(0, 1)[None]
    if upsample:
        y = F.conv_transpose2d(x, kernels.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
        y = F.conv2d(y, fir_kernel(y).expand(y.shape[1], 1, 4, 4), padding=1, groups=y.shape[1])
    else:
        y = F.conv2d(x, kernels.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
    y = y.unflatten(1, (n, channels)).squeeze(0)
    shift = 0.0 if bias is None else bias[:, None, None]
    shift = shift if noise is None else shift + noise
    return gain * (y + shift).to(y.dtype)
