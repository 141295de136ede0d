from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from stylegan_t.errors import DataError, SettingsError
from stylegan_t.models.plugins import (
    CURE,
    Value,
    linear_layers,
    load_embedding_head,
    load_picture_classifier,
)

EMBED_DIM = 8
PLAIN = {"activation": "none", "output": "identity", "index": 0}


def saved(path: Path, module: nn.Module) -> Path:
    """A file as one gets it from somebody's ``state_dict``."""
    save_file(module.state_dict(), path)
    return path


def head(path: Path, **changes):
    return load_embedding_head(path, **{"embed_dim": EMBED_DIM, **PLAIN, **changes})


def embeddings(rng: torch.Generator) -> torch.Tensor:
    return nn.functional.normalize(torch.randn(5, EMBED_DIM, generator=rng), dim=1)


@pytest.fixture
def rng():
    torch.manual_seed(0)
    return torch.Generator().manual_seed(0)


def test_one_linear_layer_as_published_gives_its_numbers(tmp_path, rng):
    linear, c = nn.Linear(EMBED_DIM, 1), embeddings(rng)
    torch.testing.assert_close(head(saved(tmp_path / "a.safetensors", linear))(c), linear(c)[:, 0])


class Published(nn.Module):
    """Layers in the way of LAION's predictors: numbers with gaps where dropout was; more than ten of them."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        widths = [EMBED_DIM, 12, 7, 9, 6, 3]
        modules: list[nn.Module] = []
        for n, (i, o) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            modules += [nn.Linear(i, o)] if n == 0 else [activation(), nn.Dropout(), nn.Linear(i, o)]
        self.layers = nn.Sequential(*modules)

    def forward(self, c):
        return self.layers(c)


@pytest.mark.parametrize(
    ("name", "activation"), [("none", nn.Identity), ("relu", nn.ReLU), ("gelu", nn.GELU)], ids=lambda x: str(x)[-6:]
)
def test_several_layers_with_an_activation_give_the_numbers_of_the_original(tmp_path, rng, name, activation):
    original, c = Published(activation).eval(), embeddings(rng)
    found = head(saved(tmp_path / "a.safetensors", original), activation=name, index=2)
    torch.testing.assert_close(found(c), original(c)[:, 2])
    assert not found.training and not any(p.requires_grad for p in found.parameters())


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("identity", lambda x: x),
        ("sigmoid", lambda x: 1 / (1 + (-x).exp())),
        ("softmax", lambda x: x.exp() / x.exp().sum(dim=1, keepdim=True)),
    ],
)
def test_the_output_is_what_its_name_says(rng, output, expected):
    logits = torch.randn(4, 3, generator=rng)
    torch.testing.assert_close(Value(output, 1)(logits), expected(logits)[:, 1])


def test_weights_in_half_precision_are_read(tmp_path, rng):
    linear = nn.Linear(EMBED_DIM, 1).half()
    assert head(saved(tmp_path / "a.safetensors", linear))(embeddings(rng)).dtype == torch.float32


def test_a_head_for_another_clip_is_refused(tmp_path):
    path = saved(tmp_path / "l14.safetensors", nn.Linear(768, 1))
    with pytest.raises(DataError, match=r"l14\.safetensors: reads embeddings of 768 numbers.*makes 8"):
        head(path)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_weights_that_cannot_be_read_say_how_to_get_them(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    if damage == "damaged":
        path.write_bytes(b"not weights")
    with pytest.raises(DataError, match=rf"a\.safetensors: {damage}.*score\.plugins in params\.yaml"):
        head(path)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"scale": torch.ones(3)}, "what it holds is no linear layer"),
        ({"0.weight": torch.ones(3, 8)}, "0 is no linear layer"),
        ({"norm.1.weight": torch.ones(8), "norm.1.bias": torch.ones(8)}, "norm.1 is no linear layer"),
        ({"0.weight": torch.ones(3, 8), "0.bias": torch.ones(2)}, "0 is no linear layer"),
        (
            {
                f"{n}.{k}": torch.ones(*s)
                for n, w in ((0, (3, 8)), (1, (1, 4)))
                for k, s in (("weight", w), ("bias", w[:1]))
            },
            "1 reads 4 numbers, the layer before makes 3",
        ),
        ({}, "no linear layer in it"),
    ],
)
def test_what_is_no_chain_of_linear_layers_is_refused(tensors, reason):
    with pytest.raises(DataError, match=rf"a\.safetensors: {reason}"):
        linear_layers(tensors, "relu", Path("a.safetensors"))


def test_an_index_past_the_outputs_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"makes 2 numbers, and score\.plugins' index is 2"):
        head(saved(tmp_path / "a.safetensors", nn.Linear(EMBED_DIM, 2)), index=2)


def classifier(path: Path, **changes):
    settings = {"model": "test_vit", "image_px": None, "activation": "relu", "output": "softmax", "index": 1}
    return load_picture_classifier(path, **{**settings, **changes})


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet", "test_convnext"])
def test_a_timm_classifier_gives_the_number_of_the_original(tmp_path, rng, model):
    original = timm.create_model(model, num_classes=3).eval()
    found = classifier(saved(tmp_path / "a.safetensors", original), model=model)
    config = original.default_cfg
    assert (found.image_px, found.mean, found.std) == (160, list(config["mean"]), list(config["std"]))
    images = torch.rand(2, 3, 160, 160, generator=rng)
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    expected = original((images - mean) / std).softmax(dim=1)[:, 1]
    torch.testing.assert_close(found(2 * images - 1), expected)
    assert not any(p.requires_grad for p in found.parameters()) and not found.net.training


def test_a_head_of_several_layers_in_timms_place_is_read_like_that_of_laions_watermark_detector(tmp_path, rng):
    original = timm.create_model("test_efficientnet", num_classes=2)
    original.classifier = nn.Sequential(
        nn.Linear(256, 9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    original.eval()
    found = classifier(saved(tmp_path / "a.safetensors", original), model="test_efficientnet", image_px=96, index=0)
    images = torch.rand(2, 3, 96, 96, generator=rng)
    config = original.default_cfg
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    torch.testing.assert_close(found(2 * images - 1), original((images - mean) / std).softmax(dim=1)[:, 0])
    assert found.image_px == 96


def test_a_network_that_timm_does_not_have_is_a_wrong_setting(tmp_path):
    with pytest.raises(SettingsError, match=r"score\.plugins: timm has no model 'resnet_999'"):
        classifier(tmp_path / "a.safetensors", model="resnet_999")


def test_a_network_with_two_heads_is_a_wrong_setting(tmp_path):
    with pytest.raises(SettingsError, match="deit_tiny_distilled_patch16_224 has no head, or several"):
        classifier(tmp_path / "a.safetensors", model="deit_tiny_distilled_patch16_224")


@pytest.mark.parametrize("model", ["test_vit2", "test_convnext"])
def test_weights_of_another_network_are_refused_in_one_short_line(tmp_path, model):
    path = saved(tmp_path / "a.safetensors", timm.create_model("test_vit", num_classes=2))
    with pytest.raises(DataError, match=f"no weights of timm's {model} ") as caught:
        classifier(path, model=model)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))


def test_a_resolution_that_the_network_cannot_read_is_a_wrong_setting(tmp_path):
    path = saved(tmp_path / "a.safetensors", timm.create_model("test_vit", num_classes=2))
    with pytest.raises(SettingsError, match="test_vit cannot read 100 px, image_px"):
        classifier(path, image_px=100)


def test_a_classifier_without_weights_says_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match=r"gone\.safetensors: missing") as caught:
        classifier(tmp_path / "gone.safetensors")
    assert CURE in str(caught.value)
