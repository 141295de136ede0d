"""The losses against their definitions, and at the points where formulas break."""

import math

import pytest
import torch

from stylegan_t.losses import (
    clip_guidance,
    hinge_fake,
    hinge_generator,
    hinge_real,
    range_penalty,
    squared_angle,
)

close = torch.testing.assert_close


def test_hinge_losses_stop_at_the_margin():
    logits = torch.tensor([[-3.0, -1.0, 0.0], [0.5, 1.0, 4.0]])
    close(hinge_real(logits), torch.tensor((4 + 2 + 1 + 0.5) / 6))
    close(hinge_fake(logits), torch.tensor((1 + 1.5 + 2 + 5) / 6))
    close(hinge_generator(logits), -logits.mean())


def test_squared_angle_equals_its_definition_in_double_precision():
    cosine = torch.linspace(-0.999, 0.9999, 4001, dtype=torch.float64)
    close(squared_angle(cosine), torch.arccos(cosine).square(), rtol=2e-5, atol=1e-9)


def test_squared_angle_s_series_is_exact_to_many_digits():
    cosine = torch.linspace(0.99001, 0.9999, 100, dtype=torch.float64)
    close(squared_angle(cosine), torch.arccos(cosine).square(), rtol=1e-9, atol=0)


def test_squared_angle_has_the_right_slope_on_both_sides_of_the_series():
    cosine = torch.tensor([-0.9, 0.0, 0.5, 0.98, 0.9901, 0.999, 0.99999], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(squared_angle(cosine).sum(), cosine)
    x = cosine.detach()
    close(slope, -2 * torch.arccos(x) / (1 - x.square()).sqrt(), rtol=1e-4, atol=0)


def test_squared_angle_at_one_is_zero_with_slope_minus_two():
    cosine = torch.ones(1, requires_grad=True)
    angle = squared_angle(cosine)
    angle.sum().backward()
    assert angle.item() == 0
    close(cosine.grad, torch.tensor([-2.0]))


@pytest.mark.parametrize("cosine", [-1 - 2e-7, -1.0, 1.0, 1 + 2e-7])
def test_squared_angle_is_finite_and_falls_where_rounding_oversteps(cosine):
    x = torch.tensor([cosine], requires_grad=True)
    angle = squared_angle(x)
    angle.sum().backward()
    assert angle.isfinite().all() and x.grad.isfinite().all() and x.grad.item() <= -1.99
    assert angle.item() == pytest.approx(0 if cosine > 0 else math.pi**2, abs=1e-2)


def test_clip_guidance_is_the_mean_of_squared_angles_whatever_the_lengths():
    angles = torch.tensor([0.3, 1.0, 2.5])
    embedding = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[0.1], [1.0], [30.0]])
    c = torch.tensor([[1.0, 0.0]]).expand(3, -1)
    close(clip_guidance(embedding, c), angles.square().mean(), rtol=1e-5, atol=1e-5)


def test_clip_guidance_pulls_the_embedding_towards_the_text():
    torch.manual_seed(0)
    c = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    embedding = torch.randn(4, 8, requires_grad=True)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(clip_guidance(embedding, c), embedding)
        embedding = (embedding - gradient).detach().requires_grad_()
    assert clip_guidance(embedding, c) < 1e-4


def test_clip_guidance_of_a_perfect_match_has_a_finite_gradient():
    c = torch.nn.functional.normalize(torch.ones(2, 8), dim=1)
    embedding = c.clone().requires_grad_()
    clip_guidance(embedding, c).backward()
    assert embedding.grad.isfinite().all()


def test_range_penalty_is_the_mean_square_outside_minus_one_to_one():
    images = torch.tensor([-3.0, -1.0, -0.5, 0.0, 1.0, 1.5]).view(1, 3, 1, 2)
    close(range_penalty(images), torch.tensor((4 + 0.25) / 6))
