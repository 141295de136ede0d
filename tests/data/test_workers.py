"""Processes that load images for a training, at their end."""

from __future__ import annotations

import multiprocessing
import signal
import time
from types import SimpleNamespace

from stylegan_t.data.workers import Workers


def test_one_that_fails_as_it_is_told_to_end_fails_nothing_else():
    def shut_down() -> None:
        raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly with exit code 1.")  # as torch says it

    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=[300])
    process.start()
    Workers(SimpleNamespace(_shutdown_workers=shut_down, _workers=[process])).end()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
