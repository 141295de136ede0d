"""The generator's layers against their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from stylegan_t.models.layers import (
    EqualLinear,
    FourierInput,
    ResidualLayer,
    SecondOrderStyle,
    StyledConv,
    ToRGB,
)
from stylegan_t.models.ops import modulated_conv2d

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("lr_mul", [1.0, 0.01])
def test_equal_linear_starts_at_unit_variance_whatever_its_learning_rate_multiplier(lr_mul):
    layer = EqualLinear(400, 300, lr_mul=lr_mul)
    close(layer.weight.std(), torch.tensor(1 / lr_mul), rtol=0.01, atol=0)
    close(layer(torch.randn(50, 400)).std(), torch.tensor(1.0), rtol=0.03, atol=0)


@pytest.mark.parametrize("lr_mul", [1.0, 0.01])
def test_equal_linear_applies_the_bias_it_was_given(lr_mul):
    layer = EqualLinear(4, 3, lr_mul=lr_mul, bias_init=0.5)
    close(layer.bias, torch.full((3,), 0.5 / lr_mul))
    close(layer(torch.zeros(1, 4)), torch.full((1, 3), 0.5))


def test_a_step_on_the_stored_weight_moves_the_output_by_the_learning_rate_multiplier():
    fast, slow = EqualLinear(4, 3), EqualLinear(4, 3, lr_mul=0.01)
    x = torch.randn(2, 4)
    for layer in (fast, slow):
        layer(x).sum().backward()
    close(slow.weight.grad, 0.01 * fast.weight.grad)
    close(slow.bias.grad, 0.01 * fast.bias.grad)


def test_second_order_style_is_product_plus_third_of_contiguous_thirds():
    style = SecondOrderStyle(5, 4)
    w = torch.randn(2, 5)
    s = F.linear(w, style.linear.weight / math.sqrt(5)) + 1
    close(style(w), s[:, :4] * s[:, 4:8] + s[:, 8:])


def test_fourier_input_starts_as_an_untransformed_grid_whatever_w():
    layer = FourierInput(6, 32)
    x, y = torch.meshgrid((torch.arange(8) + 0.5) / 8 - 0.5, (torch.arange(8) + 0.5) / 8 - 0.5, indexing="xy")
    f, p = layer.freqs, layer.phases
    waves = torch.sin(2 * math.pi * (f[:, 0, None, None] * x + f[:, 1, None, None] * y + p[:, None, None]))
    expected = torch.einsum("oi,ihw->ohw", layer.weight / math.sqrt(32), waves)
    close(layer(torch.randn(2, 6)), expected.expand(2, -1, -1, -1))


def test_fourier_input_evaluates_the_waves_at_the_turned_and_shifted_grid():
    layer = FourierInput(6, 32)
    with torch.no_grad():
        layer.affine.weight.normal_()
    w = torch.randn(1, 6)
    cos, sin, t_x, t_y = (layer.affine(w) / layer.affine(w)[:, :2].norm()).squeeze(0)
    x, y = torch.meshgrid((torch.arange(8) + 0.5) / 8 - 0.5, (torch.arange(8) + 0.5) / 8 - 0.5, indexing="xy")
    at_x, at_y = cos * (x - t_x) - sin * (y - t_y), sin * (x - t_x) + cos * (y - t_y)
    f, p = layer.freqs, layer.phases
    waves = torch.sin(2 * math.pi * (f[:, 0, None, None] * at_x + f[:, 1, None, None] * at_y + p[:, None, None]))
    close(layer(w)[0], torch.einsum("oi,ihw->ohw", layer.weight / math.sqrt(32), waves), rtol=1e-4, atol=1e-4)


def test_fourier_frequencies_stay_within_the_bandwidth_and_are_not_damped():
    layer = FourierInput(6, 5000)
    assert layer.freqs.norm(dim=1).max() < 2
    assert layer.damping().eq(1).all()
    assert layer.phases.abs().max() <= 0.5


def test_fourier_damping_falls_from_the_bandwidth_to_half_the_sampling_rate():
    layer = FourierInput(6, 4)
    layer.freqs = torch.tensor([[2.0, 0.0], [0.0, 2.5], [3.0, 0.0], [0.0, -5.0]])
    close(layer.damping(), torch.tensor([1.0, 0.75, 0.5, 0.0]))


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("extra_gain", [1.0, 0.5**0.5])
def test_styled_conv_is_convolution_noise_bias_leaky_relu_gain(upsample, extra_gain):
    layer = StyledConv(6, 4, 5, 8, upsample=upsample, extra_gain=extra_gain)
    with torch.no_grad():
        layer.bias.normal_()
        layer.noise_strength.fill_(0.7)
    side = 4 if upsample else 8
    x, w, noise = torch.randn(2, 4, side, side), torch.randn(2, 6), torch.randn(2, 1, 8, 8)
    y = modulated_conv2d(x, layer.weight, layer.style(w), upsample=upsample)
    y = y + 0.7 * noise + layer.bias[:, None, None]
    close(layer(x, w, noise), torch.where(y > 0, y, 0.2 * y) * math.sqrt(2) * extra_gain)


def test_styled_conv_clamps_at_256_times_its_extra_gain():
    layer = StyledConv(6, 4, 2, 8, extra_gain=0.5**0.5)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1e4, -1e4]))
    y = layer(torch.randn(1, 4, 8, 8), torch.randn(1, 6), None)
    limit = 256 * 0.5**0.5
    close(y[:, 0], torch.full((1, 8, 8), limit))
    close(y[:, 1], torch.full((1, 8, 8), -limit))


def test_noise_is_silent_at_first_and_can_be_learnt():
    layer = StyledConv(6, 4, 4, 8)
    x, w = torch.randn(1, 4, 8, 8), torch.randn(1, 6)
    y = layer(x, w, torch.randn(1, 1, 8, 8))
    close(y, layer(x, w, None))
    y.sum().backward()
    assert layer.noise_strength.grad.abs() > 0


def test_residual_layer_adds_its_scaled_convolution_to_the_normalised_input():
    layer = ResidualLayer(6, 64, 8, extra_gain=0.5**0.5)
    with torch.no_grad():
        layer.layer_scale.normal_()
        layer.norm.weight.normal_()
        layer.norm.bias.normal_()
    x, w = 3 + 2 * torch.randn(2, 64, 8, 8), torch.randn(2, 6)
    groups = x.view(2, 32, -1)
    normal = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
    normal = normal.view(x.shape) * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]
    expected = (layer.layer_scale[:, None, None] * layer.layer(normal, w, None) + normal) * math.sqrt(2)
    close(layer(x, w, None), expected, rtol=1e-4, atol=1e-5)


def test_residual_layer_starts_as_nearly_the_normalised_input():
    layer = ResidualLayer(6, 32, 8)
    x = torch.randn(2, 32, 8, 8)
    close(layer(x, torch.randn(2, 6), None), math.sqrt(2) * layer.norm(x), rtol=0, atol=1e-3)


def test_residual_layer_normalises_in_float32_under_autocast():
    layer = ResidualLayer(6, 32, 8)
    x = (1000 + torch.randn(2, 32, 8, 8)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x, torch.randn(2, 6), None)
    assert y.dtype == torch.float32


def test_to_rgb_is_a_modulated_1x1_convolution_without_demodulation():
    layer = ToRGB(6, 32)
    with torch.no_grad():
        layer.bias.normal_()
    x, w = torch.randn(2, 32, 4, 4), torch.randn(2, 6)
    kernels = layer.weight * (layer.style(w) / math.sqrt(32))[:, None, :, None, None]
    one_by_one = [F.conv2d(x[i : i + 1], kernels[i], layer.bias) for i in range(2)]
    close(layer(x, w), torch.cat(one_by_one))


def test_to_rgb_clamps_at_256():
    layer = ToRGB(6, 32)
    assert layer(1e6 * torch.randn(1, 32, 4, 4), torch.randn(1, 6)).abs().max() == 256
