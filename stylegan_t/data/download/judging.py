"""What the process does that looks at pictures (see ``decoder``): takes batches in, tells what to keep of each picture.

What goes to and fro is JSON and bytes: a process that a picture has taken over can tell a lie, but give no orders.
It starts for every part, and so imports little.
"""

from __future__ import annotations

import hashlib
import io
import json
import socket
import struct
import warnings
from collections.abc import Sequence
from contextlib import suppress

from stylegan_t.data.download.pictures import Storage, keep
from stylegan_t.data.download.reasons import SUCCESS

READY = b"ready"
NUMBER = struct.Struct("!Q")


def work(file: str, storage: str) -> None:
    """What a decoder's process does: judge what comes in on a socket, until whoever writes there is gone."""
    warnings.simplefilter("ignore")  # Pillow's, about odd but readable files
    with socket.socket(fileno=int(file)) as connection, connection.makefile("rwb") as stream, suppress(OSError):
        told = Storage(**json.loads(storage))
        send(stream, [READY])
        while batch := receive(stream):
            send(stream, answer(batch, told))


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
