"""Settings of ``fetch_encoders``: the networks that training uses, and those that measure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stylegan_t.settings.fields import Augmentation, Count, NonNegative, Positive, Probability, Resolution, Section


class TrainedClip(Section):
    """A small CLIP, trained on the raw data: for machines without pretrained weights."""

    kind: Literal["train"]
    seed: int = Field(description="added to the pipeline's seed, so that two CLIPs differ")
    image_px: Resolution = Field(description="input side of the image tower, pixels")
    patch_px: Literal[4, 8, 16] = Field(description="side of a patch, pixels")
    image_width: Count = Field(description="channels of the image tower")
    image_depth: Count = Field(description="transformer blocks of the image tower")
    text_width: Count = Field(description="channels of the text tower")
    text_depth: Count = Field(description="transformer blocks of the text tower")
    num_heads: Count = Field(description="attention heads in both towers")
    embed_dim: Count = Field(description="length of an embedding")
    context_length: Count = Field(description="tokens of a caption that are read")
    word_steps: int = Field(ge=0, description="first phase: steps of predicting the caption's words from the image")
    word_batch_size: Count = Field(description="first phase: pairs a step")
    word_lr: Positive = Field(description="first phase: peak learning rate")
    max_words: Count = Field(description="both phases: the most frequent words of the captions that are predicted")
    contrastive_steps: Count = Field(description="second phase: steps of matching images with captions")
    contrastive_batch_size: Count = Field(description="second phase: pairs a step")
    image_lr: Positive = Field(description="second phase: peak learning rate of the image tower")
    text_lr: Positive = Field(description="second phase: peak learning rate of the text tower")
    weight_decay: NonNegative = Field(
        description="of both towers, both phases; more helps with combinations never shown"
    )
    p_low_resolution: Probability = Field(description="share of batches reduced to half their side")
    augment: list[Augmentation] = Field(description="DiffAugment operations that the image tower learns to see through")
    p_augment: Probability = Field(description="share of images that pass through them")

    @model_validator(mode="after")
    def _divides(self) -> TrainedClip:
        if self.image_px % self.patch_px:
            raise ValueError(f"image_px = {self.image_px} is no multiple of patch_px = {self.patch_px}")
        for name in ("image_width", "text_width"):
            if getattr(self, name) % self.num_heads:
                raise ValueError(f"{name} = {getattr(self, name)} does not split into num_heads = {self.num_heads}")
        return self


class PretrainedClip(Section):
    """A CLIP of open_clip's collection."""

    kind: Literal["pretrained"]
    model: str = Field(description="architecture, as in open_clip.list_models(), e.g. ViT-L-14-quickgelu")
    weights: str = Field(description="open_clip's tag (openai, laion2b_…) or a local file")


class SharedImageTower(Section):
    """The conditioning CLIP's own image tower feeds the discriminator (a deviation for small machines)."""

    kind: Literal["clip_image_tower"]
    hooks: list[int] = Field(min_length=1, description="blocks whose output feeds a head, counted from 0")


class TimmViT(Section):
    """A vision transformer of timm's collection feeds the discriminator."""

    kind: Literal["timm"]
    model: str = Field(description="timm's name, e.g. vit_small_patch16_224.dino")
    weights: str = Field(description="'pretrained' (timm downloads them) or a local file")
    hooks: list[int] = Field(min_length=1, description="blocks whose output feeds a head, counted from 0")


class Inception(Section):
    """FID's network, as clean-fid has it: TorchScript, for the resizes ``clean`` and ``legacy_tensorflow``."""

    kind: Literal["inception"]
    weights: str = Field(description="'pretrained' (clean-fid's are downloaded) or a local copy of that file")


class InceptionPytorch(Section):
    """pytorch-fid's port of FID's network, as clean-fid has it, for the resize ``legacy_pytorch``."""

    kind: Literal["inception_pytorch"]
    weights: str = Field(description="'pretrained' (clean-fid's are downloaded) or a local copy of that file")


class DinoV2(Section):
    """The class token of DINOv2 ViT-L/14."""

    kind: Literal["dinov2"]
    weights: str = Field(description="'pretrained' (timm downloads them) or a local file")


Judge = Annotated[
    TrainedClip | PretrainedClip | Inception | InceptionPytorch | DinoV2, Field(discriminator="kind")
]  # fmt: skip


class FetchEncoders(Section):
    """Frozen networks: the ones training uses, and the judges, which training never sees."""

    clip: TrainedClip | PretrainedClip = Field(discriminator="kind")
    discriminator_vit: SharedImageTower | TimmViT = Field(discriminator="kind")
    judges: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Judge] = Field(
        min_length=1, description="the networks that measure, under the names that protocols call them by"
    )
