"""Pictures that measure a model and so must not train it: a folder of them, to be compared with what is trained on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from stylegan_t.data.shards import MANIFEST, Sample, Shards
from stylegan_t.errors import DataError
from stylegan_t.files import sha256

logger = logging.getLogger(__name__)


class EvaluationSet:
    """The pictures of an evaluation set, without captions.

    Args:
        folder: Shards of ours (where there is a manifest), or any files, nested or not: those that decode are the
            pictures. Hidden files are left out.

    Raises:
        DataError: There is no such folder, or it is empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (score.evaluation_sets in params.yaml)")
        self._shards = Shards(folder) if (folder / MANIFEST).is_file() else None
        found = [] if self._shards else [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self._files = [path for path in found if not _hidden(path.relative_to(folder))]
        if not len(self):
            raise DataError(f"{folder}: no file in it (score.evaluation_sets in params.yaml)")

    def __len__(self) -> int:
        """Files, or samples."""
        return len(self._files if self._shards is None else self._shards)

    def fingerprint(self) -> str:
        """Changes when a picture does. Reads all bytes."""
        if self._shards:
            return sha256(self.folder / MANIFEST)
        lines = [f"{self._name(path)} {sha256(path)}\n" for path in self._files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def samples(self) -> Iterator[Sample]:
        """Each file, called by its path in the folder, or each sample's picture; their captions are empty."""
        if self._shards:
            pictures = ((sample.key, sample.image) for sample in self._shards)
        else:
            pictures = ((self._name(path), path.read_bytes()) for path in self._files)
        return (Sample(name, {"bin": data, "txt": b"", "json": b"{}"}) for name, data in pictures)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)
