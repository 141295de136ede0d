"""What takes the place of a decoder's process, and fails as decoders do."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

from stylegan_t.data.download import judging
from stylegan_t.data.download.pictures import Storage

CRASH, HANG, CRASH_ONCE, CRASH_FIRST = (
    b"\xff\xd8\xff" + word for word in (b"crash", b"hang", b"crash once", b"crash first")
)
"""Pictures on which the process crashes (in company only; when it first sees it alone), or which it never finishes."""
CRASHED = "FRAGILE_CRASHED"
"""Names the file that is there once the process has crashed on the last of them."""


def fragile(file: str, told: str) -> None:
    storage = Storage(**json.loads(told))
    with socket.socket(fileno=int(file)) as connection, connection.makefile("rwb") as stream:
        judging.send(stream, [judging.READY])
        while batch := judging.receive(stream):
            if CRASH in batch or (CRASH_ONCE in batch and len(batch) > 1):
                os.kill(os.getpid(), signal.SIGSEGV)
            if batch == [CRASH_FIRST] and not Path(os.environ[CRASHED]).exists():
                Path(os.environ[CRASHED]).touch()
                os.kill(os.getpid(), signal.SIGSEGV)
            if HANG in batch:
                time.sleep(60)
            judging.send(stream, judging.answer(batch, storage))


def stillborn(file: str, told: str) -> None:
    """Ends before it is ready."""


def sleeper(file: str, told: str) -> None:
    """Is never ready."""
    time.sleep(3600)


def program(name: str) -> str:
    return f"import sys; from {__name__} import {name}; {name}(*sys.argv[1:])"
