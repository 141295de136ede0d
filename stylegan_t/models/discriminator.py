"""The discriminator: trained heads on the token maps of a frozen vision transformer."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stylegan_t.models.layers import EqualLinear
from stylegan_t.models.ops import LEAKY_SLOPE, full_precision
from stylegan_t.models.vit import FrozenViT, Tokens

NORM_GROUP = 8
C_MAP_DIM = 64

Estimate = tuple[Tensor, Tensor]
"""The singular vectors (u, v) of one spectral norm, as some power iteration left them."""


class SpectralConv1d(nn.Module):
    """A circular 1-d convolution whose kernel is divided by its largest singular value, as last estimated.

    That bounds how fast the logits can change with the tokens (Miyato et al. 2018, arXiv:1802.05957). The
    estimate takes ``v`` first, then ``u``; torch's own parametrisation takes them the other way round, so its
    numbers differ.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        bound = 1 / math.sqrt(in_channels * kernel_size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(in_channels * kernel_size), dim=0))
        self.kernel_size = kernel_size

    @torch.no_grad()
    def iterate(self) -> None:
        """One power iteration towards the largest singular value.

        It makes new tensors, so that the graphs of earlier calls stay valid.
        """
        with full_precision(self.weight):
            matrix = self.weight.flatten(1)
            self.v = F.normalize(matrix.T @ self.u, dim=0, eps=1e-12)
            self.u = F.normalize(matrix @ self.v, dim=0, eps=1e-12)

    def normalised_weight(self, estimate: Estimate | None = None) -> Float[Tensor, "o i k"]:
        """The kernel over its largest singular value, by the latest estimate unless another is given.

        Gradients flow through the kernel alone.
        """
        u, v = estimate or (self.u, self.v)
        with full_precision(self.weight):
            return self.weight / torch.dot(u, torch.mv(self.weight.flatten(1), v))

    def forward(self, x: Float[Tensor, "n i tokens"], estimate: Estimate | None = None) -> Float[Tensor, "n o tokens"]:
        if self.kernel_size > 1:
            half = self.kernel_size // 2
            x = F.pad(x, (half, half), mode="circular")
        return F.conv1d(x, self.normalised_weight(estimate), self.bias)


class LocalBatchNorm(nn.Module):
    """Normalises each channel over runs of 8 images and all their tokens, without running statistics.

    Runs of a fixed size make the result independent of the batch size and of the number of devices. Fewer
    images than one run are a run of their own. Statistics and result are float32, also under autocast.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "n c tokens"]) -> Float[Tensor, "n c tokens"]:
        with full_precision(x):
            return self._normalise(x.float())

    def _normalise(self, x: Float[Tensor, "n c tokens"]) -> Float[Tensor, "n c tokens"]:
        n, c, tokens = x.shape
        if n <= NORM_GROUP:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=1e-5)
        if n % NORM_GROUP:
            raise ValueError(
                f"a batch of {n} images does not split into groups of {NORM_GROUP} for the local batch norm; "
                f"use {n - n % NORM_GROUP} or {n - n % NORM_GROUP + NORM_GROUP}"
            )
        groups = n // NORM_GROUP
        x = x.view(groups, NORM_GROUP, c, tokens).transpose(0, 1).reshape(NORM_GROUP, groups * c, tokens)
        weight, bias = self.weight.repeat(groups), self.bias.repeat(groups)
        x = F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5)
        return x.view(NORM_GROUP, groups, c, tokens).transpose(0, 1).reshape(n, c, tokens)


class HeadBlock(nn.Module):
    """Spectral-norm convolution over the tokens, local batch norm (or nothing in its place), leaky ReLU."""

    def __init__(self, channels: int, kernel_size: int, *, local_batch_norm: bool = True):
        super().__init__()
        self.conv = SpectralConv1d(channels, channels, kernel_size)
        self.norm = LocalBatchNorm(channels) if local_batch_norm else nn.Identity()

    def forward(self, x: Float[Tensor, "n c tokens"], estimate: Estimate | None = None) -> Float[Tensor, "n c tokens"]:
        return F.leaky_relu(self.norm(self.conv(x, estimate)), LEAKY_SLOPE)


class Head(nn.Module):
    """One logit per token: a projection discriminator (Miyato & Koyama 2018, arXiv:1802.05637)."""

    def __init__(self, width: int, c_dim: int, kernel_size: int, *, local_batch_norm: bool = True):
        super().__init__()
        self.point = HeadBlock(width, 1, local_batch_norm=local_batch_norm)
        self.context = HeadBlock(width, kernel_size, local_batch_norm=local_batch_norm)
        self.project = SpectralConv1d(width, C_MAP_DIM if c_dim else 1, 1)
        self.c_map = EqualLinear(c_dim, C_MAP_DIM) if c_dim else None

    def estimates(self) -> tuple[Estimate, Estimate, Estimate]:
        """The latest ones of its spectral norms, in the order in which they are met."""
        point, context, project = self.point.conv, self.context.conv, self.project
        return (point.u, point.v), (context.u, context.v), (project.u, project.v)

    def forward(
        self,
        tokens: Float[Tensor, "n t width"],
        c: Float[Tensor, "n c"] | None,
        estimates: tuple[Estimate, Estimate, Estimate] | None = None,
    ) -> Float[Tensor, "n t"]:
        of_point, of_context, of_project = estimates or (None, None, None)
        x = self.point(tokens.transpose(1, 2), of_point)
        x = (self.context(x, of_context) + x) * 0.5**0.5
        with full_precision(x):
            return self._logits(x.float(), c, of_project)  # without the local batch norm, autocast's type comes here

    def _logits(
        self, x: Float[Tensor, "n width t"], c: Float[Tensor, "n c"] | None, of_project: Estimate | None
    ) -> Float[Tensor, "n t"]:
        if self.c_map is None:
            return self.project(x, of_project).squeeze(1)
        if c is None:
            raise ValueError(f"this head was built with c_dim = {self.c_map.weight.shape[1]}: pass text embeddings c")
        # (project(x) * c_map(c)).sum(channels), with the two products taken in the cheaper order.
        mapped = self.c_map(c.float()) / math.sqrt(C_MAP_DIM)
        kernels = mapped @ self.project.normalised_weight(of_project).squeeze(2)
        return torch.bmm(kernels[:, None], x).squeeze(1) + (mapped @ self.project.bias)[:, None]


def has_local_batch_norm(heads: Mapping[str, Tensor]) -> bool:
    """Whether saved heads were built with a local batch norm: only then has it weights."""
    return any(name.endswith(".norm.weight") for name in heads)


Estimates = list[tuple[Estimate, Estimate, Estimate]]
"""Of all heads."""


class Discriminator(nn.Module):
    """Judges images by heads on a frozen transformer's features; only ``heads`` is trained and saved.

    Features that already know images give the heads a head start and a multi-scale view without a
    discriminator of the generator's size (Sauer et al. 2023, arXiv:2301.09515, section 3.2).

    Args:
        vit: The feature network; may be shared with the CLIP guidance.
        c_dim: Width of the text embedding; 0 judges images alone.
        kernel_size: Tokens that a head's second convolution spans; odd.
        local_batch_norm: False leaves the heads no normalisation but the spectral norm: each image is judged alone.
    """

    def __init__(self, vit: FrozenViT, c_dim: int, *, kernel_size: int = 9, local_batch_norm: bool = True):
        super().__init__()
        self.vit = vit
        self.c_dim = c_dim
        self.local_batch_norm = local_batch_norm
        heads = [Head(vit.width, c_dim, kernel_size, local_batch_norm=local_batch_norm) for _ in range(vit.num_taps)]
        self.heads = nn.ModuleList(heads)

    def trainable_state(self) -> dict[str, Tensor]:
        """What to save: the heads' weights and spectral-norm vectors."""
        return self.heads.state_dict()

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Take over the heads of a discriminator of the same shape; a missing or unknown name is an error."""
        self.heads.load_state_dict(state)

    def power_iteration(self) -> Estimates:
        """One step of every spectral norm's estimate: once per phase, whatever it is split into.

        The weights do not change between the phases of one update, so that the estimates of several phases may be
        made ahead; each phase's calls of ``judge`` are then given theirs.
        """
        for module in self.heads.modules():
            if isinstance(module, SpectralConv1d):
                module.iterate()
        return [head.estimates() for head in self.heads]  # pyright: ignore[reportCallIssue]

    def tokens(self, images: Float[Tensor, "n 3 h w"]) -> Tokens:
        """The token maps of images in [-1, 1] that ``judge`` reads: one per hooked block, then the embedded patches."""
        return self.vit(images)[0]

    def judge(
        self, tokens: Tokens, c: Float[Tensor, "n c"] | None = None, estimates: Estimates | None = None
    ) -> Float[Tensor, "n all_tokens"]:
        """One logit per token and map, concatenated, in float32; high means real.

        Args:
            tokens: From ``tokens``, or from the shared transformer's own pass.
            c: Text embeddings; ignored by a discriminator without text.
            estimates: The spectral norms to divide by; by default the latest, one power iteration further while
                training.
        """
        if estimates is None and self.training:
            estimates = self.power_iteration()
        each = estimates or [None] * len(self.heads)
        logits = [head(x, c, estimate) for head, x, estimate in zip(self.heads, tokens, each, strict=True)]
        return torch.cat(logits, dim=1)

    def forward(
        self, images: Float[Tensor, "n 3 h w"], c: Float[Tensor, "n c"] | None = None
    ) -> Float[Tensor, "n all_tokens"]:
        """The logits of images in [-1, 1], without augmentation."""
        return self.judge(self.tokens(images), c)
