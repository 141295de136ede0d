"""Frozen vision transformers: images in, token maps out (and, from the same pass, the image embedding)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import open_clip.transformer
import timm.models.vision_transformer
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stylegan_t.models.resize import resize

Tokens = list[Float[Tensor, "n tokens width"]]
VitOutput = tuple[Tokens, Float[Tensor, "n embedding"] | None]


class FrozenViT(nn.Module, ABC):
    """A vision transformer that never learns and is always in eval mode, but passes gradients to the image.

    Its weights need no saving: they come from the encoder's own file.

    Args:
        net: The transformer; its parameters are frozen in place.
        input_px: Side of the images that the transformer reads.
        width: Channels of a token.
        depth: Number of blocks, which the hooks must stay below.
        hooks: Blocks, 0-based and ascending, whose output is a token map.
        mean: Of each colour in [0, 1], subtracted before the transformer.
        std: Of each colour in [0, 1].
    """

    net: Any
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        input_px: int,
        width: int,
        depth: int,
        hooks: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__()
        if list(hooks) != sorted(set(hooks)) or not all(0 <= hook < depth for hook in hooks):
            raise ValueError(f"hooks = {list(hooks)}: give ascending block numbers between 0 and {depth - 1}")
        self.net = net.eval().requires_grad_(False)
        self.input_px = input_px
        self.width = width
        self.hooks = tuple(hooks)
        self.num_taps = len(self.hooks) + 1
        std_t = torch.tensor(std)[:, None, None]
        self.register_buffer("scale", 0.5 / std_t, persistent=False)
        self.register_buffer("shift", (0.5 - torch.tensor(mean)[:, None, None]) / std_t, persistent=False)

    def train(self, mode: bool = True) -> "FrozenViT":
        """Stay in eval mode, whatever the surrounding module does."""
        del mode
        return super().train(False)

    def preprocess(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 px px"]:
        """Images in [-1, 1] of any size, resized by area to the transformer's input and normalised."""
        return torch.addcmul(self.shift, resize(images, self.input_px), self.scale)

    def forward(self, images: Float[Tensor, "n 3 h w"], with_embedding: bool = False) -> VitOutput:
        """The token maps of images in [-1, 1], and their embedding if wanted (else None).

        Token maps come in the order hooked blocks, then the embedded patches with their positions. A class
        token, where the transformer has one, is added to every patch token and dropped: it tells each patch
        about the whole (Sauer et al. 2021, arXiv:2111.01007; 2023, section 3.2).

        Without the embedding, blocks behind the last hook are not run. Under autocast the blocks run in the lower
        precision; pooling and projection stay in float32.
        """
        embedded, state = self._embed(self.preprocess(images))
        taps: Tokens = []
        blocks = self._blocks()
        last = len(blocks) if with_embedding else max(self.hooks, default=-1) + 1
        for i in range(last):
            state = blocks[i](state)
            if i in self.hooks:
                taps.append(self._patch_tokens(state))
        taps.append(self._patch_tokens(embedded))
        if not with_embedding:
            return taps, None
        with torch.autocast(device_type=state.device.type, enabled=False):
            return taps, self._pool(state.float())

    def _patch_tokens(self, tokens: Float[Tensor, "n all width"]) -> Float[Tensor, "n patches width"]:
        """Drop the prefix tokens after adding the class token, the first of them, to each patch."""
        prefix = self._num_prefix_tokens()
        patches = tokens[:, prefix:]
        return patches + tokens[:, :1] if prefix else patches

    @abstractmethod
    def _num_prefix_tokens(self) -> int:
        """How many tokens stand before the patches; the first is the class token."""

    @abstractmethod
    def _blocks(self) -> list[nn.Module]:
        """The transformer's blocks, in order."""

    @abstractmethod
    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens after patch and position embedding, and what the first block reads."""

    @abstractmethod
    def _pool(self, tokens: Tensor) -> Float[Tensor, "n embedding"]:
        """The last block's tokens as one embedding per image, as the transformer itself would give it."""


class TimmFrozenViT(FrozenViT):
    """A timm ``VisionTransformer``, with or without class token; the embedding is what its head gives."""

    def __init__(
        self,
        net: timm.models.vision_transformer.VisionTransformer,
        *,
        hooks: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__(
            net,
            input_px=net.patch_embed.img_size[0],
            width=net.embed_dim,
            depth=len(net.blocks),
            hooks=hooks,
            mean=mean,
            std=std,
        )
        if net.num_prefix_tokens and not net.has_class_token:
            raise ValueError("the transformer has register tokens but no class token: use one with class_token=True")

    def _num_prefix_tokens(self) -> int:
        return self.net.num_prefix_tokens

    def _blocks(self) -> list[nn.Module]:
        return list(self.net.blocks)

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.net._pos_embed(self.net.patch_embed(x))
        return embedded, self.net.norm_pre(self.net.patch_drop(embedded))

    def _pool(self, tokens: Tensor) -> Tensor:
        return self.net.forward_head(self.net.norm(tokens))


class OpenClipFrozenViT(FrozenViT):
    """An open_clip ``VisionTransformer``; the embedding is pooled and projected, not normalised."""

    def __init__(
        self,
        net: open_clip.transformer.VisionTransformer,
        *,
        hooks: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__(
            net,
            input_px=net.image_size[0],  # pyright: ignore[reportIndexIssue]  (always a pair)
            width=net.transformer.width,
            depth=len(net.transformer.resblocks),
            hooks=hooks,
            mean=mean,
            std=std,
        )

    def _num_prefix_tokens(self) -> int:
        return 1

    def _blocks(self) -> list[nn.Module]:
        return list(self.net.transformer.resblocks)

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.net.conv1(x).flatten(2).transpose(1, 2)
        class_token = self.net.class_embedding.expand(len(x), 1, -1)
        embedded = torch.cat([class_token, patches], dim=1) + self.net.positional_embedding
        return embedded, self.net.ln_pre(self.net.patch_dropout(embedded))

    def _pool(self, tokens: Tensor) -> Tensor:
        pooled, _ = self.net._pool(tokens)
        return pooled if self.net.proj is None else pooled @ self.net.proj


def project_in_one_product(tower: open_clip.transformer.VisionTransformer) -> None:
    """Let the attentions of a frozen tower read contiguous tokens.

    torch's attention turns tokens to sequence-first as a mere view. For a frozen weight, its linear layer then
    multiplies position by position, each with a copy of the weight of its own: with gradients to the image, in bf16 on
    a CPU, that takes 100 times as long as one product.
    """
    for block in tower.transformer.resblocks:
        attention = block.attn
        if isinstance(attention, nn.MultiheadAttention):
            attention.batch_first = False
            attention.register_forward_pre_hook(_sequence_first)
            attention.register_forward_hook(_batch_first)


def _sequence_first(attention: nn.Module, tokens: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x = tokens[0].transpose(0, 1).contiguous()
    return x, x, x  # it reads itself: query, key and value in one product


def _batch_first(attention: nn.Module, tokens: tuple[Tensor, ...], out: tuple[Tensor, None]) -> tuple[Tensor, None]:
    return out[0].transpose(0, 1), None
