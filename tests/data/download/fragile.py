"""What takes the place of a decoder's process, and fails as decoders do."""

from __future__ import annotations

import json
import os
import signal
import socket
import time

from stylegan_t.data.download import judging
from stylegan_t.data.download.pictures import Storage

CRASH, HANG, CRASH_ONCE = (b"\xff\xd8\xff" + word for word in (b"crash", b"hang", b"crash once"))
"""Pictures on which the process crashes, or which it never finishes."""


def fragile(file: str, told: str) -> None:
    storage = Storage(**json.loads(told))
    with socket.socket(fileno=int(file)) as connection, connection.makefile("rwb") as stream:
        judging.send(stream, [judging.READY])
        while batch := judging.receive(stream):
            if CRASH in batch or (CRASH_ONCE in batch and len(batch) > 1):
                os.kill(os.getpid(), signal.SIGSEGV)
            if HANG in batch:
                time.sleep(60)
            judging.send(stream, judging.answer(batch, storage))


def stillborn(file: str, told: str) -> None:
    """Ends before it is ready."""


def program(name: str) -> str:
    return f"import sys; from {__name__} import {name}; {name}(*sys.argv[1:])"
