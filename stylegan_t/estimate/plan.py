"""Which training is meant: the settings, the stage, the picture's side and the devices, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml

from stylegan_t.config import PARAMS_FILE, Config, parse_config, parse_yaml
from stylegan_t.errors import SettingsError
from stylegan_t.models.generator import channels_at, check_channels
from stylegan_t.profile import override, profile_values
from stylegan_t.settings.training import FinetuneTextEncoder, TrainGenerator, TrainSuperResolution
from stylegan_t.training.distributed import World

Stage = Literal["train_generator", "finetune_text_encoder", "train_super_resolution"]
TRAINING_STAGES: tuple[Stage, ...] = get_args(Stage)
DEFAULT_PROFILE = "tiny"


@dataclass(frozen=True)
class Plan:
    """A training that someone thinks of.

    Attributes:
        origin: Where the settings come from, in words.
        resolution: Side of the pictures painted, pixels.
        device_type: Kind of the devices that it would run on; they need not be there.
    """

    origin: str
    config: Config
    stage: Stage
    resolution: int
    devices: int
    device_type: Literal["cpu", "cuda"]

    @property
    def settings(self) -> TrainGenerator | FinetuneTextEncoder | TrainSuperResolution:
        return getattr(self.config, self.stage)

    @property
    def share(self) -> int:
        """Images of a batch that each device works on. Raises SettingsError where the batch does not split."""
        return len(World(torch.device("cpu"), size=self.devices).share(self.settings.batch_size))

    @property
    def microbatch_size(self) -> int:
        """Images of one forward pass on a device."""
        return min(self.settings.compute.microbatch_size or self.share, self.share)

    def shortened(self, microbatches: int) -> Plan:
        """The same with a batch of at most so many micro-batches on each device: later ones bring nothing new."""
        batch_size = min(self.share, microbatches * self.microbatch_size) * self.devices
        settings = self.settings.model_copy(update={"batch_size": batch_size})
        return replace(self, config=self.config.model_copy(update={self.stage: settings}))

    def on_one_device(self) -> Plan:
        """One device with its share of the batch."""
        settings = self.settings.model_copy(update={"batch_size": self.share})
        return replace(self, devices=1, config=self.config.model_copy(update={self.stage: settings}))


def make_plan(
    folder: Path,
    *,
    profile: str | None = None,
    changes: Sequence[str] = (),
    stage: str | None = None,
    resolution: int | None = None,
    batch_size: int | None = None,
    microbatch_size: int | None = None,
    precision: str | None = None,
    devices: int = 1,
    device_type: Literal["cpu", "cuda"] = "cpu",
) -> Plan:
    """The training that the options describe; what they leave open is taken from the settings.

    Args:
        folder: Whose params.yaml is meant where no profile is named.
        changes: ``KEY=VALUE`` as for ``stylegan-t profile --set``.
        stage: By default the first that trains at ``resolution``, which is stage one for any unknown one.
        resolution: By default the stage's last.

    Raises:
        SettingsError: One line for whatever does not exist or does not fit.
    """
    origin, values = _values(folder, profile)
    for change in changes:
        override(values, change)
    named = _stage(stage, resolution, values)
    options = {
        "batch_size": batch_size,
        "compute.microbatch_size": microbatch_size,
        "compute.precision": precision,
    }
    for key, value in options.items():
        if value is not None:
            override(values, f"{named}.{key}={value}")
    config = parse_config(values, origin)
    plan = Plan(origin, config, named, _resolution(config, named, resolution), devices, device_type)
    assert plan.share
    return plan


def _values(folder: Path, profile: str | None) -> tuple[str, dict[str, Any]]:
    """Where the settings come from, and the settings, unchecked."""
    params = folder / PARAMS_FILE
    if profile is None and params.exists():
        try:
            values = parse_yaml(params.read_text())
        except yaml.YAMLError as error:
            raise SettingsError(f"{PARAMS_FILE}: not valid YAML: {' '.join(str(error).split())}") from None
        parse_config(values, PARAMS_FILE)
        return PARAMS_FILE, values
    name = profile or DEFAULT_PROFILE
    return f"profile {name}", profile_values(name)


def _stage(stage: str | None, resolution: int | None, values: dict[str, Any]) -> Stage:
    if stage is None:
        painted = values["train_super_resolution"]["resolutions"]
        return "train_super_resolution" if resolution in painted else "train_generator"
    for known in TRAINING_STAGES:
        if stage == known:
            return known
    raise SettingsError(f"stage {stage!r} trains no GAN; one of: {', '.join(TRAINING_STAGES)}")


def _resolution(config: Config, stage: Stage, wanted: int | None) -> int:
    """The side painted; any that the generator can have, growing steps of the settings or not."""
    first = config.train_generator.resolutions[-1]
    if stage == "finetune_text_encoder":
        if wanted not in (None, first):
            raise SettingsError(
                f"--resolution {wanted}: {stage} feeds stage one's finished generator, which paints {first} px; "
                "leave the option out, or set train_generator.resolutions"
            )
        return first
    if wanted is None:
        return config.train_super_resolution.resolutions[-1] if stage == "train_super_resolution" else first
    if stage == "train_super_resolution" and wanted <= first:
        raise SettingsError(
            f"--resolution {wanted}: {stage} adds layers above stage one's {first} px; use {2 * first} or more, or "
            "--stage train_generator"
        )
    network = config.train_generator.network
    try:
        check_channels(wanted, network.channel_base, network.channel_max)
    except ValueError as error:
        channels = channels_at(max(wanted, 1), network.channel_base, network.channel_max)
        cure = f" ({channels} channels at {wanted} px: --set train_generator.network.channel_base=…)"
        raise SettingsError(f"--resolution {wanted}: {error}" + (cure if channels < 32 else "")) from None
    return wanted
