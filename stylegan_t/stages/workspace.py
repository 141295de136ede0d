"""Where everything lies below the repository's root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The folders that stages read and write.

    Outputs (``data/``, ``artifacts/``) belong to DVC, which deletes a stage's outputs before it runs it;
    what must survive that (resume state, live records) lies in ``.state/<stage>/<digest>/``.
    """

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "data" / "raw"

    @property
    def scores(self) -> Path:
        return self.root / "data" / "scores"

    @property
    def prepared(self) -> Path:
        return self.root / "data" / "prepared"

    @property
    def players(self) -> Path:
        """Encoders that training uses."""
        return self.artifacts("fetch_encoders") / "players"

    @property
    def judges(self) -> Path:
        """Encoders that only measure; no training code reads them."""
        return self.artifacts("fetch_encoders") / "judges"

    def artifacts(self, stage: str) -> Path:
        return self.root / "artifacts" / stage

    def state(self, stage: str, *within: str) -> Path:
        return self.root.joinpath(".state", stage, *within)
