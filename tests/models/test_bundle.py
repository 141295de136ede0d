"""Networks on disk: they come back as they were, and what is damaged says so in one line."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from stylegan_t.errors import DataError
from stylegan_t.models.bundle import (
    CARD,
    DISCRIMINATOR,
    GENERATOR,
    TEXT_ENCODER,
    Facts,
    load_bundle,
    load_discriminator_state,
    save_bundle,
    save_discriminator,
)
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoder_files import (
    WEIGHTS,
    identity,
    load_clip,
    load_discriminator_vit,
    save_clip,
    save_shared_vit,
    save_timm,
)
from stylegan_t.models.encoders import clip_from_spec
from stylegan_t.models.generator import Generator
from stylegan_t.models.weights import CONFIG
from tests.bundles import tiny_bundle, tiny_generator, tiny_text_encoder
from tests.models.test_encoders import SPEC

FACTS = Facts(stage="train_generator", kimg=1.0, data="nothing", encoder="random weights", seed=0)


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def players(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "players"
    save_clip(folder / "clip", clip_from_spec(SPEC))
    save_shared_vit(folder / "discriminator_vit", identity(folder / "clip"), [0])
    return folder


def tampered(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@torch.no_grad()
def test_a_bundle_paints_what_the_saved_networks_painted(bundle):
    loaded, generator, text_encoder = load_bundle(bundle), tiny_generator().eval(), tiny_text_encoder().eval()
    z, tokens = torch.randn(2, 8), text_encoder.tokenize(["red", "a blue circle"])
    expected = generator(z, text_encoder(tokens), noise="const")
    torch.testing.assert_close(loaded.generator(z, loaded.text_encoder(tokens), noise="const"), expected)
    assert not loaded.generator.training


def test_the_same_model_gives_the_same_bytes(tmp_path):
    first, second = tiny_bundle(tmp_path / "a"), tiny_bundle(tmp_path / "b")
    for name in (CONFIG, GENERATOR, TEXT_ENCODER, CARD):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_model_card_states_the_facts(bundle):
    card = (bundle / CARD).read_text()
    for fact in (
        "train_generator",
        "nothing",
        "random weights",
        "16 px",
        "apache-2.0",
        "## Limits",
        "## Intended use",
    ):
        assert fact in card, fact


SWITCHES = {"residual": "residual layers", "second_order_styles": "second-order styles", "text_bypass": "way past"}


@torch.no_grad()
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_bundle_keeps_a_switch_that_is_off_and_its_card_says_so(tmp_path, switch):
    generator = Generator(**{**tiny_generator().arguments, switch: False}).eval()
    save_bundle(tmp_path, generator, tiny_text_encoder(), FACTS)
    loaded = load_bundle(tmp_path).generator
    assert loaded.arguments == generator.arguments and loaded.arguments[switch] is False
    z, c = torch.randn(2, 8), torch.randn(2, 8)
    assert loaded(z, c, 0.5, "const").equal(generator(z, c, 0.5, "const"))
    (line,) = (line for line in (tmp_path / CARD).read_text().splitlines() if "left out" in line)
    assert [words in line for words in SWITCHES.values()] == [name == switch for name in SWITCHES]
    assert "local batch norm" not in line


def test_the_card_says_if_the_discriminator_had_no_local_batch_norm(tmp_path):
    save_bundle(tmp_path, tiny_generator(), tiny_text_encoder(), Facts(**FACTS, local_batch_norm=False))
    assert "| left out of the paper's model | the discriminator's local batch norm |" in (tmp_path / CARD).read_text()


def test_the_card_of_the_paper_s_model_leaves_nothing_out(tmp_path):
    save_bundle(tmp_path, tiny_generator(), tiny_text_encoder(), Facts(**FACTS, local_batch_norm=True))
    card = (tmp_path / CARD).read_text()
    assert "left out" not in card
    assert "1 residual pairs per resolution |\n| text tower |" in card


def test_a_bundle_from_before_the_switches_has_them_on(bundle):
    config = json.loads((bundle / CONFIG).read_text())
    for switch in SWITCHES:
        assert config["generator"].pop(switch) is True
    (bundle / CONFIG).write_text(json.dumps(config))
    assert load_bundle(bundle).generator.arguments == tiny_generator().arguments


def drop_one(tensors):
    tensors.pop("mapping.fc0.weight")


def add_one(tensors):
    tensors["mapping.fc9.weight"] = torch.zeros(1)


def reshape_one(tensors):
    tensors["mapping.fc0.weight"] = torch.zeros(3, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_one, r"generator.safetensors: tensor mapping.fc0.weight missing; a bundle is"),
        (add_one, r"mapping.fc9.weight does not belong"),
        (reshape_one, r"mapping.fc0.weight has shape \(3, 8\), config.json says \(8, 8\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(bundle, change, message):
    tampered(bundle / GENERATOR, change)
    with pytest.raises(DataError, match=message):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [CONFIG, GENERATOR, TEXT_ENCODER])
def test_a_missing_file_is_named_with_the_cure(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: missing; .*repeat that stage"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [GENERATOR, TEXT_ENCODER])
def test_a_truncated_file_is_called_damaged(bundle, name):
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"{name}: damaged"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object with generator"),
        ('{"generator": {"resolution": 9}, "text_encoder": {}, "facts": {}}', "does not describe a network"),
    ],
)
def test_a_config_that_is_none_says_so_in_one_line(bundle, text, message):
    (bundle / CONFIG).write_text(text)
    with pytest.raises(DataError, match=message) as error:
        load_bundle(bundle)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_bundle_is_an_error_and_stays_empty(tmp_path):
    with pytest.raises(DataError, match=r"config.json: missing; a bundle is"):
        load_bundle(tmp_path)
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_a_clip_comes_back_frozen_and_alike(players):
    torch.manual_seed(0)
    clip, loaded = clip_from_spec(SPEC).eval(), load_clip(players / "clip")
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded.encode_image(images), clip.encode_image(images))
    torch.testing.assert_close(loaded.encode_text(["red"]), clip.encode_text(["red"]))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_clips_image_tower_serves_the_discriminator(players):
    vit, clip = load_discriminator_vit(players), load_clip(players / "clip")
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    taps, embedding = vit(images, with_embedding=True)
    assert [tuple(t.shape) for t in taps] == [(2, 16, 16), (2, 16, 16)]
    torch.testing.assert_close(torch.nn.functional.normalize(embedding, dim=1), clip.encode_image(images))


@torch.no_grad()
def test_a_timm_transformer_comes_back_alike(tmp_path):
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32).eval()
    spec = {
        "model": "vit_tiny_patch16_224",
        "image_px": 32,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "hooks": [1, 3],
    }
    save_timm(tmp_path / "discriminator_vit", net, spec)
    vit = load_discriminator_vit(tmp_path)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(vit(images, with_embedding=True)[1], net(images))
    assert vit.hooks == (1, 3)


def test_hooks_beyond_the_last_block_are_an_error(players):
    save_shared_vit(players / "discriminator_vit", identity(players / "clip"), [7])
    with pytest.raises(DataError, match=r"discriminator_vit/config.json: .*hooks = \[7\]"):
        load_discriminator_vit(players)


def test_identity_follows_every_weight_and_setting(players):
    folder = players / "clip"
    before = identity(folder)
    assert identity(folder) == before
    tampered(folder / WEIGHTS, lambda t: t["image.head.bias"].add_(1e-3))
    changed = identity(folder)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "note": 1}))
    assert len({before, changed, identity(folder)}) == 3


def test_identity_of_nothing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="missing; run `stylegan-t run fetch_encoders`"):
        identity(tmp_path)


def test_the_discriminators_heads_come_back_with_their_power_iterations(players, tmp_path):
    vit = load_discriminator_vit(players)
    first, second = Discriminator(vit, 12), Discriminator(vit, 12)
    save_discriminator(tmp_path, first)
    second.load_trainable_state(load_discriminator_state(tmp_path))
    state = first.heads.state_dict()
    assert any(name.endswith("point.conv.u") for name in state)
    for name, tensor in second.heads.state_dict().items():
        torch.testing.assert_close(tensor, state[name])
    assert not any("vit" in name for name in load_file(tmp_path / DISCRIMINATOR))


def test_a_missing_discriminator_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"discriminator.safetensors: missing; repeat the training stage"):
        load_discriminator_state(tmp_path)
