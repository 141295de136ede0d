"""Going back to the last good state with lower learning rates, after a loss or gradient was no longer finite."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from stylegan_t.errors import DataError, TrainingDiverged
from stylegan_t.files import write_json
from stylegan_t.settings.training import Guard
from stylegan_t.training.distributed import World

logger = logging.getLogger(__name__)

FILE = "rollbacks.json"


def forget_rollbacks(folder: Path) -> None:
    """For a run that starts afresh."""
    (folder / FILE).unlink(missing_ok=True)


@dataclass
class Rollbacks:
    """The rollbacks of a run so far, kept in a file: a run that is killed and resumed remembers them.

    Attributes:
        folder: Where the run's states are.
    """

    folder: Path
    guard: Guard
    world: World

    @property
    def file(self) -> Path:
        return self.folder / FILE

    def __post_init__(self) -> None:
        self._done: list[str] = []
        if self.file.is_file():
            try:
                self._done = json.loads(self.file.read_text())
            except ValueError as error:
                raise DataError(f"{self.file}: not valid JSON ({error}); `--resume never` starts afresh") from None
        self.world.wait_for_all()  # nobody writes the file before everybody has read it

    @property
    def lr_factor(self) -> float:
        """Factor on both learning rates."""
        return self.guard.rollback_lr_factor ** len(self._done)

    def after(self, failure: TrainingDiverged) -> None:
        """Note one more rollback; raises the failure itself where no further one is allowed."""
        if len(self._done) >= self.guard.max_rollbacks:
            raise failure
        self._done.append(str(failure))
        if self.world.is_main:
            logger.warning("%s", failure)
            logger.warning(
                "going back to the last state, rollback %d of %d, learning rates times %g",
                len(self._done),
                self.guard.max_rollbacks,
                self.lr_factor,
            )
            write_json(self.file, self._done)
        self.world.wait_for_all()
