"""The networks of one training stage, what trains them, and how they grow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoders import Clip, TextEncoder
from stylegan_t.models.generator import Generator, resized
from stylegan_t.settings.training import Compute
from stylegan_t.training.optimizers import adam, load_state, whole_state


@dataclass
class Players:
    """Generator against discriminator, with the text encoder where that is trained.

    Either the generator or the text encoder is trained; the other one is frozen.

    Attributes:
        generator: Paints the fakes.
        averaged: The generator's running average, which is what people use; None where the generator is frozen.
        text_encoder: In training, it turns captions into the generator's ``c``; None where stored embeddings are used.
        discriminator: Its heads are trained, its ViT is frozen.
        guide: The CLIP that compares fakes with captions; None where the discriminator's pass serves for that.
        frozen: Names of generator parameters that keep their values.
        compute: How the arithmetic is done.
    """

    generator: Generator
    averaged: Generator | None
    text_encoder: TextEncoder | None
    discriminator: Discriminator
    guide: Clip | None
    frozen: frozenset[str]
    compute: Compute
    optimizer: Optimizer = field(init=False)
    discriminator_optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        sharded = self.compute.shard_optimizer
        self.optimizer = adam(trainable(self.trained, self.frozen), sharded=sharded)
        self.discriminator_optimizer = adam(trainable(self.discriminator.heads), sharded=sharded)
        self._lay_out([self.generator, self.averaged, self.discriminator, self.guide])
        if self.compute.compile:
            frozen_encoders = [self.discriminator.vit, self.guide.image if self.guide else None, self.text_encoder]
            for module in (self.generator, *self.discriminator.heads, *frozen_encoders):
                if module is not None:
                    module.compile()

    def _lay_out(self, modules: Iterable[nn.Module | None]) -> None:
        if self.compute.channels_last:
            for module in modules:
                if module is not None:
                    module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @property
    def trained(self) -> nn.Module:
        """What the generator's phase updates."""
        if self.averaged is not None:
            return self.generator
        assert self.text_encoder is not None
        return self.text_encoder

    @property
    def follows_latents(self) -> bool:
        """Whether the mean latent moves: where the mapping is trained."""
        return self.generator.mapping.fc0.weight.requires_grad

    def condition(self, captions: Sequence[str], c: Float[Tensor, "n c_dim"]) -> Float[Tensor, "n c_dim"]:
        """What feeds the generator: ``c`` as it is, or the trained text encoder's own reading of the captions."""
        if self.text_encoder is None:
            return c
        return self.text_encoder(self.text_encoder.tokenize(captions).to(c.device))

    def resize(self, resolution: int) -> None:
        """Add blocks up to ``resolution``, drawn from torch's generator, or drop those above it.

        What was learnt stays, in Adam too; new layers start alike in the generator and its average.
        """
        before = {name: i for i, name in enumerate(self._learning())}
        numbers = whole_state(self.optimizer, everywhere=True)
        known = {name for name, _ in self.generator.named_parameters()}
        self.generator = resized(self.generator, resolution)
        if self.averaged is not None:
            old = self.averaged
            self.averaged = resized(old, resolution).requires_grad_(False)
            mine = self.averaged.state_dict()
            kept = known | {name for name, _ in old.named_buffers()}
            self.averaged.load_state_dict(
                {name: mine[name] if name in kept else value for name, value in self.generator.state_dict().items()}
            )
        self.optimizer = adam(trainable(self.generator, self.frozen), sharded=self.compute.shard_optimizer)
        moved = {i: numbers[before[name]] for i, name in enumerate(self._learning()) if before.get(name) in numbers}
        load_state(self.optimizer, moved)
        self._lay_out([self.generator, self.averaged])
        if self.compute.compile:
            self.generator.compile()

    def _learning(self) -> list[str]:
        """Names of the parameters that the optimiser holds, in its order."""
        return [name for name, _ in self.trained.named_parameters() if name not in self.frozen]

    def state_dict(self) -> dict[str, Any]:
        """All that training changes; where Adam's numbers are spread over processes, all of them must ask."""
        return {
            "resolution": self.generator.resolution,
            "trained": self.trained.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "heads": self.discriminator.heads.state_dict(),
            "optimizer": whole_state(self.optimizer),
            "discriminator_optimizer": whole_state(self.discriminator_optimizer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["resolution"] != self.generator.resolution:
            self.resize(state["resolution"])
        self.trained.load_state_dict(state["trained"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.discriminator.heads.load_state_dict(state["heads"])
        load_state(self.optimizer, state["optimizer"])
        load_state(self.discriminator_optimizer, state["discriminator_optimizer"])


def trainable(module: nn.Module, frozen: frozenset[str] = frozenset()) -> list[nn.Parameter]:
    """The parameters of ``module`` that are not frozen; sets ``requires_grad`` of all of them to match."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return [parameter for name, parameter in module.named_parameters() if name not in frozen]
