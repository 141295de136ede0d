"""Pictures looked at in a process of its own.

Strangers' pictures crash the programs that decode them, now and then, or keep them busy for ever. Here that costs the
picture, and nothing else: neither the connections that are open beside it, nor the rows that wait. It also leaves the
interpreter of the process that downloads to the network.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from stylegan_t.data.download.pictures import Kept, Storage, keep
from stylegan_t.data.download.reasons import SUCCESS

PROGRAM = f"import sys; from {__name__} import work; work(int(sys.argv[1]))"
"""What the process runs. (One of ``multiprocessing`` would first import all that this one's main module imports.)"""
TRIES = 2
"""Of a picture that is looked at alone: once, it may be somebody else's fault that the process was killed."""
READY = b"ready"


class Judgement(NamedTuple):
    """What is to be done with the bytes that came: their hash, and the picture to keep or the reason why none."""

    sha256: str
    kept: Kept | str


class Decoder:
    """Judges pictures, for one thread at a time, until it is ended.

    Args:
        storage: How pictures are kept.
        seconds: Longest that a batch may take.
    """

    def __init__(self, storage: Storage, seconds: float) -> None:
        self.storage, self.seconds = storage, seconds
        self._ended = False
        self._start()

    def judge(self, batch: list[bytes]) -> list[Judgement]:
        """A verdict for each picture. A batch that is too much for the process is looked at one by one.

        Raises:
            RuntimeError: The process does not start.
        """
        for _ in range(TRIES if len(batch) == 1 else 1):
            try:
                return self._ask(batch)
            except (OSError, EOFError) as error:  # TimeoutError is an OSError
                if self._ended:
                    raise
                reason = "timeout_decode" if isinstance(error, TimeoutError) else "crashed"
                self._stop()
                self._start()
        if len(batch) == 1:
            return [Judgement(hashlib.sha256(batch[0]).hexdigest(), reason)]
        return [judgement for data in batch for judgement in self.judge([data])]

    def end(self) -> None:
        """End the process at once, and with it a ``judge`` that waits for it in another thread."""
        self._ended = True
        self._stop()

    def _ask(self, batch: list[bytes]) -> list[Judgement]:
        if not self._is_ready:
            self._wait_until_ready()
        self._pipe.send(batch)
        if not self._pipe.poll(self.seconds):
            raise TimeoutError
        told, images = json.loads(self._pipe.recv_bytes()), io.BytesIO(self._pipe.recv_bytes())
        return [_read(data, images, *facts) for data, facts in zip(batch, told, strict=True)]

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # a Ctrl-C is for this process, not for that
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._pipe.send(self.storage)
        self._is_ready = False

    def _wait_until_ready(self) -> None:
        try:
            self._is_ready = self._pipe.recv_bytes() == READY
        except (EOFError, OSError):
            if self._ended:
                raise
            raise RuntimeError("the process that decodes pictures does not start") from None

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()


def work(file: int) -> None:
    """What a decoder's process does: judge what comes in on a file, until whoever writes there is gone."""
    warnings.simplefilter("ignore")  # Pillow's, about odd but readable files
    with Connection(file) as pipe, suppress(EOFError, OSError):
        storage: Storage = pipe.recv()
        pipe.send_bytes(READY)
        while True:
            batch: list[bytes] = pipe.recv()
            answer(pipe, batch, storage)


def answer(pipe: Connection, batch: list[bytes], storage: Storage) -> None:
    """Judge pictures, and tell what to keep of each.

    As JSON and bytes, in which a process that a picture has taken over can tell a lie, but give no orders.
    """
    told, images = [], []
    for data in batch:
        kept, sha256 = keep(data, storage), hashlib.sha256(data).hexdigest()
        if isinstance(kept, str):
            told.append([sha256, kept])
        else:
            image = b"" if kept.image is data else kept.image  # who asks has what came
            images.append(image)
            told.append([sha256, SUCCESS, len(image), *kept[1:]])
    pipe.send_bytes(json.dumps(told).encode())
    pipe.send_bytes(b"".join(images))


def _read(data: bytes, images: io.BytesIO, sha256: str, status: str, size: int = 0, *facts: Any) -> Judgement:
    """What ``answer`` told of ``data``."""
    return Judgement(sha256, Kept(images.read(size) or data, *facts) if status == SUCCESS else status)
