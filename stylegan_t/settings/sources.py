"""Settings of ``download``: where pairs come from."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stylegan_t.settings.download import Fetching, Stored
from stylegan_t.settings.engine import Engine
from stylegan_t.settings.fields import Count, Resolution, Section

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Name], Field(min_length=1)]
CAPTIONS = "hold captions, one or a list of them; a picture's captions are those of all of them"


class SourceSettings(Section):
    """What all sources have."""

    @property
    @abstractmethod
    def in_words(self) -> str:
        """What the data are, in a few words."""


class ShapesSource(SourceSettings):
    """Drawn shapes with exact captions and known attributes."""

    kind: Literal["shapes"]
    num_images: Count = Field(description="pictures to draw")
    image_px: Resolution = Field(description="side of a drawn picture, pixels")
    heldout_combinations: float = Field(
        ge=0.1, le=0.5, description="share of all attribute combinations that is never drawn, rounded up to eighths"
    )

    @property
    def in_words(self) -> str:
        return "drawn shapes"


class ShapePairsSource(SourceSettings):
    """Two drawn figures each, with exact captions: shows whether attributes are bound to the right object."""

    kind: Literal["shape_pairs"]
    num_images: Count = Field(description="pictures to draw")
    image_px: Resolution = Field(description="side of a drawn picture, pixels")
    heldout_combinations: float = Field(
        gt=0, le=0.4, description="share of all pairings of two figures that is never drawn, rounded up to 21sts"
    )

    @property
    def in_words(self) -> str:
        return "drawn pairs of shapes"


class EmojiSource(SourceSettings):
    """Colour emoji, drawn with a font of this machine, with Unicode's names."""

    kind: Literal["emoji"]
    font: Name | None = Field(description="a font file, e.g. NotoColorEmoji.ttf; null = find one on this machine")
    image_px: Count = Field(description="side of a picture, pixels; the font's own pictures have about 130")
    skin_tones: bool = Field(description="draw people in each of the five skin tones as well")

    @property
    def in_words(self) -> str:
        return "emoji"


class FolderSource(SourceSettings):
    """A folder of images with ``metadata.jsonl``, or a ``.txt`` or ``.json`` beside each image."""

    kind: Literal["folder"]
    path: Name = Field(description="the folder; relative paths start at the repository's root")
    caption_columns: Names = Field(
        description=f"values of metadata.jsonl or of the .json beside an image that {CAPTIONS}"
    )

    @property
    def in_words(self) -> str:
        return self.path


class UrlsSource(SourceSettings):
    """Lists of addresses of images."""

    kind: Literal["urls"]
    paths: Names = Field(
        description="lists, read as one in this order: paths, addresses (https://, s3://, …), braces ({00..17}), globs"
    )
    format: Literal["parquet", "csv", "tsv", "jsonl", "json", "coco_captions"] | None = Field(
        description="of the lists, compressed or not; null = by their names"
    )
    columns: Names | None = Field(
        description="names of the columns of csv and tsv lists whose first line is a row already; null = it names them"
    )
    records: Name | None = Field(
        description="json: name of the list of rows in the object; null = the file is that list"
    )
    url_column: Name = Field(description="holds the addresses")
    caption_columns: Names = Field(description=f"columns that {CAPTIONS}")
    key_column: Name | None = Field(description="holds the samples' keys; null = keys are hashes of the addresses")
    sha256_column: Name | None = Field(description="holds hashes that the images' files must have; null = none")

    @property
    def in_words(self) -> str:
        return ", ".join(self.paths)


class WebdatasetSource(SourceSettings):
    """Shards that are there: our own, img2dataset's, NeMo Curator's, or any webdataset."""

    kind: Literal["webdataset"]
    shards: Names = Field(
        description="tars: paths, addresses (https://, s3://, …), braces ({00000..00099}.tar), globs, commands "
        "(pipe:…); or folders of tars"
    )
    caption_columns: Names = Field(
        description=f"txt (the text beside the image), or values of its json or of the parquet file that {CAPTIONS}"
    )
    key_column: Name = Field(description="of the parquet file beside a tar, if there is one: holds the samples' keys")
    metadata_columns: list[Name] | None = Field(
        description="values of json and parquet file to keep, e.g. all but embeddings; null = all"
    )

    @property
    def in_words(self) -> str:
        return ", ".join(self.shards)


class HuggingFaceSource(SourceSettings):
    """A data set of the Hugging Face Hub or in its layout, streamed."""

    kind: Literal["huggingface"]
    dataset: Name = Field(description="name on the Hub (owner/name), or a folder")
    config: Name | None = Field(description="configuration of a data set that has several; null = the only one")
    split: Name = Field(description="train, validation, …")
    revision: Name | None = Field(description="branch, tag or commit on the Hub; null = the newest")
    image_column: Name = Field(description="holds the images")
    caption_columns: Names = Field(description=f"columns that {CAPTIONS}")
    key_column: Name | None = Field(description="holds the samples' keys; null = keys are hashes of the images")

    @property
    def in_words(self) -> str:
        return f"{self.dataset} ({self.split})"


OneSource = Annotated[
    ShapesSource | ShapePairsSource | EmojiSource | FolderSource | UrlsSource | WebdatasetSource | HuggingFaceSource,
    Field(discriminator="kind"),
]


def _is_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise ValueError("the name of a data set begins its samples' keys; use a-z, 0-9 and _")
    return name


class MixtureSource(SourceSettings):
    """Several data sets, told apart by name; how often each is shown is a setting of the training."""

    kind: Literal["mixture"]
    datasets: dict[Annotated[str, AfterValidator(_is_name)], OneSource] = Field(
        min_length=1, description="a source for each name"
    )

    @property
    def in_words(self) -> str:
        return "; ".join(f"{name}: {source.in_words}" for name, source in self.datasets.items())


class Download(Section):
    """Image-caption pairs into webdataset shards."""

    source: (
        ShapesSource
        | ShapePairsSource
        | EmojiSource
        | FolderSource
        | UrlsSource
        | WebdatasetSource
        | HuggingFaceSource
        | MixtureSource
    ) = Field(discriminator="kind")
    samples_per_shard: Count = Field(
        description="candidates that one tar is made of (webdataset and huggingface: one tar of each file there)"
    )
    engine: Engine = Field(description="where shards are made; it changes no result")
    fetching: Fetching = Field(description="how pictures are fetched from the web (urls)")
    stored: Stored = Field(description="how fetched pictures are kept (urls)")
