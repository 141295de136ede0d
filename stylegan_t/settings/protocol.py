"""Settings of a protocol: what is measured, on how many pictures, against what. The files lie in ``protocols/``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stylegan_t.settings.encoders import DinoV2, Inception, InceptionPytorch, PretrainedClip
from stylegan_t.settings.fields import Count, Section

Metric = Literal[
    "frechet", "kernel", "cmmd", "precision_recall", "density_coverage", "clip_score", "retrieval", "best_of"
]  # fmt: skip
OF_CLIPS: tuple[Metric, ...] = ("cmmd", "clip_score", "retrieval", "best_of")
InceptionResize = Literal["clean", "legacy_tensorflow", "legacy_pytorch"]
Scale = Literal["cosine", "x100", "w2.5"]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Measure(Section):
    """What one judge measures."""

    judge: Word = Field(description="its name among the judges")
    resize: InceptionResize | None = Field(description="clean-fid's, for an Inception; null: the network's own")
    metrics: list[Metric] = Field(min_length=1, description="of pictures against real ones, or against their captions")

    @property
    def extractor(self) -> str:
        """The judge with its resize: other features, another name."""
        return f"{self.judge}_{self.resize}" if self.resize else self.judge


class BestOf(Section):
    """Prompts that get several pictures each, of which the best counts."""

    num_prompts: Count = Field(description="captions, the first ones")
    num_pictures: int = Field(ge=2, description="pictures of each")


class Protocol(Section):
    """How a set of pictures is measured, so that two numbers under one name may be compared."""

    description: str = Field(description="what it is for, in a sentence")
    reference: Word = Field(description="the real pictures' name in those of the metrics: coco, shapes, heldout")
    reference_count: Count | None = Field(
        description="how many real pictures that name stands for: against others, numbers bear the name `other`"
    )
    image_px: Count | None = Field(description="all pictures are reduced to this side; null: as they are")
    num_images: Annotated[int, Field(ge=2)] | None = Field(description="pictures; null: one for each caption")
    captions: Literal["one_per_image", "all"] = Field(description="which captions of the real pictures are painted")
    caption_seed: int = Field(ge=0, description="which caption of a picture, and their order")
    scale: Scale = Field(description="of CLIP scores: the raw cosine, a hundred times it, or 2.5 max(cosine, 0)")
    best_of: BestOf | None = Field(description="the best of several pictures of a prompt")
    judges: dict[
        Word, Annotated[PretrainedClip | Inception | InceptionPytorch | DinoV2, Field(discriminator="kind")]
    ] = Field(description="where `stylegan-t evaluate` gets judges that no folder has")
    measures: list[Measure] = Field(min_length=1, description="judges and what they measure")

    @model_validator(mode="after")
    def _measures_differ(self) -> Protocol:
        names = [measure.extractor for measure in self.measures]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"measures: {', '.join(sorted(doubled))} more than once; put all its metrics into one")
        if self.best_of is None and any("best_of" in measure.metrics for measure in self.measures):
            raise ValueError("measures: best_of needs best_of.num_prompts and best_of.num_pictures")
        return self
