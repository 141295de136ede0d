"""TensorBoard and Weights & Biases beside a run's own records: they show, nothing reads them back.

Both count in images shown, so that the curves of two batch sizes lie over each other.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylegan_t.records import LogRecord, RunRecord
from stylegan_t.training.schedules import images

log = logging.getLogger(__name__)

TENSORBOARD = "tensorboard"


class Logger(ABC):
    """Shows a run somewhere else. Any method may raise: `Loggers` then goes on without it."""

    name: str

    @abstractmethod
    def begin(self, run: RunRecord, nimg: int) -> None:
        """The run goes on from ``nimg`` images; what an interrupted process told of later ones counts no more."""

    @abstractmethod
    def log(self, nimg: int, scalars: dict[str, float]) -> None: ...

    @abstractmethod
    def show(self, nimg: int, picture: Image.Image) -> None: ...

    @abstractmethod
    def finish(self) -> None: ...


class TensorBoard(Logger):
    """Event files for ``tensorboard --logdir .state``.

    A resumed run adds a file that hides the events after its beginning (``purge_step``).
    """

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, run: RunRecord, nimg: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        first_new = nimg + 1 if nimg else 0  # a run from 0 images shows its first grid again
        self._writer = SummaryWriter(str(self.folder), purge_step=first_new)

    def log(self, nimg: int, scalars: dict[str, float]) -> None:
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, nimg)
        self._writer.flush()  # a killed process has told all that its log tells

    def show(self, nimg: int, picture: Image.Image) -> None:
        self._writer.add_image("samples", np.asarray(picture), nimg, dataformats="HWC")
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


class WeightsAndBiases(Logger):
    """A run in a project of Weights & Biases (https://docs.wandb.ai/ref/python/).

    Credentials and the like are the service's own business (``wandb login``, ``WANDB_MODE=offline``, …). A resumed
    training goes on in the same run there: lines that it has already are told again and, their step being past,
    ignored by the service.

    Tested against a stand-in of the package and, by hand, with the package in offline mode; the service itself was not
    contacted.
    """

    name = "Weights & Biases"

    def __init__(self, folder: Path, project: str) -> None:
        self.folder, self.project = folder, project

    def begin(self, run: RunRecord, nimg: int) -> None:
        if not find_spec("wandb"):
            raise ModuleNotFoundError("the package wandb is not installed: pip install 'wandb>=0.21'")
        self._wandb: Any = import_module("wandb")  # optional: not known to the type checker
        started = datetime.fromisoformat(run.started)
        self._run = self._wandb.init(
            project=self.project,
            id=f"{run.digest}-{started:%Y%m%d%H%M%S%f}",
            name=f"{run.stage} {run.digest[:6]}",
            group=run.stage,
            config=run.settings,
            dir=str(self.folder),
            resume="allow",
            reinit="finish_previous",
        )

    def log(self, nimg: int, scalars: dict[str, float]) -> None:
        self._run.log(scalars, step=nimg)

    def show(self, nimg: int, picture: Image.Image) -> None:
        self._run.log({"samples": self._wandb.Image(picture)}, step=nimg)

    def finish(self) -> None:
        self._run.finish()


class Loggers:
    """Loggers that may fail: the first error of one is reported, and it is asked no more."""

    def __init__(self, loggers: list[Logger]) -> None:
        self.working = loggers

    def begin(self, run: RunRecord, nimg: int) -> None:
        self._each(lambda logger: logger.begin(run, nimg))

    def log(self, record: LogRecord) -> None:
        self._each(lambda logger: logger.log(images(record.kimg), scalars(record)))

    def show(self, kimg: float, picture: Image.Image) -> None:
        self._each(lambda logger: logger.show(images(kimg), picture))

    def finish(self) -> None:
        self._each(lambda logger: logger.finish())

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for logger in list(self.working):
            try:
                tell(logger)
            # Other people's code, which talks to disks and networks, may raise anything, and a week's training
            # must not end for a curve. Nothing of ours runs in here but the few lines above.
            except Exception as error:  # noqa: BLE001
                self.working.remove(logger)
                reason = f"{type(error).__name__}: {error}"
                log.warning("%s failed and is switched off; the training goes on (%s)", logger.name, reason)


def usual_loggers(folder: Path, wandb_project: str | None) -> Loggers:
    """TensorBoard where it is installed, Weights & Biases where a project is named.

    Args:
        folder: ``live/`` of the run.
        wandb_project: Where to log; needs the extra ``wandb``.
    """
    loggers: list[Logger] = []
    if find_spec("tensorboard"):
        loggers.append(TensorBoard(folder / TENSORBOARD))
    if wandb_project:
        loggers.append(WeightsAndBiases(folder, wandb_project))
    return Loggers(loggers)


def scalars(record: LogRecord) -> dict[str, float]:
    """The numbers of a line by the name that they are shown under."""
    found = {f"training/{name}": value for name, value in record.terms.items()}
    found["training/resolution"] = float(record.resolution)
    speed = record.speed.model_dump() if record.speed else {}
    return found | {f"speed/{name}": value for name, value in speed.items()}
