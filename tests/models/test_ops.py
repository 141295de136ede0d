"""The formulas against their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from stylegan_t.models.ops import (
    LEAKY_SLOPE,
    blur,
    bounded_leaky_relu_,
    demodulation,
    fir_kernel,
    modulated_conv2d,
    second_moment_norm,
    upsample2d,
)

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def styled_input(k=3, n=3, i=5, o=4, side=6):
    return torch.randn(n, i, side, side), torch.randn(o, i, k, k), torch.randn(n, i)


def per_sample_kernels(weight, style):
    kernels = weight * style[:, None, :, None, None]
    return kernels / (kernels.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()


def zero_inserted(x):
    """Twice as large, each pixel followed by a zero."""
    n, c, h, w = x.shape
    return torch.stack(
        [torch.stack([x, 0 * x], dim=4).reshape(n, c, h, 2 * w), x.new_zeros(n, c, h, 2 * w)], 3
    ).reshape(n, c, 2 * h, 2 * w)


def binomial():
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return 4 * torch.outer(taps, taps)


def test_second_moment_norm_gives_rows_a_mean_square_of_one_and_keeps_their_direction():
    x = torch.randn(4, 9) * torch.tensor([[1e-2], [1.0], [3.0], [1e3]])
    y = second_moment_norm(x)
    close(y.square().mean(dim=1), torch.ones(4), rtol=1e-3, atol=0)
    close(F.cosine_similarity(x, y), torch.ones(4))


def test_second_moment_norm_of_zero_is_zero():
    assert second_moment_norm(torch.zeros(1, 4)).eq(0).all()


@pytest.mark.parametrize("k", [1, 3])
def test_modulated_conv_equals_one_plain_convolution_per_image(k):
    x, weight, style = styled_input(k)
    kernels = per_sample_kernels(weight, style)
    one_by_one = [F.conv2d(x[i : i + 1], kernels[i], padding=k // 2) for i in range(len(x))]
    close(modulated_conv2d(x, weight, style), torch.cat(one_by_one))


def test_upsampling_conv_equals_zero_insertion_convolution_and_filter_per_image():
    x, weight, style = styled_input()
    kernels = per_sample_kernels(weight, style)
    expected = []
    for i in range(len(x)):
        # A transposed convolution correlates the zero-inserted image with the flipped kernel.
        full = F.conv2d(zero_inserted(x[i : i + 1]), kernels[i].flip(2, 3), padding=2)[:, :, :13, :13]
        filtered = [F.conv2d(F.pad(full[:, o : o + 1], (1, 1, 1, 1)), binomial()[None, None]) for o in range(4)]
        expected.append(torch.cat(filtered, dim=1))
    close(modulated_conv2d(x, weight, style, upsample=True), torch.cat(expected))


def test_demodulation_forgets_the_magnitude_of_the_style():
    x, weight, style = styled_input()
    close(modulated_conv2d(x, weight, style), modulated_conv2d(x, weight, 100 * style))


def test_demodulation_keeps_the_variance_of_white_noise():
    x, weight, style = torch.randn(1, 8, 200, 200), torch.randn(4, 8, 3, 3), torch.randn(1, 8)
    close(modulated_conv2d(x, weight, style).var(dim=(2, 3)), torch.ones(1, 4), rtol=0.06, atol=0)


def test_demodulation_of_an_all_zero_style_is_finite():
    x, weight, _ = styled_input()
    assert modulated_conv2d(x, weight, torch.zeros(3, 5)).eq(0).all()
    assert demodulation(weight, torch.zeros(3, 5)).isfinite().all()


@pytest.mark.parametrize("upsample", [False, True])
def test_bias_and_noise_are_added_after_demodulation_and_gain_after_both(upsample):
    x, weight, style = styled_input()
    plain = modulated_conv2d(x, weight, style, upsample=upsample)
    bias, noise = torch.randn(4), torch.randn(len(x), 1, *plain.shape[2:])
    given = modulated_conv2d(x, weight, style, bias=bias, noise=noise, gain=1.7, upsample=upsample)
    close(given, 1.7 * (plain + bias[:, None, None] + noise))


def test_a_gain_that_the_input_already_has_is_undone():
    x, weight, style = styled_input()
    bias = torch.randn(4)
    scaled = modulated_conv2d(3 * x, weight, style, bias=bias, x_gain=3.0)
    close(scaled, modulated_conv2d(x, weight, style, bias=bias))


def test_styles_and_demodulation_stay_in_float32_under_autocast():
    x, weight, style = styled_input(i=64, o=64)
    exact = modulated_conv2d(x, weight, style)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = modulated_conv2d(x, weight, style)
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() < 5e-3 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("limit", [256.0, 256 * 0.5**0.5])  # bfloat16 rounds the second one down
def test_the_bounded_leaky_relu_is_a_clamped_leaky_relu_and_so_is_its_gradient(dtype, limit):
    x = (1.5 * limit * torch.randn(4, 3, 5, 5)).to(dtype)
    weights = torch.randn_like(x)
    plainly = lambda x: F.hardtanh(F.leaky_relu(x, LEAKY_SLOPE), -limit, limit)
    found = []
    for function in (lambda x: bounded_leaky_relu_(x * 1, limit), plainly):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        (y * weights).sum().backward()
        found.append((y, leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    near = (x.float().abs() - limit).abs() < limit * torch.finfo(dtype).eps  # rounded, a limit meets its neighbours
    assert torch.equal(found[0][1][~near], found[1][1][~near])
    assert found[0][1].eq(0).any(), "nothing was clamped"


def test_fir_kernel_is_the_binomial_filter_with_gain_four():
    close(fir_kernel(torch.zeros(1))[0, 0], binomial())


def test_upsample_equals_zero_insertion_padding_and_filter():
    image = torch.randn(2, 3, 5, 7)
    padded = F.pad(zero_inserted(image), (2, 1, 2, 1))
    expected = F.conv2d(padded, binomial().expand(3, 1, 4, 4), groups=3)
    close(upsample2d(image), expected)


def test_upsample_keeps_a_constant_off_the_border():
    assert upsample2d(torch.ones(1, 1, 4, 4))[:, :, 1:-1, 1:-1].sub(1).abs().max() < 1e-6


@pytest.mark.parametrize("sigma", [0.5, 1.3, 4.0, 32.0])
def test_blur_equals_two_convolutions_with_the_normalised_kernel(sigma):
    images = torch.randn(2, 3, 12, 10)
    radius = math.floor(3 * sigma)
    taps = torch.tensor([2 ** -((x / sigma) ** 2) for x in range(-radius, radius + 1)])
    taps = (taps / taps.sum()).expand(3, 1, -1)
    rows = F.conv2d(images, taps[:, :, None, :], padding=(0, radius), groups=3)
    close(blur(images, sigma), F.conv2d(rows, taps[:, :, :, None], padding=(radius, 0), groups=3))


def test_blur_of_nothing_returns_the_images():
    images = torch.randn(1, 3, 4, 4)
    assert blur(images, 0.0) is images
