"""Starting any training stage from a bundle or from published weights, at another resolution and on other data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stylegan_t.errors import DataError, SettingsError
from stylegan_t.models.bundle import DISCRIMINATOR, load_bundle
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.models.encoders import small_clip
from stylegan_t.models.generator import resized
from stylegan_t.models.weights import save_weights
from stylegan_t.records import SAMPLES, SampleSheet, read_record
from stylegan_t.settings.training import Network
from stylegan_t.stages import finetune_text_encoder, train_generator, train_super_resolution
from stylegan_t.stages.start import load_start
from stylegan_t.stages.workspace import Workspace
from tests.stages.training_world import (
    NETWORK,
    SWITCHES,
    TRAINING,
    config,
    generator,
    make_world,
    put_bundle,
    put_data,
    put_published,
)

STAGES: dict[str, ModuleType] = dict(
    zip(TRAINING, (train_generator, finetune_text_encoder, train_super_resolution), strict=True)
)
FIRST_PX = {"train_generator": 8, "finetune_text_encoder": 16, "train_super_resolution": 32}
ONE_STEP = {"total_kimg": 0.008, "sample_every_kimg": 1.0}
PARITY = Path(__file__).parents[2].parent / "shared" / "parity" / "generator_16px.npz"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Workspace:
    return make_world(tmp_path_factory.mktemp("start"))


def start(workspace: Workspace, stage: str, start_from: Path | None, **changes: Any) -> dict[str, Any]:
    """Run one step of a stage that has nothing but the players, the data and ``start_from``; its state before it."""
    for name in TRAINING:
        shutil.rmtree(workspace.artifacts(name), ignore_errors=True)
        shutil.rmtree(workspace.root / ".state" / name, ignore_errors=True)
    if stage == "train_generator":
        changes = {"resolutions": [8], "grow_at_kimg": []} | changes
    path = None if start_from is None else str(start_from)
    settings = config(stage, start_from=path, **ONE_STEP, **changes)
    STAGES[stage].run(settings, workspace, "cpu")
    assert load_bundle(workspace.artifacts(stage)).config["facts"]["kimg"] == 0.008
    (state,) = (workspace.root / ".state" / stage).glob("*/state-000000000000.pt")
    return torch.load(state, weights_only=True)


def kept(workspace: Workspace, stage: str, state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The generator that the stage began with; stage two's, which no state holds, is the one it ended with."""
    return state["trained"] if stage != TRAINING[1] else load_bundle(workspace.artifacts(stage)).generator.state_dict()


@pytest.mark.parametrize(
    ("stage", "kind", "px", "changes"),
    [
        ("train_generator", "bundle", 8, {}),
        ("train_generator", "published", 16, {}),
        ("train_generator", "bundle", 8, {"resolutions": [16]}),
        ("finetune_text_encoder", "published", 8, {}),
        ("finetune_text_encoder", "bundle", 32, {}),
        ("train_super_resolution", "bundle", 8, {}),
        ("train_super_resolution", "published", 16, {"trainable": "all"}),
        ("train_super_resolution", "bundle", 32, {"trainable": "all"}),
    ],
)
def test_a_stage_starts_from_any_generator_at_any_resolution(world, tmp_path, stage, kind, px, changes):
    path = tmp_path / "start"
    put_bundle(world, path, px) if kind == "bundle" else put_published(path, px)
    state = start(world, stage, path, **changes)
    wanted = px if stage == TRAINING[1] else changes.get("resolutions", [FIRST_PX[stage]])[0]
    found, expected = kept(world, stage, state), resized(generator(px), wanted).state_dict()
    assert found.keys() == expected.keys()
    sheet = read_record(world.artifacts(stage) / SAMPLES, SampleSheet)
    assert sheet is not None
    shown = [grid.resolution for grid in sheet.grids if grid.kimg == 0]
    assert shown == ([px, wanted] if px < wanted else [wanted]), "before it grows and after"
    shared = expected.keys() & generator(px).state_dict().keys()
    assert [name for name in shared if not torch.equal(found[name], expected[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("switch", SWITCHES)
def test_every_stage_goes_on_and_grows_with_a_redesign_switched_off(world, tmp_path, switch):
    off = {switch: False}
    bundle, network = put_bundle(world, tmp_path / "start", 8, **off), {**NETWORK, **off}
    begun = load_bundle(bundle).generator
    for stage, px in zip(TRAINING, (16, 8, 32), strict=True):
        changes = {} if stage == TRAINING[1] else {"resolutions": [px], "grow_at_kimg": []}
        state = start(world, stage, bundle, **changes, network=network)
        found, expected = kept(world, stage, state), resized(begun, px).state_dict()
        assert found.keys() == expected.keys()
        assert all(found[name].equal(value) for name, value in begun.state_dict().items())
        assert all(state["heads"][name].equal(value) for name, value in load_file(bundle / DISCRIMINATOR).items())
        said = load_bundle(world.artifacts(stage)).config
        assert {**said["generator"], **said["facts"]}[switch] is False


@pytest.mark.parametrize("switch", SWITCHES)
def test_stage_one_grows_while_it_trains_with_a_redesign_switched_off(world, switch):
    shutil.rmtree(world.root / ".state" / "train_generator", ignore_errors=True)
    train_generator.run(config(network={**NETWORK, switch: False}), world, "cpu")
    (state,) = (world.root / ".state" / "train_generator").glob("*/state-000000000000.pt")
    begun = torch.load(state, weights_only=True)["trained"]
    grown = load_bundle(world.artifacts("train_generator")).generator
    assert grown.resolution == 16 and begun.keys() < grown.state_dict().keys()
    assert not grown.mapping.w_avg.equal(begun["mapping.w_avg"])


def test_without_start_from_stage_one_starts_from_noise_of_its_seed(world):
    first, second = (start(world, "train_generator", None, seed=seed)["trained"] for seed in (0, 1))
    assert not torch.equal(first["mapping.fc0.weight"], second["mapping.fc0.weight"])


@pytest.mark.parametrize("stage", TRAINING)
def test_heads_beside_a_bundle_go_on_and_without_them_new_ones_begin(world, tmp_path, stage, caplog):
    caplog.set_level("INFO")
    bundle = put_bundle(world, tmp_path / "with", 8)
    heads = load_file(bundle / "discriminator.safetensors")
    found = start(world, stage, bundle)["heads"]
    assert all(torch.equal(found[name], value) for name, value in heads.items())
    assert "no discriminator" not in caplog.text
    found = start(world, stage, put_bundle(world, tmp_path / "without", 8, heads=False))["heads"]
    assert not any(torch.equal(found[name], heads[name]) for name in heads if name.endswith("conv.weight"))
    assert "no discriminator.safetensors beside the model: the discriminator starts anew" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINING)
def test_new_heads_follow_from_the_seed(world, tmp_path, stage):
    file = put_published(tmp_path / "start", 8)
    names = ("0.point.conv.weight", "0.c_map.weight")
    once, again, other = (start(world, stage, file, seed=seed)["heads"] for seed in (0, 0, 1))
    assert all(torch.equal(once[name], again[name]) and not torch.equal(once[name], other[name]) for name in names)


def text_weights(workspace: Workspace, stage: str) -> dict[str, torch.Tensor]:
    return load_file(workspace.artifacts(stage) / "text_encoder.safetensors")


def test_the_text_encoder_is_the_bundle_s_and_published_weights_come_with_the_original(world, tmp_path):
    original = load_clip(world.players / "clip").text.state_dict()
    bundle, published = put_bundle(world, tmp_path / "bundle", 16), put_published(tmp_path / "file", 16)
    for path, expected in ((bundle, load_file(bundle / "text_encoder.safetensors")), (published, original)):
        stage_two = start(world, "finetune_text_encoder", path)["trained"]
        start(world, "train_super_resolution", path)
        fixed = text_weights(world, "train_super_resolution")
        for name, value in expected.items():
            assert torch.equal(stage_two[name], value) and torch.equal(fixed[name], value), name


def test_a_model_goes_on_with_other_data(world, tmp_path):
    start(world, "train_generator", None)
    bundle = tmp_path / "elsewhere"
    shutil.copytree(world.artifacts("train_generator"), bundle)
    other = make_world(tmp_path / "other")
    put_data(other, first=200)
    state = start(other, "train_generator", bundle)
    expected = load_bundle(bundle).generator.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in state["trained"].items())
    manifests = {(each.prepared / "train" / "manifest.json").read_bytes() for each in (world, other)}
    assert len(manifests) == 2


def test_a_path_is_relative_to_the_repository(world):
    put_bundle(world, world.root / "models" / "mine", 8)
    state = start(world, "train_generator", Path("models/mine"))
    assert torch.equal(state["trained"]["mapping.fc0.weight"], generator(8).mapping.fc0.weight)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def renamed(path: Path) -> None:
    heads = load_file(path)
    save_file({name.replace("0.", "7.", 1): value for name, value in heads.items()}, path)


def wrong_start(kind: str, workspace: Workspace, folder: Path) -> Path:
    """Something that no stage can start from."""
    if kind == "empty folder":
        folder.mkdir()
    elif kind in ("cut bundle", "cut text encoder", "other heads", "cut heads"):
        put_bundle(workspace, folder, 16)
        name = {"cut bundle": "generator", "cut text encoder": "text_encoder"}.get(kind, "discriminator")
        (renamed if kind == "other heads" else cut)(folder / f"{name}.safetensors")
    elif kind == "wider bundle":
        put_bundle(workspace, folder, 16, channel_max=64)
    elif kind == "bundle of another CLIP":
        put_bundle(workspace, folder, 16, c_dim=4)
    elif kind in SWITCHES:
        put_bundle(workspace, folder, 16, **{kind: False})
    elif kind == "text file":
        folder.write_text("no weights\n")
    elif kind == "other tensors":
        save_weights(folder, {"conv.weight": torch.ones(3)})
    elif kind == "cut file":
        cut(put_published(folder, 16))
    elif kind == "deeper file":
        put_published(folder, 16, num_res_blocks=2)
    elif kind == "file of another CLIP":
        put_published(folder, 16, c_dim=4)
    elif kind == "file of a larger picture":
        put_published(folder, 64, channel_base=2048)
    return folder


DAMAGED = {
    "nothing": r"start: missing; a bundle's folder, or a safetensors file .* set start_from",
    "empty folder": r"config\.json: missing; a bundle is the folder",
    "cut bundle": r"generator\.safetensors: damaged",
    "cut text encoder": r"text_encoder\.safetensors: damaged",
    "cut heads": r"discriminator\.safetensors: damaged",
    "other heads": r"discriminator\.safetensors: does not fit fetch_encoders\.discriminator_vit .* remove the file",
    "text file": r"start: damaged .*published layout",
    "other tensors": r"start: no tensor is called synthesis\.b….*published layout",
    "cut file": r"start: damaged .*published layout",
    "deeper file": r"start: does not fit train_generator\.network .*blocks\.8\.layers",
    "file of another CLIP": r"start: does not fit train_generator\.network",
    "file of a larger picture": r"start: does not fit train_generator\.network .*16 channels at 64 px",
}
UNSUITABLE = {
    **{name: rf"start: its generator has {name} = false; set train_generator\.network so" for name in SWITCHES[:3]},
    "local_batch_norm": r"start: its discriminator has local_batch_norm = false; set train_generator\.network so, or "
    r"remove .*start/discriminator\.safetensors to start with a new discriminator",
    "wider bundle": r"start: its generator has channel_max = 64; set train_generator\.network so",
    "bundle of another CLIP": r"reads text embeddings of 4 numbers, fetch_encoders\.clip makes 8; use the encoder",
}


@pytest.mark.parametrize("kind", [*DAMAGED, *UNSUITABLE])
def test_what_cannot_be_started_from_is_one_line(world, tmp_path, kind):
    path = wrong_start(kind, world, tmp_path / "start")
    error, code = (DataError, 3) if kind in DAMAGED else (SettingsError, 2)
    for stage in TRAINING:
        with pytest.raises(error, match=(DAMAGED | UNSUITABLE)[kind]) as raised:
            start(world, stage, path)
        assert "\n" not in str(raised.value)
        assert raised.value.exit_code == code


@pytest.mark.parametrize("stage", TRAINING[1:])
def test_a_stage_without_the_one_before_says_what_it_needs(world, stage):
    before = TRAINING[TRAINING.index(stage) - 1]
    with pytest.raises(DataError, match=rf"artifacts/{before}: missing; .*run the stage before, or set start_from"):
        start(world, stage, None)


def test_freezing_all_but_new_layers_needs_new_layers(world, tmp_path):
    bundle = put_bundle(world, tmp_path / "start", 32)
    with pytest.raises(SettingsError, match=r"paints 32 px already, so 32 px adds no layers; use trainable: all"):
        start(world, "train_super_resolution", bundle, trainable="new_layers")


def test_stage_two_refuses_a_generator_of_larger_pictures_than_are_stored(world, tmp_path):
    network = {**NETWORK, "channel_base": 2048}
    bundle = put_bundle(world, tmp_path / "start", 64, channel_base=2048)
    with pytest.raises(SettingsError, match=r"paints 64 px, but .* filter\.image_px = 32; store them at 64 or more"):
        start(world, "finetune_text_encoder", bundle, network=network)


@pytest.mark.skipif(not PARITY.is_file(), reason=f"the published networks' numbers are not in {PARITY.parent}")
def test_a_file_with_the_published_networks_own_names_is_read(tmp_path):
    with np.load(PARITY) as file:
        meta = json.loads(str(file["meta"]))
        prefix = "weights/"
        weights = {
            key.removeprefix(prefix): torch.from_numpy(file[key]) for key in file.files if key.startswith(prefix)
        }
        z, c, image = (torch.from_numpy(file[key]) for key in ("inputs/z", "inputs/c", "outputs/image"))
    save_weights(tmp_path / "published.safetensors", weights)
    tower = {"image_px": 16, "patch_px": 8, "width": 32, "depth": 1, "num_heads": 2, "embed_dim": meta["c_dim"]}
    text_cfg = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}
    clip = small_clip({"image": tower, "text": {"embed_dim": meta["c_dim"], "text_cfg": text_cfg, "num_tokens": 8}})
    sizes = {name: meta[name] for name in NETWORK}
    network = Network(**sizes, **dict.fromkeys(SWITCHES, True))
    found = load_start(tmp_path / "published.safetensors", network, clip)
    assert (found.text_encoder, found.heads) == (None, None)
    torch.testing.assert_close(found.generator.eval()(z, c, noise="const"), image, rtol=1e-4, atol=1e-4)
    for switch in SWITCHES[:3]:
        with pytest.raises(SettingsError, match=rf"its generator has {switch} = true; set train_generator\.network so"):
            load_start(tmp_path / "published.safetensors", network.model_copy(update={switch: False}), clip)
