"""Settings of the three training stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from stylegan_t.settings.fields import (
    Augmentation,
    BatchSize,
    Count,
    NonNegative,
    Positive,
    Probability,
    Resolution,
    Section,
)


class Network(Section):
    """Architecture of the generator (design section 4.1 and 4.2), and switches for the ablation.

    Each switch turns one of the paper's redesigns off; all are on in every profile (docs/deviations.md).
    """

    z_dim: Count = Field(description="length of the latent")
    channel_base: Count = Field(description="channels at resolution r are min(channel_base // r, channel_max)")
    channel_max: Count = Field(description="most channels at any resolution")
    num_res_blocks: Count = Field(description="residual pairs per resolution")
    residual: bool = Field(
        description="false = the second layer of a pair is plain like the first: no group norm, skip or layer scale"
    )
    second_order_styles: bool = Field(description="false = a style is an affine function of w, as in StyleGAN2")
    text_bypass: bool = Field(
        description="false = the text goes through the mapping beside z, and truncation acts on all of w"
    )
    local_batch_norm: bool = Field(
        description="false = the discriminator's heads have no normalisation but the spectral norm"
    )

    def of_generator(self) -> dict[str, Any]:
        """The generator's part: arguments of its constructor."""
        return self.model_dump(exclude={"local_batch_norm"})


class LrDecay(Section):
    """A linear decay of both learning rates with a start and an end of its own."""

    start_kimg: NonNegative = Field(description="constant until here, thousand images")
    end_kimg: Positive = Field(description="final factor reached here, thousand images")
    final_factor: Probability = Field(description="share of the learning rate that is left at the end; 1 = no decay")

    @model_validator(mode="after")
    def _ordered(self) -> LrDecay:
        if self.end_kimg <= self.start_kimg:
            raise ValueError(f"end_kimg ({self.end_kimg}) must lie after start_kimg ({self.start_kimg})")
        return self


class Deviations(Section):
    """What the paper does not have; all off in ``lite`` and ``full``. See docs/deviations.md for the reasons."""

    share_fakes: bool = Field(description="one fake per step serves the discriminator's and the generator's update")
    share_vit_pass: bool = Field(
        description="guidance reads the embedding from the discriminator's pass (augmented image, shared ViT)"
    )
    wrong_caption_weight: NonNegative = Field(
        description="weight of real images with a wrong caption as further fakes; 0 = off"
    )
    p_hard_caption: Probability = Field(description="share of wrong captions that differ in few words")
    range_penalty_weight: NonNegative = Field(description="weight of mean(relu(|pixel| - 1)²); 0 = off")


class Compute(Section):
    """How the machine does the arithmetic: memory and speed. None of it changes what is learnt."""

    microbatch_size: BatchSize | None = Field(
        description="images per forward pass on each device, a multiple of 8; gradients add up over the batch, so "
        "less memory and the same result; null = all of the device's share at once"
    )
    precision: Literal["float32", "bf16"] = Field(
        description="of convolutions and products; styles, norms, the RGB sum, logits, losses and weights stay float32"
    )
    channels_last: bool = Field(description="memory layout of the convolutions; about as fast as the other, or faster")
    compile: bool = Field(description="torch.compile for the generator, the heads and the frozen encoders")
    deterministic: bool = Field(
        description="only operations that repeat themselves to the bit on a GPU too; slower there (CPUs always do)"
    )
    shard_optimizer: bool = Field(
        description="each device keeps its share of Adam's state (ZeRO-1): less memory on several devices"
    )


class Guard(Section):
    """What to do when a loss or gradient is no longer finite."""

    max_rollbacks: int = Field(
        ge=0, description="go back to the last state so many times before giving up; 0 = stop at once"
    )
    rollback_lr_factor: float = Field(gt=0, lt=1, description="each rollback multiplies both learning rates by this")


class IndexedReader(Section):
    """The prepared shards here: any sample at once, so that a run goes on exactly where it was."""

    kind: Literal["indexed"]


class StreamReader(Section):
    """Prepared shards elsewhere, read from front to back: drawn at random, so that no run can be repeated exactly."""

    kind: Literal["stream"]
    shards: list[str] = Field(
        min_length=1,
        description="tars: paths from the repository's root, addresses (https://, s3://, …), braces "
        "({00000..00099}.tar), globs, commands (pipe:…)",
    )
    manifest: str | None = Field(description="place of the shards' manifest.json; null = beside them")
    shuffle_buffer: Count = Field(
        description="samples that each process mixes; a sample takes as much memory as in tar"
    )


class AdversarialTraining(Section):
    """What the three training stages share."""

    start_from: str | None = Field(
        description="a bundle to start from instead of the stage before (or, in stage one, of nothing): the folder, or "
        "a safetensors file of a generator in the published layout, as a path from the repository's root; blocks above "
        "the first resolution trained are left out, missing ones added; null = as the pipeline goes"
    )

    total_kimg: Positive = Field(description="stop after this many thousand real images")
    batch_size: BatchSize = Field(description="real images per optimiser step; a multiple of 8")
    discriminator_lr: Positive = Field(description="Adam's learning rate for the discriminator's heads")
    lr_decay: LrDecay
    clip_guidance_weight: NonNegative = Field(description="weight of the squared spherical image-text distance")
    augment: list[Augmentation] = Field(description="DiffAugment operations before the discriminator; [] = none")
    spatial_noise: bool = Field(description="per-pixel noise while training")
    deviations: Deviations
    log_every_kimg: Positive = Field(description="a line of losses every so many thousand images")
    sample_every_kimg: Positive = Field(description="a sample grid every so many thousand images")
    save_every_kimg: Positive = Field(description="resume state every so many thousand images")
    keep_states: Count = Field(description="resume states kept; an older one helps where the newest is damaged")
    reader: IndexedReader | StreamReader = Field(discriminator="kind")
    mixture: dict[str, Positive] | None = Field(
        description="share of the images from each data set of the source, as weights by its name; null = by size"
    )
    horizontal_flip: bool = Field(description="mirror every second picture; captions may say left and right")
    num_workers: int = Field(ge=0, description="processes that decode images ahead of the training; 0 = none")
    compute: Compute
    guard: Guard

    @model_validator(mode="after")
    def _mixture_is_indexed(self) -> AdversarialTraining:
        if self.mixture is not None and self.reader.kind == "stream":
            raise ValueError(
                "mixture needs reader.kind = indexed: a stream draws all its shards alike; use null, and name the "
                "shards of a data set several times in reader.shards to see more of it"
            )
        return self


class GeneratorTraining(AdversarialTraining):
    """What the two stages that train a generator share."""

    generator_lr: Positive = Field(description="Adam's learning rate for the generator")
    ema_halflife_kimg: Positive = Field(description="half-life of the generator's average, thousand images")
    ema_rampup: NonNegative = Field(description="half-life is at most this share of the images so far; 0 = no ramp")
    blur_sigma: NonNegative = Field(description="blur of the discriminator's input at the start, pixels; 0 = off")
    blur_fade_kimg: NonNegative = Field(description="the blur fades out over this many thousand images")


class TrainGenerator(GeneratorTraining):
    """Stage one: generator and discriminator, growing."""

    network: Network
    resolutions: list[Resolution] = Field(min_length=1, description="growing steps, ascending, pixels")
    grow_at_kimg: list[Positive] = Field(description="when each resolution after the first begins, thousand images")

    @model_validator(mode="after")
    def _growth_is_ordered(self) -> TrainGenerator:
        check_growth(self.resolutions, self.grow_at_kimg, self.total_kimg)
        return self


class FinetuneTextEncoder(AdversarialTraining):
    """Stage two: the generator is frozen, a copy of the text encoder is trained."""

    text_encoder_lr: Positive = Field(description="Adam's learning rate for the text encoder")


class TrainSuperResolution(GeneratorTraining):
    """New synthesis layers up to the final resolution."""

    resolutions: list[Resolution] = Field(min_length=1, description="further growing steps, ascending, pixels")
    grow_at_kimg: list[Positive] = Field(description="when each resolution after the first begins, thousand images")
    trainable: Literal["new_layers", "all"] = Field(description="freeze the layers of stage one, or train them on")

    @model_validator(mode="after")
    def _growth_is_ordered(self) -> TrainSuperResolution:
        check_growth(self.resolutions, self.grow_at_kimg, self.total_kimg)
        return self


def check_growth(resolutions: Sequence[int], grow_at_kimg: Sequence[float], total_kimg: float) -> None:
    """Raise ``ValueError`` unless the resolutions ascend and each growing step falls inside the training."""
    if sorted(set(resolutions)) != list(resolutions):
        raise ValueError(f"resolutions {list(resolutions)} must ascend")
    if len(grow_at_kimg) != len(resolutions) - 1:
        raise ValueError(
            f"grow_at_kimg names {len(grow_at_kimg)} times for {len(resolutions)} resolutions; "
            f"one for each after the first: {len(resolutions) - 1}"
        )
    if sorted(set(grow_at_kimg)) != list(grow_at_kimg) or any(at >= total_kimg for at in grow_at_kimg):
        raise ValueError(f"grow_at_kimg {list(grow_at_kimg)} must ascend and stay below total_kimg {total_kimg}")
