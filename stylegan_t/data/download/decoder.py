"""Pictures looked at in a process of its own.

Strangers' pictures crash the programs that decode them, now and then, or keep them busy for ever. Here that costs the
picture, and nothing else: neither the connections that are open beside it, nor the rows that wait. It also leaves the
interpreter of the process that downloads to the network.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

from stylegan_t.data.download import judging
from stylegan_t.data.download.judging import NUMBER, READY
from stylegan_t.data.download.pictures import Kept, Storage
from stylegan_t.data.download.reasons import SUCCESS

PROGRAM = f"import sys; from {judging.__name__} import work; work(*sys.argv[1:])"
"""What the process runs. (One of ``multiprocessing`` would first import all that this one's main module imports.)"""
TRIES = 2
"""Of a picture that is looked at alone: once, it may be somebody else's fault that the process was killed."""

START_SECONDS = 60.0
"""Longest that the process may take to be ready, also on a machine that is busy."""


class Judgement(NamedTuple):
    """What is to be done with the bytes that came: their hash, and the picture to keep or the reason why none."""

    sha256: str
    kept: Kept | str


class Decoder:
    """Judges pictures, batch after batch, until it is ended.

    Args:
        storage: How pictures are kept.
        seconds: Longest that a batch may take.
    """

    def __init__(self, storage: Storage, seconds: float) -> None:
        self.storage, self.seconds = storage, seconds

    async def start(self) -> None:
        """Start the process; it is ready a moment later."""
        ours, theirs = socket.socketpair()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # a Ctrl-C is for this process, not for that
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno()), json.dumps(asdict(self.storage))],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._is_ready = False

    async def judge(self, batch: list[bytes]) -> list[Judgement]:
        """A verdict for each picture. A batch that is too much for the process is looked at one by one.

        Raises:
            RuntimeError: The process does not start, or not in time.
        """
        reason = ""
        for _ in range(TRIES if len(batch) == 1 else 1):
            try:
                await self._wait_until_ready()
                async with asyncio.timeout(self.seconds):
                    return await self._ask(batch)
            except TimeoutError:
                reason = "timeout_decode"
            except (OSError, asyncio.IncompleteReadError):
                reason = "crashed"
            await self.end()
            await self.start()
        if len(batch) == 1:
            return [Judgement(hashlib.sha256(batch[0]).hexdigest(), reason)]
        return [judgement for data in batch for judgement in await self.judge([data])]

    async def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _wait_until_ready(self) -> None:
        if not self._is_ready:
            with suppress(TimeoutError):
                async with asyncio.timeout(START_SECONDS):
                    self._is_ready = await self._reader.read(len(READY)) == READY
        if not self._is_ready:
            raise RuntimeError("the process that decodes pictures does not start")

    async def _ask(self, batch: list[bytes]) -> list[Judgement]:
        self._writer.writelines([*map(NUMBER.pack, [len(batch), *map(len, batch)]), *batch])
        await self._writer.drain()
        (size,) = NUMBER.unpack(await self._reader.readexactly(NUMBER.size))
        told: list[list[Any]] = json.loads(await self._reader.readexactly(size))
        return [await self._read(data, *facts) for data, facts in zip(batch, told, strict=True)]

    async def _read(self, data: bytes, sha256: str, status: str, size: int = 0, *facts: Any) -> Judgement:
        if status != SUCCESS:
            return Judgement(sha256, status)
        return Judgement(sha256, Kept(await self._reader.readexactly(size) or data, *facts))
