"""Parts as tasks on a Ray cluster. Ray is an extra: it is imported here, and only where the setting asks for it."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import re
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stylegan_t.engine.worker import MAX_LOSSES, Done, Work, make
from stylegan_t.errors import SettingsError, WorkerLost
from stylegan_t.settings.engine import RayEngine

MAX_IN_HAND = 1000
"""Parts that Ray is given at a time: more than a cluster works on, and few enough to ask after them again and again."""

CONNECT_SECONDS = 10.0


def run_on_ray(work: Work, parts: Sequence[int], engine: RayEngine, done: Done) -> None:
    """``run_parts`` on a cluster: a task for each part, spread over the machines.

    This package travels with the work, so that all machines run the same code. Ray sets OMP_NUM_THREADS to the cores of
    a part and CUDA_VISIBLE_DEVICES to its GPUs. What it ends itself, because memory ran short, it begins again without
    counting.
    """
    with _cluster(engine) as ray:
        options = {"num_cpus": engine.num_cpus, "num_gpus": engine.num_gpus, "scheduling_strategy": "SPREAD"}
        task = ray.remote(max_retries=MAX_LOSSES - 1, **options)(make)
        there, waiting = ray.put(pickle.dumps(work)), deque(parts)
        busy: dict[Any, int] = {}
        while waiting or busy:
            while waiting and len(busy) < MAX_IN_HAND:
                part = waiting.popleft()
                busy[task.remote(there, part)] = part
            for ended in ray.wait(list(busy))[0]:
                part = busy.pop(ended)
                done(part, _facts(ray, ended, part))


def _facts(ray: Any, ended: Any, part: int) -> dict[str, Any]:
    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise WorkerLost(
            f"part {part} lost its worker or machine {MAX_LOSSES} times ({' '.join(str(error).split())[:200]}); "
            "the same command goes on with the parts that are left"
        ) from None


@contextmanager
def _cluster(engine: RayEngine) -> Iterator[Any]:
    """The module ``ray``, connected with the cluster, or with one that lives as long as the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of its use, unless asked to
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise SettingsError("engine.kind = ray: Ray is missing; `pip install 'stylegan-t[ray]'`") from None
    _check_that_someone_answers(engine.address)
    code = {"py_modules": [str(Path(__file__).parents[1])]}
    ends = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(engine.address or "local", runtime_env=code, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise SettingsError(
            f"engine.address = {engine.address!r}: {' '.join(str(error).split())} "
            "(RAY_AUTH_MODE=token for a cluster that wants a token)"
        ) from None
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ends)  # and not Ray's own, which prints where it was
        _check_that_parts_fit(ray, engine)
        yield ray
    finally:
        ray.shutdown()


def _check_that_someone_answers(address: str | None) -> None:
    """Ray itself would try for minutes."""
    if found := re.fullmatch(r"(?:ray://)?([^/]+):(\d+)", address or ""):
        try:
            socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
        except OSError as error:
            raise SettingsError(
                f"engine.address = {address!r}: nobody answers there ({error}); "
                "`ray start --head` starts a cluster and says its address"
            ) from None


def _check_that_parts_fit(ray: Any, engine: RayEngine) -> None:
    """Say so if no machine can take a part, which Ray would wait for: a cluster may grow, but not one of our own."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(have.get("CPU", 0) >= engine.num_cpus and have.get("GPU", 0) >= engine.num_gpus for have in machines):
        return
    said = (
        f"engine: a part takes num_cpus = {engine.num_cpus:g} and num_gpus = {engine.num_gpus:g}, "
        f"which none of the cluster's {len(machines)} machines has"
    )
    if engine.address is None:
        raise SettingsError(f"{said} ({os.cpu_count()} cores, {machines[0].get('GPU', 0):g} GPUs)")
    logging.getLogger(__name__).warning("%s; waiting for one that has", said)
