"""What the process does that looks at pictures (see ``decoder``): takes batches in, tells what to keep of each picture.

What goes to and fro is JSON and bytes: a process that a picture has taken over can tell a lie, but give no orders.
It starts for every part, and so imports little.
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import socket
import struct
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import AvifImagePlugin

from stylegan_t.data.download.pictures import MOST_BYTES, Storage, keep
from stylegan_t.data.download.reasons import SUCCESS

READY = b"ready"
NUMBER = struct.Struct("!Q")
MOST_MORE_BYTES = MOST_BYTES * 5 // 4
"""Of memory for a batch: a picture that takes more than its header told is one of ``too_many_pixels`` as well."""


def work(file: str, storage: str) -> None:
    """What a decoder's process does: judge what comes in on a socket, until whoever writes there is gone."""
    warnings.simplefilter("ignore")  # Pillow's, about odd but readable files
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each takes memory, and other processes have the other cores
    with socket.socket(fileno=int(file)) as connection, connection.makefile("rwb") as stream, suppress(OSError):
        told = Storage(**json.loads(storage))
        send(stream, [READY])
        while batch := receive(stream):
            with limited_memory():
                parts = answer(batch, told)
            send(stream, parts)


@contextmanager
def limited_memory() -> Iterator[None]:
    """While entered, this process can take ``MOST_MORE_BYTES`` more than it has; beyond that is a MemoryError.

    Only where there is Linux: other systems do not tell how much it has, or do not keep to the limit.
    """
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = min([has + MOST_MORE_BYTES, *(limit for limit in before if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def receive(stream: io.BufferedRWPair) -> list[bytes]:
    """The next batch; none where nobody asks any more."""
    count = stream.read(NUMBER.size)
    if len(count) < NUMBER.size:
        return []
    sizes = stream.read(NUMBER.size * NUMBER.unpack(count)[0])
    return [stream.read(size) for (size,) in NUMBER.iter_unpack(sizes)]


def answer(batch: Sequence[bytes], storage: Storage) -> list[bytes]:
    """What to tell of a batch: a line of facts for each picture, then the pictures that are not what came."""
    told, images = [], []
    for data in batch:
        kept, sha256 = keep(data, storage), hashlib.sha256(data).hexdigest()
        if isinstance(kept, str):
            told.append([sha256, kept])
        else:
            images.append(b"" if kept.image is data else kept.image)
            told.append([sha256, SUCCESS, len(images[-1]), *kept[1:]])
    facts = json.dumps(told).encode()
    return [NUMBER.pack(len(facts)), facts, *images]


def send(stream: io.BufferedRWPair, parts: Sequence[bytes]) -> None:
    stream.writelines(parts)
    stream.flush()
