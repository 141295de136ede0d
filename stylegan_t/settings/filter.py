"""Settings of ``filter``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from stylegan_t.settings.engine import Engine
from stylegan_t.settings.fields import Count, Probability, Resolution, Section, compiles, found_by_re2

Share = Annotated[float, Field(gt=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]


class Threshold(Section):
    """Limits on a number that ``score`` measured; what is null asks nothing."""

    column: str = Field(description="width, height, num_bytes, sharpness, or plugin_<name> of one of score's plug-ins")
    min: float | None = Field(description="drop pairs below; null = off")
    max: float | None = Field(description="drop pairs above; null = off")
    keep_fraction: Share | None = Field(
        description="of the distinct pictures that pass the rules so far, keep this share: the highest; null = off"
    )

    @model_validator(mode="after")
    def _asks_something_possible(self) -> Threshold:
        if self.min is None and self.max is None and self.keep_fraction is None:
            raise ValueError(f"a threshold on {self.column} needs min, max or keep_fraction; all are null")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no {self.column} is at least {self.min} (min) and at most {self.max} (max)")
        return self


class Blocklist(Section):
    """A text file of what must not be trained on: an entry a line, ``#`` before a comment (data/README.md)."""

    kind: Literal["keys", "urls", "domains", "words", "pixels"] = Field(
        description="of samples; of pictures, whole; with all below them; whole words or phrases in a caption, in "
        "either case; pixel_sha256 of the score tables, hexadecimal"
    )
    path: str = Field(description="the file; relative paths start at the repository's root")
    sha256: str | None = Field(
        pattern="^[0-9a-f]{64}$",
        description="of the file: a change of the list is then a change of the settings, which DVC sees; null = not "
        "compared, and `dvc repro --force --single-item filter` applies a changed list",
    )


class Likeness(Section):
    """From where on two pictures are too near each other, by three measures."""

    same_pixels: bool = Field(description="equal pixels are too near, whatever the file")
    max_perceptual_distance: Annotated[int, Field(ge=0, le=16)] | None = Field(
        description="perceptual hashes that differ in so many of 64 bits or less are too near; null = off"
    )
    min_cosine: Cosine | None = Field(
        description="CLIP image embeddings of this cosine (less a millionth, for rounding) or more are too near; "
        "null = off"
    )


class Duplicates(Likeness):
    """Which pictures are copies of each other: the first by key stays."""

    cell_size: Count = Field(
        description="embeddings are compared within cells of about so many neighbours (SemDeDup); where all pictures "
        "fit into one, each with each: then every pair is found, in a time that grows with the square"
    )


class Filter(Section):
    """Rules that decide which pairs are trained on; changing them does not score again."""

    min_side_px: Count | None = Field(description="drop images whose shorter side is smaller; null = off")
    max_aspect_ratio: Annotated[float, Field(ge=1)] | None = Field(
        description="drop images whose longer side is more than so many times the shorter; null = off"
    )
    thresholds: list[Threshold] = Field(description="on what else was measured, in this order; [] = none")
    blocklists: list[Blocklist] = Field(description="what must not be trained on; [] = none")

    min_caption_chars: Count | None = Field(description="drop shorter captions; null = off")
    max_caption_chars: Count | None = Field(description="drop longer captions; null = off")
    min_caption_words: Count | None = Field(description="drop captions of fewer words; null = off")
    max_caption_words: Count | None = Field(description="drop captions of more words; null = off")
    min_caption_letters: Probability | None = Field(
        description="drop captions with a smaller share of letters among their visible characters; null = off"
    )
    drop_url_captions: bool = Field(description="drop captions that hold a web address or the name of a file")
    boilerplate_captions: list[Annotated[str, AfterValidator(found_by_re2)]] = Field(
        description="drop captions in which one of these regular expressions (RE2) is found, in either case; [] = none"
    )
    languages: list[str] | None = Field(
        min_length=1,
        description="drop captions in another language: ISO 639 codes, und = could not be told; null = any language",
    )

    min_clip_score: Cosine | None = Field(description="drop captions of lower CLIP similarity; null = off")
    keep_fraction: Share | None = Field(
        description="of the distinct pictures that pass the rules so far, keep this share: those of the highest CLIP "
        "similarity to their best caption; null = off"
    )
    duplicates: Duplicates
    decontamination: Likeness = Field(
        description="drop pairs that are too near a picture of an evaluation set (score.evaluation_sets), and pairs "
        "for training that are too near a held-out one"
    )

    p_heldout: float = Field(gt=0, lt=1, description="share of samples held out for measuring, by a hash of the key")
    variant_pattern: Annotated[str, AfterValidator(compiles)] | None = Field(
        description="regular expression; what it matches is cut from the key before the split is decided, "
        "so that variants of one picture stay on one side; null = off"
    )
    image_px: Resolution = Field(description="side of the stored images: the highest resolution trained")
    image_format: Literal["png", "webp", "jpeg"] = Field(description="png and webp are lossless here")
    engine: Engine
