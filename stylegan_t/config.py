"""The meaning of every setting in ``params.yaml``: type, unit, range and one line of what it does.

The values live in ``params.yaml`` (written from a profile by ``stylegan-t profile NAME``); nothing here has a
default, so what a run does can be read off one file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stylegan_t.errors import SettingsError

PARAMS_FILE = "params.yaml"
LOCAL_BATCH_NORM_GROUP = 8
CHANNEL_MULTIPLE = 32

Augmentation = Literal["brightness", "saturation", "contrast", "translation", "cutout"]


class Section(BaseModel):
    """A group of settings: unknown keys are errors, values keep their written type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _power_of_two(px: int) -> int:
    if px < 8 or px & (px - 1):
        raise ValueError("a resolution is a power of two from 8 on (8, 16, 32, 64, …)")
    return px


def _splits_into_groups(batch_size: int) -> int:
    group = LOCAL_BATCH_NORM_GROUP
    if batch_size % group:
        below, above = batch_size // group * group, (batch_size // group + 1) * group
        use = f"{below} or {above}" if below else f"{above}"
        raise ValueError(f"a batch splits into groups of {group} for the discriminator's local batch norm; use {use}")
    return batch_size


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


Resolution = Annotated[int, AfterValidator(_power_of_two)]
BatchSize = Annotated[int, Field(gt=0), AfterValidator(_splits_into_groups)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


# ---- download ------------------------------------------------------------------------------------------------


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


# ---- fetch_encoders ------------------------------------------------------------------------------------------


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


class JudgeClipFeatures(Section):
    """Fréchet distances in the image embedding of the judge's CLIP."""

    kind: Literal["judge_clip"]


class InceptionFeatures(Section):
    """Fréchet distances in clean-fid's Inception features: FID."""

    kind: Literal["inception"]
    mode: Literal["clean", "legacy_tensorflow", "legacy_pytorch"] = Field(description="clean-fid's resize and weights")
    weights: str = Field(description="'pretrained' (clean-fid's are downloaded) or a local copy of that file")


class DinoV2Features(Section):
    """Fréchet distances in the class token of DINOv2."""

    kind: Literal["dinov2"]
    weights: str = Field(description="'pretrained' (timm downloads them) or a local file")


class FetchEncoders(Section):
    """Frozen networks: the ones training uses, and the judges, which training never sees."""

    clip: TrainedClip | PretrainedClip = Field(discriminator="kind")
    discriminator_vit: SharedImageTower | TimmViT = Field(discriminator="kind")
    judge_clip: TrainedClip | PretrainedClip = Field(discriminator="kind")
    judge_features: JudgeClipFeatures | InceptionFeatures | DinoV2Features = Field(discriminator="kind")


# ---- score, filter, reference_statistics ---------------------------------------------------------------------


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
    variant_pattern: Annotated[str, AfterValidator(_compiles)] | None = Field(
        description="regular expression; what it matches is cut from the key before the split is decided, "
        "so that variants of one picture stay on one side; null = off"
    )
    image_px: Resolution = Field(description="side of the stored images: the highest resolution trained")
    image_format: Literal["png", "webp", "jpeg"] = Field(description="png and webp are lossless here")


class ReferenceStatistics(Section):
    """Feature moments of the held-out real images."""

    batch_size: Count = Field(description="images a forward pass")


# ---- training ------------------------------------------------------------------------------------------------


class Network(Section):
    """Architecture of the generator (design section 4.1 and 4.2)."""

    z_dim: Count = Field(description="length of the latent")
    channel_base: Count = Field(description="channels at resolution r are min(channel_base // r, channel_max)")
    channel_max: Count = Field(description="most channels at any resolution")
    num_res_blocks: Count = Field(description="residual pairs per resolution")


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


class AdversarialTraining(Section):
    """What the three training stages share."""

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
    num_workers: int = Field(ge=0, description="processes that decode images ahead of the training; 0 = none")


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


# ---- evaluate ------------------------------------------------------------------------------------------------


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


class Config(Section):
    """All of ``params.yaml``: the seed and one section for each stage."""

    seed: int = Field(ge=0, description="every random draw of the pipeline derives from it")
    download: Download
    fetch_encoders: FetchEncoders
    score: Score
    filter: Filter
    reference_statistics: ReferenceStatistics
    train_generator: TrainGenerator
    finetune_text_encoder: FinetuneTextEncoder
    train_super_resolution: TrainSuperResolution
    evaluate: Evaluate

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Config:
        start, above = self.train_generator.resolutions[-1], self.train_super_resolution.resolutions
        if above[0] <= start:
            raise ValueError(
                f"train_super_resolution.resolutions {above} must start above "
                f"train_generator.resolutions' last, {start}"
            )
        if self.filter.image_px < above[-1]:
            raise ValueError(
                f"filter.image_px = {self.filter.image_px}: images are stored once for the highest resolution "
                f"trained, {above[-1]} (train_super_resolution.resolutions); use {above[-1]} or more"
            )
        network = self.train_generator.network
        for side in (2**k for k in range(3, above[-1].bit_length())):
            channels = min(network.channel_base // side, network.channel_max)
            if channels < CHANNEL_MULTIPLE or channels % CHANNEL_MULTIPLE:
                raise ValueError(
                    f"train_generator.network: min(channel_base // {side}, channel_max) = {channels} channels at "
                    f"{side} px: the group norm needs a multiple of {CHANNEL_MULTIPLE} at every resolution up to "
                    f"{above[-1]}; use a channel_base of {CHANNEL_MULTIPLE * above[-1]} or a multiple of it"
                )
        self._check_what_reads_what()
        return self

    def _check_what_reads_what(self) -> None:
        clip, vit = self.fetch_encoders.clip, self.fetch_encoders.discriminator_vit
        if clip.kind == "train" and vit.kind == "clip_image_tower" and max(vit.hooks) >= clip.image_depth:
            raise ValueError(
                f"fetch_encoders.discriminator_vit.hooks = {vit.hooks}: the image tower has {clip.image_depth} blocks "
                f"(fetch_encoders.clip.image_depth), 0 to {clip.image_depth - 1}"
            )
        if self.evaluate.prompt_set == "shapes" and self.download.source.kind != "shapes":
            raise ValueError(
                "evaluate.prompt_set = 'shapes' is for drawn shapes (download.source.kind); use heldout or a text file"
            )
        shares_tower = self.fetch_encoders.discriminator_vit.kind == "clip_image_tower"
        for name in ("train_generator", "finetune_text_encoder", "train_super_resolution"):
            if getattr(self, name).deviations.share_vit_pass and not shares_tower:
                raise ValueError(
                    f"{name}.deviations.share_vit_pass = true needs one network for both: "
                    "fetch_encoders.discriminator_vit.kind = clip_image_tower"
                )


STAGES: tuple[str, ...] = tuple(name for name in Config.model_fields if name != "seed")


def load_config(path: Path) -> Config:
    """Read and check a parameter file.

    Raises:
        SettingsError: One line for each wrong setting: its key, the value given, what is allowed.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; `stylegan-t profile tiny` writes one") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse_config(values, path.name)


def parse_config(values: object, origin: str) -> Config:
    """Check the values of a parameter file; ``origin`` names it in errors. Raises SettingsError."""
    if not isinstance(values, dict):
        raise SettingsError(f"{origin}: expected a mapping with the sections seed, {', '.join(STAGES)}")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(f"{origin}: {_explain(e)}" for e in error.errors())) from None


def _explain(error: Any) -> str:
    """One line for one of pydantic's errors: key, value given, what is allowed."""
    *place, last = [str(part) for part in error["loc"]] or [""]
    keys, known = _walk(place)
    key = ".".join([*keys, last])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(last, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{key}: unknown key{hint} (allowed here: {', '.join(known)})"
    if error["type"] == "missing":
        return f"{key}: missing; every setting is required (`stylegan-t profile NAME` writes a complete file)"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key}: {message}" if isinstance(error["input"], dict) else f"{key} = {error['input']!r}: {message}"


def _walk(place: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys on pydantic's path to a section, which also names the ``kind`` taken; the settings that exist there."""
    keys: list[str] = []
    models: list[type[BaseModel]] = [Config]
    for part in place:
        annotations = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if annotations:
            keys.append(part)
            models = [m for a in annotations for m in (get_args(a) or (a,)) if isinstance(m, type)]
            models = [m for m in models if issubclass(m, BaseModel)]
        else:
            models = [m for m in models if part in get_args(m.model_fields["kind"].annotation)]
    return keys, sorted({name for model in models for name in model.model_fields})
