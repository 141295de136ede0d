"""Signs of health and of collapse, for the log: nothing here changes the training. docs/training.md says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stylegan_t.models.discriminator import NORM_GROUP
from stylegan_t.models.generator import Generator
from stylegan_t.models.layers import CLAMP, StyledConv
from stylegan_t.models.ops import as_clamped
from stylegan_t.models.vit import Tokens


@torch.no_grad()
def logit_signs(real: Float[Tensor, "n t"], fake: Float[Tensor, "n t"]) -> dict[str, Float[Tensor, ""]]:
    """Shares of logits with the right sign: 1 and 1 is a discriminator that wins, about 0.5 one that guesses."""
    return {"reals_positive": (real > 0).float().mean(), "fakes_negative": (fake < 0).float().mean()}


@torch.no_grad()
def relative_diversity(fakes: Tokens, reals: Tokens) -> Float[Tensor, ""]:
    """How far the fakes differ from each other in the ViT's last features, the reals' own spread being 1.

    A generator that paints one picture for all latents and captions comes to 0.
    """
    return (spread(fakes) / spread(reals).clamp(min=1e-6)).mean()


def spread(tokens: Tokens) -> Float[Tensor, " groups"]:
    """For each group of 8 images, the standard deviation of the last hooked block's mean token.

    The groups are the local batch norm's, so that neither the micro-batch nor the number of devices matters.
    """
    features = tokens[-2].float().mean(dim=1)  # the last map is that of the embedded patches
    groups = features.unflatten(0, (-1, min(NORM_GROUP, len(features))))
    return groups.std(dim=1, correction=0).mean(dim=1)


@torch.no_grad()
def clamped_share(generator: Generator, z: Float[Tensor, "n z_dim"], c: Float[Tensor, "n c_dim"]) -> float:
    """Share of the synthesis's activations that its clamps cut off; more than a few in a thousand is a runaway."""
    shares: list[Tensor] = []
    with _watching(generator, shares):
        generator.forward(z, c, noise="const", track=False)
    return float(torch.stack(shares).mean())


@contextmanager
def _watching(generator: Generator, shares: list[Tensor]) -> Iterator[None]:
    def watch(layer: nn.Module, inputs: object, output: Tensor) -> None:
        assert isinstance(layer, StyledConv)
        limit = CLAMP * layer.extra_gain
        shares.append((output.float().abs() >= as_clamped(limit, output.dtype)).float().mean())

    handles = [m.register_forward_hook(watch) for m in generator.modules() if isinstance(m, StyledConv)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def gradient_norm(parameters: Sequence[nn.Parameter]) -> Float[Tensor, ""]:
    """Length of the gradient over all parameters; not finite where a single number is not."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
