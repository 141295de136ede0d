"""A training of the smallest players as a process of its own, to be killed, signalled, and run beside others.

``python -m tests.training.worker JOB…``, also under torchrun; a job is a JSON object: ``folder``, ``settings`` (changes
to those of tests/training/players.py), ``pause`` (seconds that a batch takes), ``resume``, ``fail_rank`` (which process
breaks off), ``bad`` (the image that is not finite when it comes by for the first time).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from stylegan_t.cli import say
from stylegan_t.data.loader import Batch
from stylegan_t.errors import DataError, Ended
from stylegan_t.records import RunRecord
from stylegan_t.training.distributed import World, join_world
from stylegan_t.training.live import LiveFolder
from stylegan_t.training.loop import Run, train
from tests.training.players import fetch, make_players, settings


def make_run(job: dict[str, Any], world: World) -> Run:
    config = settings(**job.get("settings", {}))
    folder = Path(job["folder"])
    bad = [job["bad"]] if "bad" in job else []

    def batches(nimg: int) -> Iterator[Batch]:
        share = world.share(config.batch_size)
        for number, batch in enumerate(fetch(nimg, config.batch_size)):
            time.sleep(job.get("pause", 0))
            if job.get("fail_rank") == world.rank and number == 2:
                raise DataError("a shard is gone")
            first = nimg + number * config.batch_size
            if bad and first <= bad[0] < first + config.batch_size:
                batch.c[bad.pop() - first] = float("nan")
            part = slice(share.start, share.stop)
            yield Batch(batch.images[part], batch.c[part], batch.captions[part])

    prompts = ["a red picture", "a blue picture"]
    return Run(
        record=RunRecord(
            stage="test", digest="d", started="", total_kimg=config.total_kimg, settings={}, finished=False
        ),
        settings=config, seed=3, world=world, players=make_players(config), fetch=batches, wrong_captions=None,
        state_folder=folder, live=LiveFolder(folder / "live", prompts, [0, 1]), prompt_c=next(fetch(0)).c[:2],
        resume=job.get("resume", "auto"),
    )  # fmt: skip


def main(jobs: list[str]) -> None:
    """Run the jobs one after the other; exit codes are those of the command line."""
    torch.set_num_threads(1)
    try:
        with join_world(torch.device("cpu")) as world:
            for job in jobs:
                train(make_run(json.loads(job), world))
    except Ended as error:
        sys.exit(say(error))


if __name__ == "__main__":
    main(sys.argv[1:])
