"""The generator: a latent and a text embedding in, a picture out, in one pass."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stylegan_t.models.layers import FourierInput, ResidualLayer, StyledConv, ToRGB
from stylegan_t.models.mapping import Mapping
from stylegan_t.models.ops import upsample2d

Noise = Literal["random", "const", "none"] | Sequence[Tensor]
FIRST_RESOLUTION = 8
CHANNEL_MULTIPLE = 32
PAIR_GAIN = 0.5**0.5


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Width of the layers at one resolution."""
    return min(channel_base // resolution, channel_max)


def block_resolutions(resolution: int) -> list[int]:
    """Sides of the blocks on the way up to ``resolution``: 8, 16, …

    Raises:
        ValueError: ``resolution`` is not a power of two, or smaller than the first block.
    """
    if resolution < FIRST_RESOLUTION or resolution & (resolution - 1):
        raise ValueError(
            f"resolution = {resolution}: the generator doubles its side from {FIRST_RESOLUTION} px on; "
            f"use a power of two of at least {FIRST_RESOLUTION}"
        )
    return [2**k for k in range(FIRST_RESOLUTION.bit_length() - 1, resolution.bit_length())]


def check_channels(resolution: int, channel_base: int, channel_max: int) -> None:
    """Raise ValueError if a resolution's channels do not fall into the group norm's groups."""
    for side in block_resolutions(resolution):
        channels = channels_at(side, channel_base, channel_max)
        if channels < CHANNEL_MULTIPLE or channels % CHANNEL_MULTIPLE:
            raise ValueError(
                f"channel_base = {channel_base}, channel_max = {channel_max} give "
                f"min({channel_base} // {side}, {channel_max}) = {channels} channels at {side} px: "
                f"the group norm needs a multiple of {CHANNEL_MULTIPLE}; "
                f"make channel_max a multiple of {CHANNEL_MULTIPLE} and channel_base "
                f"a multiple of {CHANNEL_MULTIPLE} * {resolution} = {CHANNEL_MULTIPLE * resolution}"
            )


def layer_pair(
    w_dim: int, channels: int, size: int, *, residual: bool, second_order_styles: bool
) -> tuple[StyledConv, StyledConv | ResidualLayer]:
    """A plain layer and a residual one, or two plain ones.

    The residual layer's group norm restores the scale that the extra gain takes away. Two plain layers have no such
    norm, and layer upon layer would fade: like the up-sampling layer they have no extra gain, and keep the variance.
    """
    gain = PAIR_GAIN if residual else 1.0
    first = StyledConv(w_dim, channels, channels, size, extra_gain=gain, second_order_styles=second_order_styles)
    if residual:
        return first, ResidualLayer(w_dim, channels, size, extra_gain=gain, second_order_styles=second_order_styles)
    return first, StyledConv(w_dim, channels, channels, size, extra_gain=gain, second_order_styles=second_order_styles)


class SynthesisBlock(nn.Module):
    """The layers of one resolution, and their share of the picture."""

    def __init__(
        self,
        w_dim: int,
        in_channels: int | None,
        channels: int,
        resolution: int,
        num_res_blocks: int,
        *,
        residual: bool,
        second_order_styles: bool,
    ):
        super().__init__()
        order = second_order_styles
        layers: list[nn.Module] = []
        if in_channels is not None:
            up = StyledConv(w_dim, in_channels, channels, resolution, upsample=True, second_order_styles=order)
            layers.append(up)
        for _ in range(num_res_blocks):
            layers.extend(layer_pair(w_dim, channels, resolution, residual=residual, second_order_styles=order))
        self.layers = nn.ModuleList(layers)
        self.to_rgb = ToRGB(w_dim, channels, second_order_styles=order)

    def forward(
        self,
        x: Float[Tensor, "n c_in h_in w_in"],
        image: Float[Tensor, "n 3 h_in w_in"] | None,
        ws: Float[Tensor, "n layers_and_rgb w_dim"],
        noises: Sequence[Tensor | None],
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n 3 h w"]]:
        *layer_ws, rgb_w = ws.unbind(dim=1)
        for layer, w, noise in zip(self.layers, layer_ws, noises, strict=True):
            x = layer(x, w, noise)
        rgb = self.to_rgb(x, rgb_w)
        return x, rgb if image is None else upsample2d(image) + rgb


class Synthesis(nn.Module):
    """Turns style latents into a picture, from 8 px up; each block adds its RGB to the up-sampled sum."""

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        channel_base: int,
        channel_max: int,
        num_res_blocks: int,
        *,
        residual: bool,
        second_order_styles: bool,
    ):
        super().__init__()
        self.resolutions = block_resolutions(resolution)
        widths = [channels_at(side, channel_base, channel_max) for side in self.resolutions]
        self.input = FourierInput(w_dim, widths[0], size=FIRST_RESOLUTION)
        self.blocks = nn.ModuleDict()
        for i, side in enumerate(self.resolutions):
            before = widths[i - 1] if i else None
            self.blocks[str(side)] = SynthesisBlock(
                w_dim,
                before,
                widths[i],
                side,
                num_res_blocks,
                residual=residual,
                second_order_styles=second_order_styles,
            )
        self.noise_shapes = [(layer.size, layer.size) for layer in self._layers()]
        self.num_ws = 1 + len(self.noise_shapes) + 1

    def block(self, side: int) -> SynthesisBlock:
        """The block that paints at ``side`` pixels."""
        return cast(SynthesisBlock, self.blocks[str(side)])

    def _layers(self) -> list[StyledConv | ResidualLayer]:
        layers = [layer for side in self.resolutions for layer in self.block(side).layers]
        return cast(list[StyledConv | ResidualLayer], layers)

    def _noises(self, noise: Noise, ws: Tensor) -> list[Tensor | None]:
        """The noise image of every layer, or None where there is none."""
        if not isinstance(noise, str):
            if len(noise) != len(self.noise_shapes):
                raise ValueError(f"{len(noise)} noise images for {len(self.noise_shapes)} layers: give one per layer")
            return list(noise)
        if noise == "none":
            return [None] * len(self.noise_shapes)
        if noise == "const":
            return [layer.noise_const[None, None] for layer in self._layers()]
        if noise == "random":
            return [torch.randn(len(ws), 1, *shape, device=ws.device) for shape in self.noise_shapes]
        raise ValueError(f'noise = "{noise}": use "random", "const", "none", or one tensor per layer')

    def forward(self, ws: Float[Tensor, "n num_ws w_dim"], noise: Noise = "random") -> Float[Tensor, "n 3 h w"]:
        """The picture that the style latents describe.

        Args:
            ws: One style latent per style layer; they may differ.
            noise: "random" draws from torch's generator, "const" uses the stored images, "none" adds none; or
                one (n, 1, h, w) per entry of ``noise_shapes``.
        """
        noises = self._noises(noise, ws)
        x, image = self.input(ws[:, 0]), None
        first = 1
        for block in map(self.block, self.resolutions):
            last = first + len(block.layers)  # to_rgb reads this one, and so does the next block's first layer
            x, image = block(x, image, ws[:, first : last + 1], noises[first - 1 : last - 1])
            first = last
        assert image is not None
        return image


class Generator(nn.Module):
    """A latent and a text embedding in, a picture of about [-1, 1] out (Sauer et al. 2023, arXiv:2301.09515).

    Args:
        resolution: Side of the picture in pixels, a power of two.
        z_dim: Width of the latent.
        c_dim: Width of the text embedding; 0 builds a generator without text.
        channel_base: Channels times resolution, until ``channel_max`` caps the channels.
        channel_max: The most channels that a layer has.
        num_res_blocks: Pairs of a plain and a residual layer per resolution.
        residual: False makes the residual layers plain ones too: no group norm, no skip, no layer scale.
        second_order_styles: False makes every style an affine function of ``w``.
        text_bypass: False sends the text through the mapping.

    The last three turn one of the paper's redesigns off each, to see what it is good for (section 3.1).
    """

    def __init__(
        self,
        *,
        resolution: int,
        z_dim: int,
        c_dim: int,
        channel_base: int,
        channel_max: int,
        num_res_blocks: int,
        residual: bool = True,
        second_order_styles: bool = True,
        text_bypass: bool = True,
    ):
        super().__init__()
        check_channels(resolution, channel_base, channel_max)
        self.resolution = resolution
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.channel_base = channel_base
        self.channel_max = channel_max
        self.num_res_blocks = num_res_blocks
        self.residual = residual
        self.second_order_styles = second_order_styles
        self.text_bypass = text_bypass
        self.synthesis = Synthesis(
            z_dim + c_dim,
            resolution,
            channel_base,
            channel_max,
            num_res_blocks,
            residual=residual,
            second_order_styles=second_order_styles,
        )
        self.mapping = Mapping(z_dim, c_dim, self.num_ws, text_bypass=text_bypass)

    @property
    def arguments(self) -> dict[str, Any]:
        """What builds another generator of the same architecture."""
        return {
            "resolution": self.resolution,
            "z_dim": self.z_dim,
            "c_dim": self.c_dim,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "num_res_blocks": self.num_res_blocks,
            "residual": self.residual,
            "second_order_styles": self.second_order_styles,
            "text_bypass": self.text_bypass,
        }

    @property
    def num_ws(self) -> int:
        return self.synthesis.num_ws

    def forward(
        self,
        z: Float[Tensor, "n z_dim"],
        c: Float[Tensor, "n c_dim"] | None = None,
        psi: float = 1.0,
        noise: Noise = "random",
        track: bool | None = None,
    ) -> Float[Tensor, "n 3 h w"]:
        """The pictures of ``z`` and ``c``; the arguments are those of the mapping and of the synthesis."""
        return self.synthesis(self.mapping(z, c, psi, track), noise)


def resized(generator: Generator, resolution: int) -> Generator:
    """The same generator at another resolution: with further blocks on top, or without its last ones.

    Parameters and buffers are copied. New blocks' RGB starts at zero, so that the larger generator begins by painting
    the old picture, up-sampled, and training continues from what was learnt instead of from noise. The smaller one
    paints what the larger one's lower blocks had summed up.

    Args:
        generator: Stays as it is.
        resolution: Side of the new picture in pixels.
    """
    other = Generator(**{**generator.arguments, "resolution": resolution})
    new = other.state_dict()
    other.load_state_dict({**new, **{name: value for name, value in generator.state_dict().items() if name in new}})
    with torch.no_grad():
        for side in other.synthesis.resolutions[len(generator.synthesis.resolutions) :]:
            other.synthesis.block(side).to_rgb.weight.zero_()  # its bias starts there anyway
    return other.to(generator.mapping.w_avg.device).train(generator.training)
