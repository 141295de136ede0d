"""Sets of pictures that can be measured: in shards, in a folder, or painted by a model."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from stylegan_t.data.images import UndecodableImage, decode
from stylegan_t.data.shards import Shards
from stylegan_t.data.sources.folder import Folder
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.files import sha256
from stylegan_t.randomness import derive_seed

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
CAPTION_COLUMNS = ("text", "caption", "captions")


class Pictures(ABC):
    """Numbered pictures, with or without captions.

    Attributes:
        name: For the one who reads a table.
        count: How many there are.
    """

    name: str
    count: int

    @cached_property
    @abstractmethod
    def identity(self) -> str:
        """Hex digest of all that decides the pictures: other pixels, another identity."""

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> list[UInt8[Tensor, "3 _ _"]]:
        """Some of the pictures. Raises DataError where one is damaged."""

    @abstractmethod
    def captions(self) -> list[list[str]]:
        """What is said of each picture: a list for each, which may be empty."""


class ShardPictures(Pictures):
    """Pictures in shards, raw or prepared, of ours or indexed."""

    def __init__(self, shards: Shards) -> None:
        self.name, self.shards, self.count = str(shards.folder), shards, len(shards)

    @cached_property
    def identity(self) -> str:
        return hashlib.sha256(repr(sorted(self.shards.manifest.items())).encode()).hexdigest()

    def read(self, numbers: Sequence[int]) -> list[UInt8[Tensor, "3 _ _"]]:
        pictures = []
        for number in numbers:
            sample = self.shards[number]
            try:
                pictures.append(_tensor(decode(sample.image)))
            except UndecodableImage as error:
                raise DataError(
                    f"{self.name}: sample {sample.key}: {error}; `stylegan-t data verify` tells all"
                ) from None
        return pictures

    def captions(self) -> list[list[str]]:
        return [sample.captions for sample in self.shards]


class FolderPictures(Pictures):
    """All pictures below a folder, in the order of their names; captions as in data/README.md, where there are any.

    Hidden files and folders do not count: some systems leave halves of pictures there.

    Raises:
        DataError: No such folder, or no picture in it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        self.name, self.folder = str(folder), folder
        self.files = sorted(
            (path for path in folder.rglob("*") if self._is_picture(path)), key=str
        )  # as clean-fid does
        self.count = len(self.files)
        if not self.files:
            raise DataError(f"{folder}: no picture in it ({', '.join(sorted(EXTENSIONS))})")

    def _is_picture(self, path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(self.folder).parts)
        return path.suffix.lower() in EXTENSIONS and not hidden and path.is_file()

    @cached_property
    def identity(self) -> str:
        lines = [f"{path.relative_to(self.folder).as_posix()} {sha256(path)}\n" for path in self.files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def read(self, numbers: Sequence[int]) -> list[UInt8[Tensor, "3 _ _"]]:
        pictures = []
        for number in numbers:
            try:
                pictures.append(_tensor(decode(self.files[number].read_bytes())))
            except UndecodableImage as error:
                raise DataError(f"{self.files[number]}: {error}; remove it, or repair it") from None
        return pictures

    def captions(self) -> list[list[str]]:
        rows = Folder(self.folder, CAPTION_COLUMNS, self.count).rows()
        said = {row["name"]: row["captions"] for row in rows}
        return [said.get(path.relative_to(self.folder).as_posix(), []) for path in self.files]


def open_pictures(path: Path) -> Pictures:
    """The pictures at a path: shards with a manifest, or a folder of files.

    Raises:
        DataError: There are none.
    """
    if (path / "manifest.json").is_file():
        return ShardPictures(Shards(path))
    return FolderPictures(path)


FIT = "centre square; smaller by the mean of the area, larger by Lanczos"
"""What ``fitted`` does, as records say it."""


def fitted(pictures: Sequence[UInt8[Tensor, "3 _ _"]], px: int | None) -> list[UInt8[Tensor, "3 _ _"]]:
    """The centre squares at a side of ``px``: smaller by the mean of what falls into a pixel, larger by Lanczos.

    Args:
        px: None leaves the pictures as they are.
    """
    return [picture if px is None or picture.shape[1:] == (px, px) else _fit(picture, px) for picture in pictures]


def _fit(picture: UInt8[Tensor, "3 _ _"], px: int) -> UInt8[Tensor, "3 px px"]:
    height, width = picture.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    centre = Image.fromarray(picture[:, top : top + side, left : left + side].permute(1, 2, 0).numpy())
    how = Image.Resampling.BOX if side > px else Image.Resampling.LANCZOS
    return _tensor(np.asarray(centre.resize((px, px), how)))


def _tensor(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def choose_captions(
    said: Sequence[Sequence[str]], how: Literal["one_per_image", "all"], count: int | None, seed: int
) -> list[str]:
    """The captions that are painted, in a random order that depends on the seed and the captions alone.

    Not on the order of the pictures: in a folder and in shards the same ones lie in another. Where more are wanted than
    there are, they come again, in another order each time.

    Args:
        said: The captions of each real picture.
        how: ``one_per_image`` takes a random one of each picture, ``all`` takes all.
        count: How many; None takes each once.

    Raises:
        SettingsError: There is none.
    """
    draw = random.Random(derive_seed(seed, "captions"))
    of_pictures = sorted(sorted(captions) for captions in said if captions)
    if how == "one_per_image":
        chosen = [draw.choice(captions) for captions in of_pictures]
    else:
        chosen = [caption for captions in of_pictures for caption in captions]
    if not chosen:
        raise SettingsError("the real pictures have no captions to paint; give --captions FILE with one a line")
    result: list[str] = []
    while len(result) < (count or len(chosen)):
        result += draw.sample(chosen, len(chosen))
    return result[: count or len(chosen)]


def captions_sha256(captions: Sequence[str]) -> str:
    """Hex digest of a list of captions, in its order."""
    return hashlib.sha256("\n".join(captions).encode()).hexdigest()


class Some(Pictures):
    """Some pictures of shards, by number."""

    def __init__(self, pictures: ShardPictures, numbers: Sequence[int]) -> None:
        self.name, self.pictures, self.numbers, self.count = pictures.name, pictures, numbers, len(numbers)

    @cached_property
    def identity(self) -> str:
        return hashlib.sha256(repr((self.pictures.identity, tuple(self.numbers))).encode()).hexdigest()

    def read(self, numbers: Sequence[int]) -> list[UInt8[Tensor, "3 _ _"]]:
        return self.pictures.read([self.numbers[number] for number in numbers])

    def captions(self) -> list[list[str]]:
        return [self.pictures.shards[number].captions for number in self.numbers]

    def key(self, number: int) -> str:
        return self.pictures.shards[self.numbers[number]].key

    def caption(self, number: int) -> str:
        return self.pictures.shards[self.numbers[number]].caption
