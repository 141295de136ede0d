"""What the judges see in a set of pictures, on disk in parts: whoever is stopped goes on with the parts that are left.

Several processes first make a share each (see ``Share``) and meet; then one of them measures, alone. The same parts
serve several metrics, and later evaluations against the same pictures. Their numbers follow from the folder's name, a
digest of pictures and judges.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from stylegan_t.errors import DataError, PeerLost
from stylegan_t.files import atomic
from stylegan_t.metrics.moments import Streamed
from stylegan_t.progress import Progress

PART = 500
"""Pictures of a part: some seconds of work on a small machine."""
MOST_FEATURES = 10_000
"""Raw features kept of a set, for what compares single pictures: memory stays flat, and 10,000 tell enough."""
LONGEST_WAIT = timedelta(days=1)
"""Of processes for each other: the first one may have gigabytes to download."""
TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""The environment's name for how often torchrun started the processes anew."""
_MEETINGS = count()
"""Numbers of this process's meetings: every process comes to all of them, in the same order."""

Look = Callable[[range], dict[str, Float[Tensor, "n _"]]]


@dataclass(frozen=True)
class Share:
    """One of several processes that make the parts of a set together, on a file system that all of them see."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """Number among the processes of this machine."""

    @classmethod
    def of_torchrun(cls) -> Share:
        """As torchrun tells it; else the only one."""
        return cls(*(int(os.environ.get(name, default)) for name, default in TORCHRUN))

    def wait_for_all(self) -> None:
        """Return when every process has come this far. Raises PeerLost where one has ended.

        Each meeting has a name of its own in torchrun's store, where addresses of the one before, or of processes that
        torchrun started anew, are still to be found, and would be tried in vain.
        """
        if self.size == 1:
            return
        meeting = f"meeting {os.environ.get(RESTARTS, '0')} {next(_MEETINGS)}"
        try:
            store, *_ = next(rendezvous("env://", timeout=LONGEST_WAIT))
            store = PrefixStore(meeting, store)
            dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size, timeout=LONGEST_WAIT)
            dist.barrier()
            dist.destroy_process_group()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise PeerLost(f"lost the other processes of this evaluation ({reason})") from None


def digest_of(*facts: object) -> str:
    """A name for the folder of a set's parts."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Seen:
    """A set, finished when all processes have met: what each extractor saw, part by part.

    Args:
        folder: Of its parts.
        count: Pictures (or captions) in it.
    """

    folder: Path
    count: int

    def parts(self, name: str, limit: int | None = None) -> Iterator[Float[Tensor, "n d"]]:
        """The rows of one extractor in their order, a part at a time; of the first ``limit`` pictures."""
        for span in spans(min(limit or self.count, self.count)):
            rows = read_part(part_path(self.folder, span.start // PART))[name]
            yield rows[: len(span)]

    def rows(self, name: str, limit: int | None = None) -> Float[Tensor, "n d"]:
        return torch.cat(list(self.parts(name, limit)))


@dataclass(frozen=True)
class Summary:
    """What is left of a set's features for comparing it with another one."""

    streamed: Streamed
    features: Float[Tensor, "m d"]
    """All, or an even selection of ``MOST_FEATURES``: files often lie in an order that means something."""


def spans(count: int) -> list[range]:
    return [range(first, min(first + PART, count)) for first in range(0, count, PART)]


def part_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def see(folder: Path, count: int, look: Look, share: Share, progress: Progress | None = None, note: str = "") -> Seen:
    """The parts of a set: of those in this process's share, the missing ones are made.

    Args:
        look: What the extractors see in some of the pictures, by number.
        progress: Counts the pictures, whoever looks at them; None where they were counted before.
        note: Shown beside the progress.
    """
    for number, span in enumerate(spans(count)):
        path = part_path(folder, number)
        if number % share.size == share.rank and not path.exists():
            rows = {name: each.contiguous() for name, each in look(span).items()}
            with atomic(path) as temporary:
                save_file(rows, temporary)
        if progress:
            progress.advance(len(span), note)
    return Seen(folder, count)


def read_part(path: Path) -> dict[str, Tensor]:
    """Raises DataError where the part is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())}); delete it and run this again") from None


def summary(
    seen: Seen, name: str, device: torch.device, limit: int | None = None, every: tuple[int, int] = (0, 1)
) -> Summary:
    """Moments of all features, and raw ones of an even selection, on ``device``.

    Args:
        limit: Only the first so many pictures.
        every: (first, step): only each second one, say.
    """
    (start, step), count = every, min(limit or seen.count, seen.count)
    total = len(range(start, count, step))
    most, first = min(total, MOST_FEATURES), 0
    streamed, kept = Streamed(total), []
    assert PART % step == 0
    for part in seen.parts(name, count):
        rows = part[start::step].to(device)
        streamed.add(rows)
        places = torch.arange(first, first + len(rows), device=device) * most
        kept.append(rows[places % total < most])  # the first at or after each of ``most`` even marks
        first += len(rows)
    return Summary(streamed, torch.cat(kept))
