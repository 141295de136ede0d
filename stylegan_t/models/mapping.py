"""The mapping: from the latent, and on demand from the text, to the style latents."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stylegan_t.models.layers import EqualLinear
from stylegan_t.models.ops import LEAKY_SLOPE, full_precision, second_moment_norm

W_AVG_DECAY = 0.995


class Mapping(nn.Module):
    """Turns ``z`` into the style latent; the text embedding bypasses it (Sauer et al. 2023, section 3.1).

    Args:
        text_bypass: False sends the text through the layers beside ``z``, as a conditional StyleGAN does. The style
            latent is as wide then as otherwise, all of it comes from the layers, and truncation acts on all of it.
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, c_dim: int, num_ws: int, *, text_bypass: bool = True):
        super().__init__()
        width = z_dim if text_bypass else z_dim + c_dim
        self.fc0 = EqualLinear(width, width, lr_mul=0.01)
        self.fc1 = EqualLinear(width, width, lr_mul=0.01)
        self.register_buffer("w_avg", torch.zeros(width))
        self.text_bypass = text_bypass
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = z_dim + c_dim
        self.num_ws = num_ws

    def latent(
        self, z: Float[Tensor, "n z_dim"], c: Float[Tensor, "n c_dim"] | None = None
    ) -> Float[Tensor, "n x_dim"]:
        """The part of ``w`` that comes from the layers, before truncation; ``c`` counts if it does not bypass them."""
        with full_precision(z):
            x = second_moment_norm(z.float())
            if not self.text_bypass:
                x = self._beside(x, c)
            return self.fc1(F.leaky_relu(self.fc0(x), LEAKY_SLOPE) * 2**0.5)

    def _beside(self, x: Float[Tensor, "n x_dim"], c: Float[Tensor, "n c_dim"] | None) -> Float[Tensor, "n w_dim"]:
        """``x`` and the text embedding, which is taken as given, side by side."""
        if not self.c_dim:
            return x
        if c is None:
            raise ValueError(f"this generator was built with c_dim = {self.c_dim}: pass text embeddings c")
        return torch.cat([x, c.to(x.dtype)], dim=1)

    @torch.no_grad()
    def follow(self, mean: Float[Tensor, " x_dim"]) -> None:
        """Move the running mean of the latents one step towards ``mean``, that of a forward pass.

        Where a forward pass is split into micro-batches or over devices, call this once with the mean over the
        *global* batch and pass ``track=False`` to the parts: then neither changes the result.
        """
        self.w_avg.lerp_(mean, 1 - W_AVG_DECAY)

    def forward(
        self,
        z: Float[Tensor, "n z_dim"],
        c: Float[Tensor, "n c_dim"] | None = None,
        psi: float = 1.0,
        track: bool | None = None,
    ) -> Float[Tensor, "n num_ws w_dim"]:
        """One style latent per style layer, all equal.

        Args:
            z: Latent noise.
            c: Text embeddings, used as given; ignored by a generator without text.
            psi: Truncation of the part that comes from the layers: 1 none, 0 the mean.
            track: Whether ``w_avg`` follows this batch; by default while training.
        """
        x = self.latent(z, c)
        if self.training if track is None else track:
            self.follow(x.detach().mean(dim=0))
        if psi != 1:
            x = torch.lerp(self.w_avg, x, psi)
        if self.text_bypass:
            x = self._beside(x, c)
        return x[:, None].expand(-1, self.num_ws, -1)
