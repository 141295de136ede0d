"""Which GPU a worker takes, where several processes of one machine share several."""

from __future__ import annotations

import fcntl
import os
import tempfile
from itertools import count
from pathlib import Path
from typing import TextIO

import torch

_held: list[TextIO] = []
"""Open as long as this process lives, and their locks with them."""


def gpu_of_process(device: torch.device) -> torch.device:
    """``device``, unless it is a GPU of several: then one of them, spread evenly over the processes that ask.

    Each process keeps the first free one of a row of places (locked files in the machine's temporary folder, which are
    free again when it ends, however that comes), and takes the GPU of this number, modulo their count. A scheduler
    that shows each process its own GPUs (CUDA_VISIBLE_DEVICES), as Ray does, shows one, which is then taken.
    """
    num_gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    return torch.device("cuda", take_place(Path(tempfile.gettempdir())) % num_gpus) if num_gpus > 1 else device


def take_place(folder: Path) -> int:
    """The lowest number that no living process has taken in the folder, kept until this process ends."""
    for place in count():
        file = (folder / f"stylegan-t-{os.getuid()}-gpu-place-{place}").open("a")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
        else:
            _held.append(file)
            return place
    raise AssertionError
