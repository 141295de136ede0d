"""All of ``params.yaml``: one section of settings for each stage, and how they must fit together.

What a single setting means, its unit and range stand in ``stylegan_t/settings/``. The values live in ``params.yaml``
(written from a profile by ``stylegan-t profile NAME``); nothing here has a default, so what a run does can be read off
one file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from stylegan_t.errors import SettingsError
from stylegan_t.settings.encoders import FetchEncoders
from stylegan_t.settings.evaluation import Evaluate, ReferenceStatistics
from stylegan_t.settings.fields import Section
from stylegan_t.settings.filter import Filter
from stylegan_t.settings.score import Score
from stylegan_t.settings.sources import Download
from stylegan_t.settings.training import FinetuneTextEncoder, TrainGenerator, TrainSuperResolution

PARAMS_FILE = "params.yaml"
CHANNEL_MULTIPLE = 32


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
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse_config(values, path.name)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: ``1e-06``, as DVC and others write it, is one."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """What a YAML text says. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)  # a SafeLoader


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
    keys, models = _walk(place)
    key = ".".join([*keys, last])
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{_did_you_mean(last, {name for model in models for name in model.model_fields})}"
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        kinds = {kind for model in _walk([*place, last])[1] for kind in _kinds(model)}
        given = error["input"].get("kind") if isinstance(error["input"], dict) else None
        return f"{key}.kind{': missing' if given is None else f' = {given!r}'}{_did_you_mean(str(given), kinds)}"
    if error["type"] == "missing":
        return f"{key}: missing; every setting is required (`stylegan-t profile NAME` writes a complete file)"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key}: {message}" if isinstance(error["input"], dict) else f"{key} = {error['input']!r}: {message}"


def _did_you_mean(given: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, allowed := sorted(allowed), n=1)
    return f"{f'; did you mean {near[0]}?' if near else ''} (allowed here: {', '.join(allowed)})"


def _walk(place: Sequence[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys on pydantic's path to a section, which also names the ``kind`` taken; the sections that can be there."""
    keys: list[str] = []
    models: list[type[BaseModel]] = [Config]
    in_collection = False
    for part in place:
        annotations = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if in_collection:
            keys.append(part)
            in_collection = False
        elif annotations:
            keys.append(part)
            models = [model for annotation in annotations for model in _models_in(annotation)]
            in_collection = any(get_origin(annotation) in (dict, list) for annotation in annotations)
        else:
            models = [model for model in models if part in _kinds(model)]
    return keys, models


def _kinds(model: type[BaseModel]) -> tuple[str, ...]:
    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
