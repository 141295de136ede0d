"""Signs of health: each against a case whose answer is known."""

import torch
from torch import nn

from stylegan_t.models.generator import Generator
from stylegan_t.models.layers import CLAMP
from stylegan_t.training.monitors import clamped_share, gradient_norm, logit_signs, relative_diversity


def test_logit_signs_are_shares_of_right_answers():
    real, fake = torch.tensor([[1.0, 2.0], [-1.0, 3.0]]), torch.tensor([[1.0, -2.0], [-1.0, -3.0]])
    signs = logit_signs(real, fake)
    assert (signs["reals_positive"].item(), signs["fakes_negative"].item()) == (0.75, 0.75)


def tokens(images: torch.Tensor) -> list[torch.Tensor]:
    return [torch.zeros(len(images), 2, 3), images, torch.randn(len(images), 2, 3)]


def test_fakes_as_varied_as_the_reals_have_diversity_one_and_equal_fakes_none():
    reals = torch.randn(16, 2, 3)
    assert relative_diversity(tokens(reals), tokens(reals)).item() == 1
    torch.testing.assert_close(relative_diversity(tokens(reals * 0.25 + 7), tokens(reals)), torch.tensor(0.25))
    assert relative_diversity(tokens(reals[:1].expand(16, 2, 3)), tokens(reals)).item() < 1e-6


def test_diversity_does_not_depend_on_how_a_batch_is_split():
    fakes, reals = torch.randn(2, 32, 2, 3)
    whole = relative_diversity(tokens(fakes), tokens(reals))
    halves = [relative_diversity(tokens(fakes[part]), tokens(reals[part])) for part in (slice(0, 16), slice(16, 32))]
    torch.testing.assert_close(torch.stack(halves).mean(), whole)


def small_generator() -> Generator:
    torch.manual_seed(0)
    return Generator(resolution=8, z_dim=4, c_dim=4, channel_base=512, channel_max=32, num_res_blocks=1)


def test_the_clamped_share_counts_what_the_clamps_cut():
    generator, z, c = small_generator(), torch.randn(4, 4), torch.randn(4, 4)
    before = generator.mapping.w_avg.clone()
    assert clamped_share(generator, z, c) == 0
    with torch.no_grad():
        generator.synthesis.blocks["8"].layers[0].bias[:16] = 10 * CLAMP  # half of the channels of one of two layers
    assert abs(clamped_share(generator, z, c) - 0.25) < 0.01
    assert torch.equal(generator.mapping.w_avg, before)
    assert not any(module._forward_hooks for module in generator.modules())


def test_the_gradient_norm_is_that_of_all_numbers_together():
    linear = nn.Linear(3, 2)
    linear.weight.grad, linear.bias.grad = torch.full((2, 3), 2.0), torch.ones(2)
    torch.testing.assert_close(gradient_norm(list(linear.parameters())), torch.tensor((6 * 4.0 + 2) ** 0.5))
    linear.bias.grad[0] = float("nan")
    assert not gradient_norm(list(linear.parameters())).isfinite()
