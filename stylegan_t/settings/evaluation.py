"""Settings of ``evaluate`` and ``reference_statistics``."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from stylegan_t.settings.fields import Count, Section

Stage = Literal["train_generator", "finetune_text_encoder", "train_super_resolution"]


class Copies(Section):
    """The check whether the model copies: training pictures nearest to its samples."""

    num_samples: Count = Field(description="samples compared, the first ones at psi 1; at most num_images")
    num_shown: Count = Field(description="of them on the sheet, those nearest to a training picture first")
    num_neighbours: Count = Field(description="training pictures shown for each")
    max_training_images: Count = Field(description="training pictures compared; of more, an even selection")


class Evaluate(Section):
    """Measures the final model, and each stage's, with the judges."""

    protocol: str = Field(description="coco64, coco256, quick, shapes, or a YAML file like those in protocols/")
    against: str | None = Field(
        description="shards or folder of real pictures with captions; null: the held-out ones of this workspace"
    )
    stages: list[Stage] = Field(
        min_length=1, description="whose models are measured, in order; the last is the final one"
    )
    num_images: Annotated[int, Field(ge=2)] | None = Field(
        description="fakes of each stage at psi 1; null: as many as the protocol says"
    )
    num_psi_images: int = Field(ge=2, description="fakes of each stage at each psi; at most num_images")
    psi: list[Annotated[float, Field(ge=0, le=1.5)]] = Field(min_length=1, description="truncations of the sweep")
    num_seeds: Count = Field(description="repetitions with other latents, for the spread of each figure")
    prompt_set: str = Field(description="prompts of the sample grid: heldout, shapes, or a text file, one per line")
    num_prompts: Count = Field(description="prompts of the sample grid")
    num_oracle_prompts: Count = Field(description="prompts read back by the oracle (drawn shapes only)")
    copies: Copies
    batch_size: Count = Field(description="images a forward pass")

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: list[Stage]) -> list[Stage]:
        if stages != [stage for stage in get_args(Stage) if stage in stages]:
            raise ValueError(f"each at most once, in this order: {', '.join(get_args(Stage))}")
        return stages

    @model_validator(mode="after")
    def _some_are_parts_of_others(self) -> Evaluate:
        copies = self.copies
        for name, part, whole_name, whole in (
            ("num_psi_images", self.num_psi_images, "num_images", self.num_images),
            ("copies.num_samples", copies.num_samples, "num_images", self.num_images),
            ("copies.num_shown", copies.num_shown, "copies.num_samples", copies.num_samples),
        ):
            if whole is not None and part > whole:
                raise ValueError(f"{name} = {part} is more than {whole_name} = {whole}; use at most {whole}")
        return self


class ReferenceStatistics(Section):
    """Feature moments of the real images that models are measured against."""

    batch_size: Count = Field(description="images a forward pass")
