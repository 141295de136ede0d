"""The generator's layers, each reading one style latent ``w``."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stylegan_t.models.ops import bounded_leaky_relu_, full_precision, modulated_conv2d

CLAMP = 256.0
NORM_GROUPS = 32
LAYER_SCALE_INIT = 1e-5


class EqualLinear(nn.Module):
    """A linear layer whose stored weights all have unit scale, so that one learning rate suits every layer.

    The scale that initialisation would give is applied at run time instead; ``lr_mul`` below one slows the
    layer's learning without changing what it starts from (Karras et al. 2018, arXiv:1710.10196, section 4.1).
    """

    def __init__(self, in_features: int, out_features: int, *, lr_mul: float = 1.0, bias_init: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_mul))
        self.lr_mul = lr_mul

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        scale = self.lr_mul / math.sqrt(x.shape[1])
        bias = self.bias if self.lr_mul == 1 else self.bias * self.lr_mul
        return F.linear(x * scale, self.weight, bias)


class SecondOrderStyle(nn.Module):
    """A scale per channel that is a second-order polynomial of ``w``: ``s1 * s2 + s3``.

    Products let one layer react to conjunctions ("red" *and* "cube") without a deeper mapping
    (Sauer et al. 2023, arXiv:2301.09515, section 3.1).
    """

    def __init__(self, w_dim: int, channels: int):
        super().__init__()
        self.linear = EqualLinear(w_dim, 3 * channels, bias_init=1.0)

    def forward(self, w: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n channels"]:
        with full_precision(w):
            s1, s2, s3 = self.linear(w.float()).chunk(3, dim=1)
            return torch.addcmul(s3, s1, s2)


class AffineStyle(nn.Module):
    """A scale per channel that is an affine function of ``w``, as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958).

    What the second-order style is compared with.
    """

    def __init__(self, w_dim: int, channels: int):
        super().__init__()
        self.linear = EqualLinear(w_dim, channels, bias_init=1.0)

    def forward(self, w: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n channels"]:
        with full_precision(w):
            return self.linear(w.float())


def new_style(w_dim: int, channels: int, second_order_styles: bool) -> SecondOrderStyle | AffineStyle:
    """The layer that turns ``w`` into a scale per channel, of the second order or of the first."""
    return SecondOrderStyle(w_dim, channels) if second_order_styles else AffineStyle(w_dim, channels)


class FourierInput(nn.Module):
    """The first feature map: random sinusoids, moved and turned by ``w``, mixed by a trainable matrix.

    A continuous input instead of a learned constant keeps detail from sticking to pixel coordinates (Karras
    et al. 2021, arXiv:2106.12423; used by Sauer et al. 2023, section 3.1).
    """

    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, channels: int, *, size: int = 8, bandwidth: float = 2.0):
        super().__init__()
        freqs = torch.randn(channels, 2)
        radius = freqs.square().sum(dim=1, keepdim=True).sqrt()
        self.register_buffer("freqs", freqs / (radius * radius.square().exp().pow(0.25)) * bandwidth)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = EqualLinear(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias[0] = 1.0
        self.size = size
        self.bandwidth = bandwidth

    def forward(self, w: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n channels size size"]:
        with full_precision(w):
            pose = self.affine(w.float())
            pose = pose / pose[:, :2].norm(dim=1, keepdim=True)
            cos, sin, shift = pose[:, 0:1], pose[:, 1:2], pose[:, 2:]
            f_x, f_y = self.freqs.unbind(dim=1)
            freqs = torch.stack([f_x * cos + f_y * sin, f_y * cos - f_x * sin], dim=2)  # f' = f R
            phases = self.phases - (freqs @ shift[:, :, None]).squeeze(2)  # phase' = phase - f' t
            centres = (torch.arange(self.size, device=w.device) + 0.5) / self.size - 0.5
            along_x = freqs[:, :, 0, None, None] * centres
            along_y = freqs[:, :, 1, None, None] * centres[:, None] + phases[:, :, None, None]
            waves = torch.sin(2 * math.pi * (along_x + along_y)) * self.damping()[:, None, None]
            mixed = (self.weight / math.sqrt(len(self.weight))) @ waves.flatten(2)
            return mixed.unflatten(2, (self.size, self.size))

    def damping(self) -> Float[Tensor, "channels"]:
        """Fades out what the sampling rate cannot carry; turning a frequency does not change its length."""
        excess = self.freqs.norm(dim=1) - self.bandwidth
        return (1 - excess / (self.size / 2 - self.bandwidth)).clamp(0, 1)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU, clamp (Karras et al. 2020, arXiv:1912.04958).

    Args:
        size: Side of the output, which is twice the input's when ``upsample``.
        extra_gain: On top of the leaky ReLU's own ``sqrt(2)``; scales the clamp as well.
        second_order_styles: Whether the style is a second-order polynomial of ``w`` or an affine function.

    ``forward`` takes ``x_gain``, what its input has been multiplied by already, and undoes it.
    """

    noise_const: Tensor

    def __init__(
        self,
        w_dim: int,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        upsample: bool = False,
        extra_gain: float = 1.0,
        second_order_styles: bool = True,
    ):
        super().__init__()
        self.style = new_style(w_dim, in_channels, second_order_styles)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.size = size
        self.upsample = upsample
        self.extra_gain = extra_gain

    def forward(
        self,
        x: Float[Tensor, "n in_channels h w"],
        w: Float[Tensor, "n w_dim"],
        noise: Float[Tensor, "#n 1 h2 w2"] | None,
        x_gain: float = 1.0,
    ) -> Float[Tensor, "n out_channels h2 w2"]:
        # The leaky ReLU passes a positive gain through, so the gain is applied before it, where it is free.
        y = modulated_conv2d(
            x,
            self.weight,
            self.style(w),
            bias=self.bias,
            noise=None if noise is None else noise * self.noise_strength,
            gain=math.sqrt(2) * self.extra_gain,
            x_gain=x_gain,
            upsample=self.upsample,
        )
        return bounded_leaky_relu_(y, CLAMP * self.extra_gain)


class ResidualLayer(nn.Module):
    """A styled convolution beside a skip of the *normalised* input; ``layer_scale`` lets it in slowly.

    Starting as an (almost) identity is what makes many such layers trainable (Sauer et al. 2023,
    arXiv:2301.09515, section 3.1; layer scale: Touvron et al. 2021, arXiv:2103.17239).
    """

    def __init__(
        self, w_dim: int, channels: int, size: int, *, extra_gain: float = 1.0, second_order_styles: bool = True
    ):
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-5)
        self.layer = StyledConv(
            w_dim, channels, channels, size, extra_gain=extra_gain, second_order_styles=second_order_styles
        )
        self.layer_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE_INIT))

    @property
    def size(self) -> int:
        return self.layer.size

    @property
    def noise_const(self) -> Float[Tensor, "size size"]:
        return self.layer.noise_const

    def forward(
        self,
        x: Float[Tensor, "n channels h w"],
        w: Float[Tensor, "n w_dim"],
        noise: Float[Tensor, "#n 1 h w"] | None,
    ) -> Float[Tensor, "n channels h w"]:
        gain = math.sqrt(2)
        norm = self.norm
        with full_precision(x):  # the gain of the sum rides on the norm's scale and on the layer's
            x = F.group_norm(x.float(), norm.num_groups, gain * norm.weight, gain * norm.bias, norm.eps)
        y = self.layer(x, w, noise, x_gain=gain)
        return (y * (gain * self.layer_scale)[:, None, None]).add_(x)


class ToRGB(nn.Module):
    """One block's share of the picture: a modulated 1x1 convolution without demodulation, clamped.

    Its magnitude carries meaning, hence no demodulation. Three outputs make a kernel per image cheaper than a
    pass over the activations, and float32 throughout makes it exact.
    """

    def __init__(self, w_dim: int, in_channels: int, *, second_order_styles: bool = True):
        super().__init__()
        self.style = new_style(w_dim, in_channels, second_order_styles)
        self.weight = nn.Parameter(0.1 * torch.randn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Float[Tensor, "n c h w"], w: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n 3 h w"]:
        style = self.style(w) / math.sqrt(x.shape[1])
        with full_precision(x):
            kernels = self.weight[:, :, 0, 0] * style[:, None, :]
            rgb = torch.baddbmm(self.bias[None, :, None], kernels, x.float().flatten(2))
        return rgb.unflatten(2, x.shape[2:]).clamp(-CLAMP, CLAMP)
