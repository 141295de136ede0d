"""What takes the place of a decoder's process, and fails as decoders do."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from stylegan_t.data.download import decoder

CRASH, HANG, CRASH_ONCE = (b"\xff\xd8\xff" + word for word in (b"crash", b"hang", b"crash once"))
"""Pictures on which the process crashes, or which it never finishes."""


def fragile(file: int) -> None:
    with Connection(file) as pipe:
        storage = pipe.recv()
        pipe.send_bytes(decoder.READY)
        while True:
            batch = pipe.recv()
            if CRASH in batch or (CRASH_ONCE in batch and len(batch) > 1):
                os.kill(os.getpid(), signal.SIGSEGV)
            if HANG in batch:
                time.sleep(60)
            decoder.answer(pipe, batch, storage)


def stillborn(file: int) -> None:
    """Ends before it is ready."""


def program(name: str) -> str:
    return f"import sys; from {__name__} import {name}; {name}(int(sys.argv[1]))"
