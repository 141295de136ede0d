"""Frozen transformers: which tokens they give, in which order, and that they stay as they are."""

import open_clip.transformer
import pytest
import timm.models.vision_transformer
import torch

from stylegan_t.models.vit import OpenClipFrozenViT, TimmFrozenViT

close = torch.testing.assert_close
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
KINDS = ["class_token", "average_pool", "registers", "open_clip", "open_clip_average"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def timm_net(**changes):
    settings = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 4,
        "num_heads": 2,
        "num_classes": 10,
    }
    return timm.models.vision_transformer.VisionTransformer(**{**settings, **changes})


def open_clip_net(**changes):
    settings = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 4, "heads": 2, "mlp_ratio": 2.0}
    return open_clip.transformer.VisionTransformer(**settings, output_dim=10, **changes)


def frozen(kind, hooks=(1, 3)):
    if kind == "class_token":
        return TimmFrozenViT(timm_net(), hooks=hooks, mean=MEAN, std=STD)
    if kind == "average_pool":
        return TimmFrozenViT(timm_net(class_token=False, global_pool="avg"), hooks=hooks, mean=MEAN, std=STD)
    if kind == "registers":
        return TimmFrozenViT(timm_net(reg_tokens=2), hooks=hooks, mean=MEAN, std=STD)
    pool = "avg" if kind == "open_clip_average" else "tok"
    return OpenClipFrozenViT(open_clip_net(pool_type=pool), hooks=hooks, mean=MEAN, std=STD)


def blocks_of(vit):
    return vit.net.blocks if isinstance(vit, TimmFrozenViT) else vit.net.transformer.resblocks


def prefix_of(kind):
    return {"average_pool": 0, "registers": 3}.get(kind, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_the_hooked_blocks_outputs_then_the_embedding(kind):
    vit = frozen(kind)
    seen = {}
    for i, block in enumerate(blocks_of(vit)):
        block.register_forward_hook(lambda _, inputs, out, i=i: seen.update({i: out}))
    if isinstance(vit, TimmFrozenViT):
        vit.net.norm_pre.register_forward_pre_hook(lambda _, inputs: seen.update(embedding=inputs[0]))
    else:
        vit.net.ln_pre.register_forward_pre_hook(lambda _, inputs: seen.update(embedding=inputs[0]))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    vit.net(vit.preprocess(images))  # the library's own forward pass fills `seen`
    expected = []
    for key in (1, 3, "embedding"):
        prefix = prefix_of(kind)
        patches = seen[key][:, prefix:]
        expected.append(patches + seen[key][:, :1] if prefix else patches)
    tokens, embedding = vit(images)
    assert embedding is None
    assert [t.shape for t in tokens] == [(2, 16, vit.width)] * vit.num_taps
    for ours, theirs in zip(tokens, expected, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_from_the_shared_pass_is_the_network_s_own_output(kind):
    vit = frozen(kind, hooks=(0,))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    tokens, embedding = vit(images, with_embedding=True)
    close(embedding, vit.net(vit.preprocess(images)))
    assert embedding.shape == (2, 10)
    for ours, alone in zip(tokens, vit(images)[0], strict=True):
        close(ours, alone)


def test_blocks_behind_the_last_hook_do_not_run_without_the_embedding():
    vit = frozen("class_token", hooks=(1,))
    ran = []
    for i, block in enumerate(vit.net.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    vit(torch.zeros(1, 3, 32, 32))
    assert ran == [0, 1]


@pytest.mark.parametrize("kind", ["class_token", "open_clip"])
def test_it_stays_frozen_and_in_eval_mode_but_passes_gradients_to_the_images(kind):
    vit = frozen(kind)
    torch.nn.Sequential(vit).train()
    assert not any(module.training for module in vit.modules())
    images = torch.zeros(1, 3, 32, 32, requires_grad=True)
    sum(t.sin().sum() for t in vit(images)[0]).backward()
    assert images.grad.abs().min() > 0
    assert all(not p.requires_grad and p.grad is None for p in vit.parameters())


def test_preprocessing_maps_signed_images_to_the_normalisation_in_zero_to_one():
    vit = frozen("class_token")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    close(vit.preprocess(images), ((images + 1) / 2 - mean) / std)


def test_larger_images_are_averaged_over_areas_and_smaller_ones_repeat_pixels():
    vit = TimmFrozenViT(timm_net(), hooks=(0,), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    large, small = torch.randn(1, 3, 96, 96), torch.randn(1, 3, 16, 16)
    close(vit.preprocess(large), large.view(1, 3, 32, 3, 32, 3).mean(dim=(3, 5)))
    close(vit.preprocess(small), small.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("hooks", [(4,), (-1,), (2, 1), (1, 1)])
def test_hooks_that_do_not_exist_or_ascend_are_named(hooks):
    with pytest.raises(ValueError, match="ascending block numbers between 0 and 3"):
        frozen("class_token", hooks=hooks)


def test_registers_without_a_class_token_are_refused():
    net = timm_net(class_token=False, reg_tokens=2, global_pool="avg")
    with pytest.raises(ValueError, match="no class token"):
        TimmFrozenViT(net, hooks=(0,), mean=MEAN, std=STD)
