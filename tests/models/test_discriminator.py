"""The discriminator's heads against their definitions, and what may not change a result."""

import copy
import math

import pytest
import timm.models.vision_transformer
import torch
import torch.nn.functional as F

from stylegan_t.models.discriminator import Discriminator, Head, LocalBatchNorm, SpectralConv1d
from stylegan_t.models.vit import TimmFrozenViT

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small_discriminator(c_dim=5):
    net = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=0
    )
    vit = TimmFrozenViT(net, hooks=(0, 2), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Discriminator(vit, c_dim)


def images_and_c(n=4, side=32):
    return torch.rand(n, 3, side, side) * 2 - 1, torch.randn(n, 5)


def norms(discriminator):
    return [b.clone() for name, b in discriminator.heads.named_buffers()]


def test_spectral_norm_converges_to_the_largest_singular_value():
    conv = SpectralConv1d(6, 5, 3)
    for _ in range(300):
        conv.iterate()
    sigma = torch.linalg.matrix_norm(conv.weight.detach().flatten(1), ord=2)
    close(conv.normalised_weight(), conv.weight / sigma)


def test_one_power_iteration_updates_v_from_the_old_u_and_u_from_the_new_v():
    conv = SpectralConv1d(6, 5, 3)
    u, matrix = conv.u.clone(), conv.weight.detach().flatten(1)
    conv.iterate()
    v = F.normalize(matrix.T @ u, dim=0)
    close(conv.v, v)
    close(conv.u, F.normalize(matrix @ v, dim=0))


def test_sigma_s_gradient_flows_through_the_weight_alone():
    conv = SpectralConv1d(4, 3, 1)
    probe = torch.randn(3, 4, 1)
    (conv.normalised_weight() * probe).sum().backward()
    w, u, v = conv.weight.detach(), conv.u, conv.v
    sigma = u @ w.flatten(1) @ v
    expected = probe / sigma - (probe * w).sum() / sigma**2 * torch.outer(u, v)[:, :, None]
    close(conv.weight.grad, expected)


def test_an_iteration_between_forward_and_backward_does_not_disturb_the_gradient():
    conv, undisturbed = SpectralConv1d(4, 3, 1), None
    for disturb in (False, True):
        conv.weight.grad = None
        y = copy.deepcopy(conv)
        out = y(torch.ones(2, 4, 5)).square().sum()
        if disturb:
            y.iterate()
        out.backward()
        undisturbed = y.weight.grad if undisturbed is None else undisturbed
        close(y.weight.grad, undisturbed)


def test_convolution_is_circular_over_the_tokens():
    conv = SpectralConv1d(4, 3, 9)
    x = torch.randn(2, 4, 16)
    close(conv(x.roll(5, dims=2)), conv(x).roll(5, dims=2))


@pytest.mark.parametrize("n", [3, 8, 24])
def test_local_batch_norm_equals_its_definition_on_contiguous_runs_of_eight(n):
    norm = LocalBatchNorm(5)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = 2 + 3 * torch.randn(n, 5, 7)
    expected = []
    for run in x.split(8):
        mean, var = run.mean(dim=(0, 2), keepdim=True), run.var(dim=(0, 2), keepdim=True, unbiased=False)
        expected.append((run - mean) / (var + 1e-5).sqrt() * norm.weight[:, None] + norm.bias[:, None])
    close(norm(x), torch.cat(expected))
    norm.eval()
    close(norm(x), torch.cat(expected))


@pytest.mark.parametrize("n", [9, 12, 20])
def test_a_batch_that_does_not_split_into_runs_is_named_with_sizes_that_do(n):
    with pytest.raises(ValueError, match=rf"batch of {n} images.*use {n // 8 * 8} or {n // 8 * 8 + 8}"):
        LocalBatchNorm(2)(torch.zeros(n, 2, 3))


def test_head_multiplies_projected_tokens_with_the_mapped_text():
    head = Head(6, 5, 9)
    tokens, c = torch.randn(8, 16, 6), torch.randn(8, 5)
    x = head.point(tokens.transpose(1, 2))
    x = (head.context(x) + x) / math.sqrt(2)
    expected = (head.project(x) * head.c_map(c)[:, :, None]).sum(dim=1) / math.sqrt(64)
    close(head(tokens, c), expected)


def test_without_text_a_head_has_one_channel_and_ignores_c():
    head = Head(6, 0, 9)
    tokens = torch.randn(8, 16, 6)
    x = head.point(tokens.transpose(1, 2))
    close(head(tokens, torch.randn(8, 5)), head.project((head.context(x) + x) / math.sqrt(2))[:, 0])
    close(head(tokens, None), head(tokens, torch.randn(8, 1)))


def test_a_discriminator_with_text_asks_for_c():
    with pytest.raises(ValueError, match="c_dim = 5"):
        small_discriminator()(images_and_c()[0])


def test_logits_are_concatenated_in_the_order_of_the_token_maps():
    discriminator = small_discriminator().eval()
    images, c = images_and_c()
    tokens = discriminator.tokens(images)
    each = [head(t, c) for head, t in zip(discriminator.heads, tokens, strict=True)]
    close(discriminator(images, c), torch.cat(each, dim=1), rtol=0, atol=0)
    assert discriminator(images, c).shape == (4, 3 * 16)


def test_training_iterates_the_spectral_norms_once_per_call_and_eval_never():
    discriminator = small_discriminator()
    images, c = images_and_c()
    by_hand = copy.deepcopy(discriminator)
    by_hand.power_iteration()
    discriminator.eval()(images, c)
    assert not all(a.equal(b) for a, b in zip(norms(discriminator), norms(by_hand), strict=True))
    discriminator.train()(images, c)
    assert all(a.equal(b) for a, b in zip(norms(discriminator), norms(by_hand), strict=True))


def test_a_phase_of_several_calls_equals_one_call_on_the_whole_batch():
    whole = small_discriminator().train()
    parts = copy.deepcopy(whole)
    images, c = images_and_c(n=16)
    together = whole(images, c)
    together.mean().backward()
    estimates = parts.power_iteration()
    for run in (slice(0, 8), slice(8, 16)):
        logits = parts.judge(parts.tokens(images[run]), c[run], estimates)
        close(logits, together[run])
        (logits.mean() / 2).backward()
    for a, b in zip(whole.heads.parameters(), parts.heads.parameters(), strict=True):
        close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    assert all(a.equal(b) for a, b in zip(norms(whole), norms(parts), strict=True))


def test_estimates_made_ahead_give_each_phase_its_own_norms():
    one_by_one = small_discriminator().train()
    ahead = copy.deepcopy(one_by_one)
    images, c = images_and_c(n=8)
    tokens = ahead.tokens(images)
    estimates = [ahead.power_iteration() for _ in range(3)]
    expected = [one_by_one(images, c) for _ in range(3)]
    for i in (2, 0, 1):  # in whatever order they are used
        assert ahead.judge(tokens, c, estimates[i]).equal(expected[i])
    assert not expected[0].equal(expected[1])


def test_the_saved_state_is_the_heads_and_their_spectral_norms_and_restores_the_logits():
    first, second = small_discriminator().train(), small_discriminator().train()
    second.vit = first.vit
    images, c = images_and_c()
    first(images, c)
    state = first.trainable_state()
    assert not any("vit" in name or "net" in name for name in state)
    assert sum(name.endswith((".u", ".v")) for name in state) == 2 * 3 * len(first.heads)
    second.load_trainable_state(state)
    assert second(images, c).equal(first(images, c))


def test_only_the_heads_learn():
    discriminator = small_discriminator().train()
    learning = {id(p) for p in discriminator.parameters() if p.requires_grad}
    assert learning == {id(p) for p in discriminator.heads.parameters()}
    assert not discriminator.vit.training
