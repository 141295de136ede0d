"""Formulas on tensors that the networks are made of."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

LEAKY_SLOPE = 0.2


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which operations on ``x``'s device keep float32 inputs in float32.

    Styles, demodulation and the RGB sum lose too much in bfloat16; everything else may run under the caller's
    autocast.
    """
    return torch.autocast(device_type=x.device.type, enabled=False)


def working_dtype(x: Tensor) -> torch.dtype:
    """The precision of a convolution of ``x`` here: the autocast's where there is one, else that of ``x``.

    Casting before the passes around a convolution, and not inside it, halves what they move.
    """
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def second_moment_norm(x: Float[Tensor, "n d"], eps: float = 1e-8) -> Float[Tensor, "n d"]:
    """Scale each row to a mean square of one, so that only its direction carries information."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def fir_kernel(like: Tensor) -> Float[Tensor, "1 1 4 4"]:
    """The separable filter [1, 3, 3, 1] with the gain of a twofold up-sampling: its entries sum to four."""
    taps = 1 - 0.5 * (torch.arange(4, device=like.device, dtype=like.dtype) - 1.5).abs()
    return torch.outer(taps, taps)[None, None]


def upsample2d(image: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Enlarge twofold by inserting zeros and filtering with [1, 3, 3, 1]; a constant stays off the border.

    One transposed convolution does both: the zero follows each pixel, with two zeros before the image and one
    after (Karras et al. 2020, arXiv:1912.04958, section 4.1, output skips).
    """
    channels = image.shape[1]
    kernel = fir_kernel(image).expand(channels, 1, 4, 4)
    with full_precision(image):
        return F.conv_transpose2d(image, kernel, stride=2, padding=1, groups=channels)


def demodulation(
    weight: Float[Tensor, "o i k k"], style: Float[Tensor, "n i"], eps: float = 1e-8
) -> Float[Tensor, "n o"]:
    """One factor per image and output channel that undoes what the styled kernel does to the variance.

    The norms of the styled kernels follow from one matrix product, without building a kernel per image
    (Karras et al. 2020, arXiv:1912.04958, eq. 3).
    """
    energy_no = style.square() @ weight.square().sum(dim=(2, 3)).T
    return (energy_no + eps).rsqrt()


def swapped(weight: Float[Tensor, "o i k k"]) -> Float[Tensor, "i o k k"]:
    """The kernel of the transposed convolution, in a layout that the CPU's is fast on: a mere view is not."""
    channels_last = weight.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return weight.transpose(0, 1).contiguous(memory_format=layout)


def modulated_conv2d(
    x: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i k k"],
    style: Float[Tensor, "n i"],
    *,
    bias: Float[Tensor, "o"] | None = None,
    noise: Float[Tensor, "#n 1 h2 w2"] | None = None,
    gain: float = 1.0,
    x_gain: float = 1.0,
    upsample: bool = False,
) -> Float[Tensor, "n o h2 w2"]:
    """Convolve each image with its own restyled, demodulated copy of one kernel, then add and scale.

    ``style`` scales the kernel's input channels, one scale per image. Demodulation then divides every output
    channel by the norm of the kernel that produced it, so white noise of unit variance comes out with unit
    variance and only the style's *direction* matters (Karras et al. 2020, arXiv:1912.04958, eqs. 1-3).

    Scaling the input instead of the kernel, and the output instead of the norm, gives the same result with
    one convolution for the whole batch; the gains ride on the second scaling and cost no pass over memory.

    Under autocast the convolution and the passes around it run in the lower precision; the factors are
    computed in float32.

    Args:
        x: Activations of any scale.
        weight: The shared kernel; ``k`` is odd.
        style: Scale of each input channel; 1 leaves the kernel as it is.
        bias: Added after demodulation (and after the filter, when up-sampling).
        noise: Added likewise; the same for every channel.
        gain: Multiplies everything, bias and noise included.
        x_gain: What ``x`` has been multiplied by already; undone here.
        upsample: Double the side: a strided transposed convolution of the same kernel, then the filter [1, 3,
            3, 1].
    """
    with full_precision(x):
        scale = gain / x_gain * demodulation(weight.float(), style.float())
    x = x.to(working_dtype(x))
    x = x * style.to(x.dtype)[:, :, None, None]
    if upsample:
        y = F.conv_transpose2d(x, swapped(weight), stride=2)
        channels = y.shape[1]
        y = F.conv2d(y, fir_kernel(y).expand(channels, 1, 4, 4), padding=1, groups=channels)
    else:
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    # A product and sums in place: addcmul would save a pass here and cost two in its gradient.
    y = y * scale.to(y.dtype)[:, :, None, None]
    if bias is not None:
        y = y.add_((gain * bias).to(y.dtype)[:, None, None])
    return y if noise is None else y.add_((gain * noise).to(y.dtype))


def as_clamped(limit: float, dtype: torch.dtype) -> float:
    """The least magnitude that tells a value clamped to ``limit``: in ``dtype``, the limit may be rounded down."""
    return limit * (1 - torch.finfo(dtype).eps / 2)


class _BoundedLeakyReLU(torch.autograd.Function):
    """In place, and remembering its result only: as two modules' worth of operations it would keep two copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float) -> Tensor:
        ctx.mark_dirty(x)
        ctx.limit = limit
        y = F.leaky_relu(x, LEAKY_SLOPE, inplace=True).clamp_(-limit, limit)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        reached = as_clamped(ctx.limit, y.dtype)
        grad = torch.ops.aten.hardtanh_backward(grad, y, -reached, reached)
        torch.ops.aten.leaky_relu_backward.grad_input(grad, y, LEAKY_SLOPE, True, grad_input=grad)
        return grad, None


def bounded_leaky_relu_(x: Float[Tensor, "*shape"], limit: float) -> Float[Tensor, "*shape"]:
    """Leaky ReLU, then a clamp to ``[-limit, limit]``, in place; its gradient exists once, not twice."""
    return _BoundedLeakyReLU.apply(x, limit)


def blur(images: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """The images through the kernel ``2^-(x/sigma)²`` over three sigma, normalised; zeros around them.

    Hiding detail from a young discriminator keeps it from winning by pixel noise (Karras et al. 2021,
    arXiv:2106.12423). Written as one matrix per side, so a kernel wider than the image costs
    nothing extra.

    Args:
        sigma: Half-width at half maximum, in pixels; below a third of a pixel the images come back as they
            are.
    """
    if math.floor(3 * sigma) == 0:
        return images
    h, w = images.shape[2:]
    return _blur_matrix(h, sigma, images) @ images @ _blur_matrix(w, sigma, images)


def _blur_matrix(side: int, sigma: float, like: Tensor) -> Float[Tensor, "side side"]:
    """The symmetric matrix that filters one side; a row at the border sums to less than one."""
    radius = math.floor(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)
    total = torch.exp2(-(offsets / sigma).square()).sum()
    position = torch.arange(side, device=like.device, dtype=like.dtype)
    distance = (position[:, None] - position[None, :]).abs()
    return torch.where(distance <= radius, torch.exp2(-(distance / sigma).square()), 0.0) / total
