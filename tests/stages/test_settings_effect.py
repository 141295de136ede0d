"""Every setting of the three training stages has an effect that can be seen, and only the effect that it promises."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adam
from torch.utils.data import dataloader

from stylegan_t.config import Config
from stylegan_t.errors import TrainingDiverged
from stylegan_t.models.generator import Generator
from stylegan_t.settings.training import AdversarialTraining, GeneratorTraining
from stylegan_t.stages import adversarial, finetune_text_encoder, train_generator, train_super_resolution
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training import live, loop, optimizers
from stylegan_t.training.checkpoint import StateWriter
from stylegan_t.training.loggers import Loggers
from stylegan_t.training.players import Players
from tests.settings_fields import another, leaves, value_of
from tests.stages.test_identity import GOES_ON
from tests.stages.training_world import TRAINING, config, make_world, put_bundle, put_published

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
STAGES: dict[str, ModuleType] = dict(
    zip(TRAINING, (train_generator, finetune_text_encoder, train_super_resolution), strict=True)
)


@dataclass(frozen=True)
class Effect:
    """What to change, and what must then be seen.

    Attributes:
        value: To change the setting to; by default some other value of its type.
        seen: The observation that must differ; "weights" are those of the stage's output.
        needs: Settings without which this one can have no effect, before the change and after it.
    """

    value: Any = None
    seen: str = "weights"
    needs: dict[str, Any] = field(default_factory=dict)


HALVING = {"lr_decay.start_kimg": 0.0, "lr_decay.end_kimg": 0.016, "lr_decay.final_factor": 0.5}
DIVERGING = {"diverges": True, "guard.max_rollbacks": 1}
EFFECTS = {
    "total_kimg": Effect(0.024, "shown"),
    "batch_size": Effect(16),
    "discriminator_lr": Effect(0.03),
    "generator_lr": Effect(0.03),
    "text_encoder_lr": Effect(0.001),
    "lr_decay.start_kimg": Effect(0.004, needs=HALVING),
    "lr_decay.end_kimg": Effect(0.012, needs=HALVING),
    "lr_decay.final_factor": Effect(0.25, needs=HALVING),
    "clip_guidance_weight": Effect(3.0),
    "augment": Effect(["brightness"]),
    "spatial_noise": Effect(),
    "deviations.share_fakes": Effect(),
    "deviations.share_vit_pass": Effect(),
    "deviations.wrong_caption_weight": Effect(0.5),
    "deviations.p_hard_caption": Effect(1.0, needs={"deviations.p_hard_caption": 0.0}),
    "deviations.range_penalty_weight": Effect(9.0),
    "log_every_kimg": Effect(0.016, "lines"),
    "sample_every_kimg": Effect(0.008, "grids"),
    "save_every_kimg": Effect(0.016, "saves"),
    "keep_states": Effect(1, "states"),
    "reader": Effect(
        {"kind": "stream", "shards": ["data/prepared/train/*.tar"], "manifest": None, "shuffle_buffer": 8}
    ),
    "mixture": Effect({"a": 1.0, "b": 3.0}),
    "horizontal_flip": Effect(),
    "num_workers": Effect(1, "workers"),
    "compute.microbatch_size": Effect(8, "forwards", {"batch_size": 16}),
    "compute.precision": Effect(),
    "compute.channels_last": Effect(seen="channels_last"),
    "compute.compile": Effect(seen="compiled"),
    "compute.deterministic": Effect(seen="deterministic"),
    "compute.shard_optimizer": Effect(seen="optimizers"),
    "guard.max_rollbacks": Effect(0, "end", DIVERGING),
    "guard.rollback_lr_factor": Effect(0.1, needs=DIVERGING),
    "start_from": Effect("published.safetensors"),
    "ema_halflife_kimg": Effect(0.01, needs={"ema_rampup": 0.0}),
    "ema_rampup": Effect(0.0),
    "blur_sigma": Effect(2.0, needs={"blur_fade_kimg": 1.0}),
    "blur_fade_kimg": Effect(0.02, needs={"blur_sigma": 2.0, "blur_fade_kimg": 1.0}),
    "network.z_dim": Effect(16),
    "network.channel_base": Effect(2048, needs={"network.channel_max": 256}),
    "network.channel_max": Effect(64),
    "network.num_res_blocks": Effect(2),
    "network.residual": Effect(),
    "network.second_order_styles": Effect(),
    "network.text_bypass": Effect(),
    "network.local_batch_norm": Effect(),
    "resolutions": Effect([16]),
    "grow_at_kimg": Effect([0.016], needs={"grow_at_kimg": [0.008], "total_kimg": 0.024}),
    "trainable": Effect(),
}
GROWING = {"train_generator": [8, 16], "train_super_resolution": [16, 32]}
FIELDS = [(stage, name) for stage in TRAINING for name in leaves(type(getattr(config(), stage)))]


def test_no_setting_is_left_out():
    assert {name for _, name in FIELDS} == set(EFFECTS)


def settings(stage: str, changes: dict[str, Any]) -> Config:
    """A short training of a stage: stage one from noise at 8 px, the others from a bundle of 8 px."""
    changes = dict(changes)
    if "grow_at_kimg" in changes:
        changes["resolutions"] = GROWING[stage]
    base: dict[str, Any] = {"resolutions": [8], "grow_at_kimg": []} if stage == "train_generator" else {}
    if stage != "train_generator":
        base["start_from"] = "bundle"
    sections = {name: getattr(config(), name).model_dump() for name in TRAINING}
    sections["train_generator"] |= {"resolutions": [8], "grow_at_kimg": []}
    for name, value in (base | changes).items():
        section = sections[stage]
        *above, last = name.split(".")
        for part in above:
            section = section[part]
        section[last] = value
    return Config.model_validate(config().model_dump() | sections)


def watched(monkeypatch, seen: dict[str, Any]) -> None:
    """Count what a training does that its outputs do not tell."""

    def before(owner: type, name: str, note) -> None:
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda self, *a, **k: (note(self, *a, **k), function(self, *a, **k))[1])

    def count(what: str):
        def note(*arguments, **named) -> None:
            seen[what] += 1

        return note

    class Sharded(Adam):
        """In the place of torch's, which needs other processes."""

        def __init__(self, parameters, kind, **named) -> None:
            super().__init__(parameters, **named)

        def consolidate_state_dict(self, to: int) -> None:
            pass

    build = Players.__post_init__

    def build_and_note(players: Players) -> None:
        build(players)
        weight = players.generator.synthesis.block(8).layers[0].weight
        seen["channels_last"] = weight.is_contiguous(memory_format=torch.channels_last)
        seen["deterministic"] = torch.are_deterministic_algorithms_enabled()
        both = (players.optimizer, players.discriminator_optimizer)
        seen["optimizers"] = [type(each).__name__ for each in both]

    seen |= {"forwards": 0, "workers": 0, "compiled": set(), "saves": []}
    before(Generator, "forward", count("forwards"))
    before(dataloader._MultiProcessingDataLoaderIter, "__init__", count("workers"))
    before(StateWriter, "save", lambda writer, nimg, state: seen["saves"].append(nimg))
    monkeypatch.setattr(nn.Module, "compile", lambda module: seen["compiled"].add(type(module).__name__))
    monkeypatch.setattr(Players, "__post_init__", build_and_note)
    alone = SimpleNamespace(
        is_initialized=lambda: True, get_rank=lambda: 0, broadcast_object_list=lambda found, src: None
    )
    monkeypatch.setattr(optimizers, "dist", alone)
    monkeypatch.setattr(optimizers, "ZeroRedundancyOptimizer", Sharded)


def diverging_once():
    """The training step; once, at 8 images, a loss is not a number."""
    step, done = loop.training_step, []

    def training_step(players, batch, at, wrong):
        terms = step(players, batch, at, wrong)
        if at.nimg == 8 and not done:
            done.append(True)
            terms["d_real"] = terms["d_real"] * float("nan")
        return terms

    return training_step


def observe(workspace: Workspace, stage: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Run a stage and tell everything that can be seen of it."""
    for folder in (workspace.root / ".state", workspace.artifacts(stage)):
        shutil.rmtree(folder, ignore_errors=True)
    seen: dict[str, Any] = {"end": "done"}
    diverges = changes.get("diverges", False)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(adversarial, "SAMPLE_PROMPTS", 2)
        monkeypatch.setattr(adversarial, "SAMPLE_SEEDS", 2)
        monkeypatch.setattr(live, "usual_loggers", lambda *_: Loggers([]))
        if diverges:
            monkeypatch.setattr(loop, "training_step", diverging_once())
        watched(monkeypatch, seen)
        wanted = settings(stage, {name: value for name, value in changes.items() if name != "diverges"})
        try:
            STAGES[stage].run(wanted, workspace, "cpu")
        except TrainingDiverged:
            return seen | {"end": "diverged"}
        finally:
            torch.use_deterministic_algorithms(False)
    output = workspace.artifacts(stage)
    files = sorted(output.glob("*.safetensors"))
    (state,) = (workspace.root / ".state" / stage).iterdir()
    lines = (output / "log.jsonl").read_text().splitlines()
    return seen | {
        "weights": [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        "shown": (output / "config.json").read_text().split('"kimg":')[1].split(",")[0],
        "lines": len(lines),
        "grids": sorted(path.name for path in (output / "samples").iterdir()),
        "states": sorted(path.name for path in state.glob("state-*.pt")),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Workspace:
    workspace = make_world(tmp_path_factory.mktemp("effects"))
    put_bundle(workspace, workspace.root / "bundle", 8)
    put_published(workspace.root / "published.safetensors", 16)
    return workspace


@pytest.fixture(scope="module")
def unchanged(world):
    """What is seen of a stage with ``needs`` alone; each combination runs once."""
    known: dict[str, dict[str, Any]] = {}

    def observed(stage: str, needs: dict[str, Any]) -> dict[str, Any]:
        key = f"{stage} {needs}"
        if key not in known:
            known[key] = observe(world, stage, needs)
        return known[key]

    return observed


def cases():
    """Settings that stages share are tried quickly in one of them, and in the others by the slow tests."""
    for stage, name in FIELDS:
        first = next(each for each, other in FIELDS if other == name)
        marks = [] if stage == first or name in ("resolutions", "grow_at_kimg") else [pytest.mark.slow]
        yield pytest.param(stage, name, marks=marks, id=f"{stage}.{name}")


@pytest.mark.parametrize(("stage", "name"), list(cases()))
def test_every_setting_has_its_effect(world, unchanged, stage, name):
    effect, section = EFFECTS[name], getattr(settings(stage, {}), stage)
    annotation = leaves(type(section))[name]
    value = effect.value if effect.value is not None else another(value_of(section, name), annotation)
    before = unchanged(stage, effect.needs)
    after = observe(world, stage, effect.needs | {name: value})
    assert after[effect.seen] != before[effect.seen]
    if name in GOES_ON - {"total_kimg", "guard.max_rollbacks", "guard.rollback_lr_factor", "compute.microbatch_size"}:
        assert after["weights"] == before["weights"], "and none on what is learnt"


def test_the_sections_share_what_the_slow_tests_repeat():
    shared = set(leaves(AdversarialTraining))
    assert all({name for each, name in FIELDS if each == stage} >= shared for stage in TRAINING)
    assert {name for each, name in FIELDS if each == "train_generator"} >= set(leaves(GeneratorTraining))
