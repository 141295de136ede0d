"""Settings of ``download``, ``score``, ``filter`` and ``reference_statistics``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stylegan_t.settings.fields import Count, Resolution, Section, compiles


class ShapesSource(Section):
    """Drawn shapes with exact captions and known attributes."""

    kind: Literal["shapes"]
    num_images: Count = Field(description="pictures to draw")
    image_px: Resolution = Field(description="side of a drawn picture, pixels")
    heldout_combinations: float = Field(
        ge=0.1, le=0.5, description="share of all attribute combinations that is never drawn, rounded up to eighths"
    )


class FolderSource(Section):
    """A folder of images with ``metadata.jsonl`` (``file_name``, ``text``), or a ``.txt`` beside each image."""

    kind: Literal["folder"]
    path: str = Field(description="the folder; relative paths start at the repository's root")


class Download(Section):
    """Image-caption pairs into webdataset shards."""

    source: ShapesSource | FolderSource = Field(discriminator="kind")
    samples_per_shard: Count = Field(description="samples in one tar file")


class Score(Section):
    """Measures each pair once."""

    batch_size: Count = Field(description="pairs a forward pass")


class Filter(Section):
    """Rules that decide which pairs are trained on; changing them does not score again."""

    min_side_px: Count = Field(description="drop images whose shorter side is smaller")
    max_aspect_ratio: float = Field(ge=1, description="drop images whose longer side is this many times the shorter")
    min_caption_chars: int = Field(ge=0, description="drop shorter captions")
    max_caption_chars: Count = Field(description="drop longer captions")
    drop_exact_duplicates: bool = Field(description="keep the first of several images with the same pixels")
    min_clip_score: float | None = Field(ge=-1, le=1, description="drop pairs of lower CLIP similarity; null = off")
    keep_fraction: float | None = Field(
        gt=0, le=1, description="keep this share of the remaining pairs, by CLIP similarity; null = off"
    )
    p_heldout: float = Field(gt=0, lt=1, description="share of samples held out for measuring, by a hash of the key")
    variant_pattern: Annotated[str, AfterValidator(compiles)] | None = Field(
        description="regular expression; what it matches is cut from the key before the split is decided, "
        "so that variants of one picture stay on one side; null = off"
    )
    image_px: Resolution = Field(description="side of the stored images: the highest resolution trained")
    image_format: Literal["png", "webp", "jpeg"] = Field(description="png and webp are lossless here")


class ReferenceStatistics(Section):
    """Feature moments of the held-out real images."""

    batch_size: Count = Field(description="images a forward pass")
