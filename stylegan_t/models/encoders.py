"""CLIP: a text encoder and an image tower that put captions and pictures into one space.

Pretrained ones are open_clip's; the small one, for machines without pretrained weights, is a timm vision transformer
on a convolutional stem beside open_clip's text tower. A JSON-able ``spec`` rebuilds each network without its weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.model import CLIPTextCfg, _build_text_tower, _build_vision_tower
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import VisionTransformer as OpenClipViT
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stylegan_t.models.resize import resize
from stylegan_t.models.vit import project_in_one_product

Spec = dict[str, Any]

OPENAI_MEAN, OPENAI_STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
SIGNED_MEAN = SIGNED_STD = (0.5, 0.5, 0.5)


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def tokens_of(captions: Iterable[str]) -> Int[Tensor, " tokens"]:
    """The token numbers that captions are made of, with the start and the end mark, ascending."""
    tokenizer = _tokenizer()
    found = {token for caption in set(captions) for token in tokenizer.encode(caption)}
    return torch.tensor(sorted(found | {tokenizer.sot_token_id, tokenizer.eot_token_id}))


class TextEncoder(nn.Module):
    """Captions in, unit-length embeddings out.

    Args:
        embed_dim: Length of an embedding.
        text_cfg: open_clip's description of the text tower (``open_clip.model.CLIPTextCfg``).
        quick_gelu: Whether the tower was trained with OpenAI's approximation of GELU.
        num_tokens: Size of a vocabulary of its own, a part of open_clip's (then ``token_ids`` holds which part);
            None reads all of open_clip's tokens. A small vocabulary leaves no embeddings that no caption ever
            trained, and spares the optimiser most of its work: a token outside it is skipped, like a word that one
            does not know.
    """

    token_ids: Tensor

    def __init__(
        self, *, embed_dim: int, text_cfg: Spec, quick_gelu: bool = False, num_tokens: int | None = None
    ) -> None:
        super().__init__()
        if text_cfg.get("hf_model_name") or text_cfg.get("hf_tokenizer_name") or text_cfg.get("tokenizer_kwargs"):
            raise ValueError(
                "this CLIP's text tower needs a tokenizer of its own; "
                "use a model with CLIP's own byte-pair tokens, e.g. ViT-L-14-quickgelu"
            )
        self.spec = {
            "embed_dim": embed_dim, "text_cfg": text_cfg, "quick_gelu": quick_gelu, "num_tokens": num_tokens,
        }  # fmt: skip
        cfg = CLIPTextCfg(**text_cfg)
        if num_tokens is not None:
            cfg.vocab_size = num_tokens
            self.register_buffer("token_ids", torch.arange(num_tokens))
        self.embed_dim = embed_dim
        self.context_length = cfg.context_length
        self.tower = _build_text_tower(embed_dim, cfg, quick_gelu)

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "n context"]:
        """Token numbers, from a start mark to an end mark, cut or filled with 0 to the context length."""
        tokenizer = _tokenizer()
        number: dict[int, int] | None = None
        if self.spec["num_tokens"] is not None:
            number = {token: i for i, token in enumerate(self.token_ids.tolist())}
        tokens = torch.zeros(len(captions), self.context_length, dtype=torch.int64)
        rows: dict[str, list[int]] = {}
        for i, caption in enumerate(captions):
            if caption not in rows:
                marked = [tokenizer.sot_token_id, *tokenizer.encode(caption), tokenizer.eot_token_id]
                row = marked if number is None else [number[t] for t in marked if t in number]
                rows[caption] = [*row[: self.context_length - 1], row[-1]][: len(row)]
            row = rows[caption]
            tokens[i, : len(row)] = torch.tensor(row)
        return tokens

    def forward(self, tokens: Int[Tensor, "n context"]) -> Float[Tensor, "n embed_dim"]:
        """Unit-length embeddings of tokenised captions (on the device of the weights)."""
        return F.normalize(self.tower(tokens), dim=-1)


class Clip(nn.Module):
    """An image tower and a text encoder whose embeddings of a matching pair point the same way.

    Args:
        image: Maps normalised images of ``image_px`` to embeddings of the text encoder's length.
        text: The text encoder.
        image_px: Side of the image tower's input, pixels.
        mean, std: Normalisation of an image in [0, 1], per channel.
        spec: What ``clip_from_spec`` rebuilds this network from.
    """

    def __init__(
        self,
        image: nn.Module,
        text: TextEncoder,
        *,
        image_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        spec: Spec,
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.image_px, self.mean, self.std, self.spec = image_px, tuple(mean), tuple(std), spec
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def embed_dim(self) -> int:
        return self.text.embed_dim

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    def image_blocks(self) -> list[nn.Module]:
        """The transformer blocks of the image tower, in order; [] where it is no transformer."""
        if isinstance(self.image, VisionTransformer):
            return list(self.image.blocks)
        if isinstance(self.image, OpenClipViT):
            return list(self.image.transformer.resblocks)
        return []

    def encode_image(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n embed_dim"]:
        """Unit-length embeddings of images in [-1, 1] of any size; gradients pass to the images."""
        return F.normalize(self.image(normalize(resize(images, self.image_px), self.mean, self.std)), dim=-1)

    def encode_text(self, captions: Sequence[str]) -> Float[Tensor, "n embed_dim"]:
        """Unit-length embeddings of captions."""
        return self.text(self.text.tokenize(captions).to(self.device))


def normalize(
    images: Float[Tensor, "n 3 h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "n 3 h w"]:
    """Images in [-1, 1], normalised as a network expects it of images in [0, 1]."""
    halved = (images + 1) / 2  # numbers, not tensors, follow: a GPU need not wait for a copy of them
    return torch.stack([(halved[:, i] - mean[i]) / std[i] for i in range(3)], dim=1)


class ConvStem(nn.Module):
    """Patches to tokens by small strided convolutions, in the place of timm's ``PatchEmbed`` (arXiv:2106.14881).

    The first convolution has no norm: one there would hide the contrast of the picture from every later layer, and a
    discriminator that cannot see contrast lets the generator's pixels run off.
    """

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        bias: bool,
        dynamic_img_pad: bool,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_convs = patch_size.bit_length() - 1
        self.img_size, self.grid_size = (img_size, img_size), (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        wanted = [embed_dim * 3 // 2 // 2**i for i in reversed(range(num_convs))]
        widths = [in_chans, *(max(8, width // 8 * 8) for width in wanted)]
        layers: list[nn.Module] = []
        for i in range(num_convs):
            layers.append(nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1))
            if i:
                layers.append(nn.GroupNorm(8, widths[i + 1]))
            layers.append(nn.GELU())
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Conv2d(widths[-1], embed_dim, 1, bias=bias)
        self.to(device=device, dtype=dtype)
        for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n tokens width"]:
        return self.proj(self.convs(images)).flatten(2).transpose(1, 2)


def small_image_tower(
    *, image_px: int, patch_px: int, width: int, depth: int, num_heads: int, embed_dim: int
) -> VisionTransformer:
    """A small vision transformer on a convolutional stem.

    Linear layers start at 1/sqrt(fan_in): timm's fixed 0.02, meant for hundreds of channels and hours of warm-up,
    nearly mutes layers this narrow and did not learn in the minutes that there are.
    """
    if image_px % patch_px:
        raise ValueError(f"image_px = {image_px} is no multiple of patch_px = {patch_px}")
    if width % num_heads:
        raise ValueError(f"a width of {width} does not split into {num_heads} heads")
    tower = VisionTransformer(
        img_size=image_px,
        patch_size=patch_px,
        num_classes=embed_dim,
        embed_dim=width,
        depth=depth,
        num_heads=num_heads,
        embed_layer=ConvStem,  # pyright: ignore[reportArgumentType]
    )
    for name, module in tower.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("patch_embed"):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return tower


def small_clip(spec: Spec) -> Clip:
    """A CLIP of a small image tower and a small text tower, at its random start.

    Args:
        spec: ``image`` (arguments of ``small_image_tower``) and ``text`` (arguments of ``TextEncoder``).
    """
    image, text = small_image_tower(**spec["image"]), TextEncoder(**spec["text"])
    px = spec["image"]["image_px"]
    return Clip(image, text, image_px=px, mean=SIGNED_MEAN, std=SIGNED_STD, spec={"kind": "small", **spec})


def open_clip_clip(spec: Spec) -> Clip:
    """A CLIP of open_clip's collection without its weights.

    Args:
        spec: ``vision_cfg``, ``text`` (arguments of ``TextEncoder``), ``image_px``, ``mean``, ``std``.
    """
    text = TextEncoder(**spec["text"])
    image = _build_vision_tower(text.embed_dim, spec["vision_cfg"], text.spec["quick_gelu"])
    if isinstance(image, OpenClipViT):
        project_in_one_product(image)
    return Clip(
        image,
        text,
        image_px=spec["image_px"],
        mean=spec["mean"],
        std=spec["std"],
        spec={"kind": "open_clip", **spec},
    )


def clip_from_spec(spec: Spec) -> Clip:
    """The CLIP that a spec describes, without its weights."""
    build = {"small": small_clip, "open_clip": open_clip_clip}[spec["kind"]]
    return build({key: value for key, value in spec.items() if key != "kind"})


def open_clip_spec(model_cfg: Spec, size: int | Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Spec:
    """What ``open_clip_clip`` builds a model of open_clip's collection from.

    Args:
        model_cfg: ``open_clip.get_model_config(name)``.
        size: Side of the image tower's input, pixels.
        mean, std: Normalisation of an image in [0, 1], per channel.
    """
    text_spec = {
        "embed_dim": model_cfg["embed_dim"],
        "text_cfg": {**dataclasses.asdict(CLIPTextCfg(**model_cfg["text_cfg"]))},
        "quick_gelu": model_cfg.get("quick_gelu", False),
        "num_tokens": None,
    }
    return {
        "vision_cfg": model_cfg["vision_cfg"],
        "text": text_spec,
        "image_px": size if isinstance(size, int) else size[0],
        "mean": list(mean),
        "std": list(std),
    }


def clip_from_open_clip(model: nn.Module, model_cfg: Spec) -> Clip:
    """Our ``Clip`` around a model that open_clip made (with ``force_custom_text``), weights and all.

    Args:
        model: ``open_clip.create_model(name, …, force_custom_text=True)``.
        model_cfg: ``open_clip.get_model_config(name)``.
    """
    preprocess = open_clip.get_model_preprocess_cfg(model)
    clip = open_clip_clip(open_clip_spec(model_cfg, preprocess["size"], preprocess["mean"], preprocess["std"]))
    weights = model.state_dict()
    clip.image.load_state_dict(_below("visual.", weights))
    clip.text.tower.load_state_dict(_below("text.", weights))
    clip.logit_scale.data.copy_(weights["logit_scale"].reshape(()))
    return clip


def _below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
