"""CLIP: tokens, embeddings, and networks rebuilt from their specs."""

import json

import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP

from stylegan_t.models.encoders import (
    Clip,
    TextEncoder,
    clip_from_open_clip,
    clip_from_spec,
    normalize,
    resize,
    small_image_tower,
    tokens_of,
)

TEXT_CFG = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}
SPEC = {
    "kind": "small",
    "image": {"image_px": 16, "patch_px": 4, "width": 16, "depth": 1, "num_heads": 2, "embed_dim": 12},
    "text": {"embed_dim": 12, "text_cfg": TEXT_CFG, "num_tokens": None},
}
MODEL_CFG = {
    "embed_dim": 12,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
    "text_cfg": {"context_length": 8, "width": 16, "heads": 2, "layers": 1, "vocab_size": 49408},
}


@pytest.fixture
def clip() -> Clip:
    torch.manual_seed(0)
    return clip_from_spec(SPEC).eval()


def encoder_knowing(*captions: str) -> TextEncoder:
    token_ids = tokens_of(captions)
    encoder = TextEncoder(embed_dim=12, text_cfg=TEXT_CFG, num_tokens=len(token_ids))
    encoder.token_ids.copy_(token_ids)
    return encoder.eval()


def test_tokens_are_open_clips_own(clip):
    captions = ["a red circle", "", "one two three four five six seven eight nine"]
    expected = open_clip.SimpleTokenizer()(captions, context_length=8)
    torch.testing.assert_close(clip.text.tokenize(captions), expected)


def test_a_word_outside_the_vocabulary_is_skipped():
    encoder = encoder_knowing("a red circle")
    tokens = encoder.tokenize(["a gigantic red zebra circle", "a red circle"])
    torch.testing.assert_close(tokens[0], tokens[1])


def test_a_small_vocabulary_keeps_words_apart_and_marks_in_place():
    encoder = encoder_knowing("a red circle", "a blue circle " * 5)
    tokens = encoder.tokenize(["a red circle", "a blue circle", "blue " * 20])
    assert not torch.equal(tokens[0], tokens[1])
    end = len(encoder.token_ids) - 1
    assert (tokens == end).sum(dim=1).tolist() == [1, 1, 1]
    assert tokens[2, -1] == end
    assert tokens.max() == end


@torch.no_grad()
def test_embeddings_have_unit_length(clip):
    ones = torch.ones(3)
    torch.testing.assert_close(clip.encode_text(["", "red", "a red circle"]).norm(dim=1), ones)
    torch.testing.assert_close(clip.encode_image(torch.randn(3, 3, 24, 24)).norm(dim=1), ones)


def test_the_guidance_reaches_the_pixels(clip):
    images = torch.zeros(2, 3, 32, 32, requires_grad=True)
    clip.encode_image(images)[:, 0].sum().backward()
    assert images.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_reducing_averages_the_area_of_each_pixel():
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(resize(images, 4), images.view(2, 3, 4, 2, 4, 2).mean(dim=(3, 5)))


def test_an_image_of_the_right_size_is_not_touched():
    images = torch.randn(2, 3, 8, 8)
    assert resize(images, 8) is images


def test_normalize_is_the_networks_own_on_images_in_0_1():
    images = torch.rand(2, 3, 4, 4)
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    expected = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(normalize(images * 2 - 1, mean, std), expected)


@torch.no_grad()
def test_contrast_changes_what_the_stem_sees():
    """A norm in front of every other layer would leave only the biases to tell."""
    torch.manual_seed(0)
    stem = small_image_tower(**SPEC["image"]).patch_embed
    images = torch.randn(4, 3, 16, 16)
    tokens, louder = stem.convs[1](stem.convs[0](images)), stem.convs[1](stem.convs[0](2 * images))
    assert (louder - tokens).norm() > 0.5 * tokens.norm()


@pytest.mark.parametrize("patch_px", [4, 8])
def test_the_stem_makes_one_token_per_patch(patch_px):
    stem = small_image_tower(**{**SPEC["image"], "patch_px": patch_px}).patch_embed
    assert stem(torch.randn(2, 3, 16, 16)).shape == (2, (16 // patch_px) ** 2, 16)


@torch.no_grad()
def test_a_spec_that_went_through_json_rebuilds_the_network(clip):
    rebuilt = clip_from_spec(json.loads(json.dumps(clip.spec))).eval()
    rebuilt.load_state_dict(clip.state_dict())
    images, captions = torch.randn(2, 3, 16, 16), ["a red circle", "blue"]
    torch.testing.assert_close(rebuilt.encode_image(images), clip.encode_image(images))
    torch.testing.assert_close(rebuilt.encode_text(captions), clip.encode_text(captions))


@pytest.fixture
def theirs() -> CustomTextCLIP:
    torch.manual_seed(0)
    model = CustomTextCLIP(**MODEL_CFG).eval()
    preprocess = {"size": (32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    open_clip.model.set_model_preprocess_cfg(model, preprocess)
    return model


@torch.no_grad()
def test_an_open_clip_model_embeds_the_same_in_our_hands(theirs):
    ours = clip_from_open_clip(theirs, MODEL_CFG).eval()
    images, captions = torch.rand(2, 3, 32, 32), ["a red circle", "blue"]
    pixels = (images - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    torch.testing.assert_close(ours.encode_image(images * 2 - 1), theirs.encode_image(pixels, normalize=True))
    tokens = open_clip.SimpleTokenizer()(captions, context_length=8)
    torch.testing.assert_close(ours.encode_text(captions), theirs.encode_text(tokens, normalize=True))


def test_a_frozen_tower_passes_the_same_gradients_without_copies_of_its_weights(theirs):
    """A product per position (bmm), each with the weight copied, took nine tenths of a training step in bf16."""
    ours, theirs = (model.requires_grad_(False) for model in (clip_from_open_clip(theirs, MODEL_CFG).eval(), theirs))
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    found = []
    for embed in (
        ours.encode_image,
        lambda images: theirs.encode_image(((images + 1) / 2 - mean) / std, normalize=True),
    ):
        images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.profiler.profile() as profile:
            embed(images)[:, 0].sum().backward()
        found.append((images.grad, "aten::bmm" in {event.key for event in profile.key_averages()}))
    (mine, mine_by_position), (expected, theirs_by_position) = found
    torch.testing.assert_close(mine, expected)
    assert (mine_by_position, theirs_by_position) == (False, True)


@torch.no_grad()
def test_the_text_encoder_of_an_open_clip_model_is_rebuilt_from_its_own_spec(theirs):
    ours = clip_from_open_clip(theirs, MODEL_CFG).eval()
    rebuilt = TextEncoder(**json.loads(json.dumps(ours.text.spec))).eval()
    rebuilt.load_state_dict(ours.text.state_dict())
    tokens = ours.text.tokenize(["a red circle"])
    torch.testing.assert_close(rebuilt(tokens), ours.text(tokens))


def test_a_text_tower_with_a_tokenizer_of_its_own_is_refused():
    with pytest.raises(ValueError, match="tokenizer of its own"):
        TextEncoder(embed_dim=12, text_cfg={**TEXT_CFG, "hf_tokenizer_name": "some/tokenizer"})


@pytest.mark.parametrize(
    ("change", "message"),
    [({"image_px": 18}, "no multiple"), ({"num_heads": 3}, "does not split into 3 heads")],
)
def test_sizes_that_do_not_divide_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        small_image_tower(**{**SPEC["image"], **change})
