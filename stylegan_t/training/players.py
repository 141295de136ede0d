"""The networks of one training stage, what trains them, and how they grow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam

from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoders import Clip, TextEncoder
from stylegan_t.models.generator import Generator, Noise, grow

BETAS = (0.0, 0.99)


@dataclass
class Players:
    """Generator against discriminator, with the text encoder that feeds the generator.

    Either the generator or the text encoder is trained; the other one is frozen.

    Attributes:
        generator: Paints the fakes.
        averaged: The generator's running average, which is what people use; None where the generator is frozen.
        text_encoder: Turns captions into the generator's ``c``; None where the shards' embeddings are used as they are.
        discriminator: Its heads are trained, its ViT is frozen.
        guide: The CLIP that compares fakes with captions; None where the discriminator's pass serves for that.
        frozen: Names of generator parameters that keep their values.
    """

    generator: Generator
    averaged: Generator | None
    text_encoder: TextEncoder | None
    discriminator: Discriminator
    guide: Clip | None
    frozen: frozenset[str]
    optimizer: Adam
    discriminator_optimizer: Adam

    @property
    def trained(self) -> nn.Module:
        """What the generator's phase updates."""
        if self.averaged is not None:
            return self.generator
        assert self.text_encoder is not None
        return self.text_encoder

    def condition(self, captions: Sequence[str], c: Float[Tensor, "n c_dim"]) -> Float[Tensor, "n c_dim"]:
        """What feeds the generator: ``c`` as the shards hold it, or the text encoder's own reading of the captions."""
        if self.text_encoder is None:
            return c
        return self.text_encoder(self.text_encoder.tokenize(captions).to(c.device))

    def paint(self, z: Float[Tensor, "n z_dim"], c: Float[Tensor, "n c_dim"], noise: Noise) -> Float[Tensor, "n 3 h w"]:
        """Fakes; the mean latent follows them only where the mapping is trained."""
        return self.generator(z, c, noise=noise, track=self.generator.mapping.fc0.weight.requires_grad)

    def grow_to(self, resolution: int) -> None:
        """Add blocks up to ``resolution``, drawn from torch's generator; what was learnt stays, in Adam too."""
        before = dict(self.generator.named_parameters())
        self.generator = grow(self.generator, resolution)
        if self.averaged is not None:
            self.averaged = grow(self.averaged, resolution)
            # New layers start alike in both, whatever was drawn for them.
            self.averaged.load_state_dict({**self.generator.state_dict(), **_of(self.averaged, before)})
        optimizer = adam(trainable(self.generator, self.frozen), self.optimizer.param_groups[0]["lr"])
        for name, parameter in self.generator.named_parameters():
            if name in before and before[name] in self.optimizer.state:
                optimizer.state[parameter] = self.optimizer.state[before[name]]
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """All that training changes."""
        return {
            "resolution": self.generator.resolution,
            "trained": self.trained.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "heads": self.discriminator.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["resolution"] > self.generator.resolution:
            self.grow_to(state["resolution"])
        self.trained.load_state_dict(state["trained"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.discriminator.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])


def _of(averaged: Generator, names: Iterable[str]) -> dict[str, Tensor]:
    kept = set(names) | {name for name, _ in averaged.named_buffers()}
    return {name: value for name, value in averaged.state_dict().items() if name in kept}


def trainable(module: nn.Module, frozen: frozenset[str] = frozenset()) -> list[nn.Parameter]:
    """The parameters of ``module`` that are not frozen; sets ``requires_grad`` of all of them to match."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return [parameter for name, parameter in module.named_parameters() if name not in frozen]


def adam(parameters: list[nn.Parameter], lr: float) -> Adam:
    """Adam as in the paper: no momentum, no weight decay."""
    return Adam(parameters, lr=lr, betas=BETAS, fused=True)
