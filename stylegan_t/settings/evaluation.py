"""Settings of ``evaluate``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from stylegan_t.settings.fields import Count, Section


class Evaluate(Section):
    """Measures the final model, and each stage's, with the judges."""

    num_images: int = Field(ge=2, description="fakes of each stage per Fréchet distance and CLIP score, at psi 1")
    num_psi_images: int = Field(ge=2, description="fakes of the final model at each psi; at most num_images")
    psi: list[Annotated[float, Field(ge=0, le=1.5)]] = Field(min_length=1, description="truncations of the sweep")
    num_seeds: Count = Field(description="repetitions with other latents, for the spread of each figure")
    prompt_set: str = Field(description="prompts of the sample grid: heldout, shapes, or a text file, one per line")
    num_prompts: Count = Field(description="prompts of the sample grid")
    num_oracle_prompts: Count = Field(description="prompts read back by the oracle (shapes only)")
    batch_size: Count = Field(description="images a forward pass")

    @model_validator(mode="after")
    def _sweep_is_a_part(self) -> Evaluate:
        if self.num_psi_images > self.num_images:
            raise ValueError(f"num_psi_images ({self.num_psi_images}) exceeds num_images ({self.num_images})")
        return self


class ReferenceStatistics(Section):
    """Feature moments of the held-out real images."""

    batch_size: Count = Field(description="images a forward pass")
