"""Networks built from weights in the layout of the published StyleGAN-T, at any size.

The names are facts about files, needed to read them and to compare numbers; nothing else follows that layout.
"""

import math
import re
from collections.abc import Mapping

import timm
import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.generator import Generator
from stylegan_t.models.vit import TimmFrozenViT

VIT_PREFIX = "dino.model.model."
CONSTANTS = ("resample_filter", "input.transform")
GENERATOR_NAMES = [
    (r"^mapping\.x_avg$", "mapping.w_avg"),
    (r"^mapping\.mlp\.", "mapping."),
    (r"^synthesis\.b8\.input\.", "synthesis.input."),
    (r"^synthesis\.b(\d+)\.torgb\.", r"synthesis.blocks.\1.to_rgb."),
    (r"^synthesis\.b8\.convs1\.(\d+)\.", r"synthesis.blocks.8.layers.\1."),
    (r"^synthesis\.b(\d+)\.conv0\.", r"synthesis.blocks.\1.layers.0."),
    (r"^synthesis\.b(\d+)\.convs1\.(\d+)\.", lambda m: f"synthesis.blocks.{m[1]}.layers.{int(m[2]) + 1}."),
    (r"\.affine\.proj\.", ".style.linear."),
    (r"\.gamma$", ".layer_scale"),
]
HEAD_NAMES = [
    (r"^heads\.", ""),
    (r"\.main\.0\.0\.", ".point.conv."),
    (r"\.main\.0\.1\.", ".point.norm."),
    (r"\.main\.1\.fn\.0\.", ".context.conv."),
    (r"\.main\.1\.fn\.1\.", ".context.norm."),
    (r"\.cls\.", ".project."),
    (r"\.cmapper\.", ".c_map."),
    (r"\.weight_orig$", ".weight"),
    (r"\.weight_([uv])$", r".\1"),
]


def our_generator_name(name: str) -> str:
    """Our name of one of the published generator's parameters or buffers."""
    residual = re.search(r"\.convs1\.\d*[13579]\.", name) is not None
    for pattern, ours in GENERATOR_NAMES:
        name = re.sub(pattern, ours, name)
    if residual and not re.search(r"\.(layer_scale|norm\.\w+)$", name):
        name = re.sub(r"(\.layers\.\d+\.)", r"\1layer.", name)
    return name


def our_head_name(name: str) -> str:
    """Our name, within ``Discriminator.heads``, of a parameter or buffer of the published heads."""
    for pattern, ours in HEAD_NAMES:
        name = re.sub(pattern, ours, name)
    return name


def generator_from_reference(weights: Mapping[str, Float[Tensor, "..."]], meta: Mapping) -> Generator:
    """The generator with published weights.

    Args:
        weights: Parameters and buffers by their published names.
        meta: ``resolution``, ``z_dim``, ``c_dim``, ``channel_base``, ``channel_max`` and ``num_res_blocks``.

    Raises:
        RuntimeError: A weight is missing, unknown, or of another shape than ``meta`` says (torch names it).
    """
    generator = Generator(
        resolution=meta["resolution"],
        z_dim=meta["z_dim"],
        c_dim=meta["c_dim"],
        channel_base=meta["channel_base"],
        channel_max=meta["channel_max"],
        num_res_blocks=meta["num_res_blocks"],
    )
    state = {}
    for name, tensor in weights.items():
        if not name.endswith(CONSTANTS):
            state[our_generator_name(name)] = tensor.flatten() if name.endswith(".gamma") else tensor
    generator.load_state_dict(state)
    return generator


def discriminator_from_reference(weights: Mapping[str, Float[Tensor, "..."]], meta: Mapping) -> Discriminator:
    """The discriminator with published weights, its feature network included.

    Args:
        weights: Parameters and buffers by their published names; the transformer's under
            ``dino.model.model.``.
        meta: ``c_dim``, ``feature_blocks`` (the hooks), ``vit_arch`` (timm's name) and ``vit`` (its widths).

    Raises:
        RuntimeError: A weight is missing, unknown, or of another shape than ``meta`` says (torch names it).
    """
    vit_weights = {k.removeprefix(VIT_PREFIX): v for k, v in weights.items() if k.startswith(VIT_PREFIX)}
    grid = math.isqrt(vit_weights["pos_embed"].shape[1] - 1)
    patch = vit_weights["patch_embed.proj.weight"].shape[-1]
    with torch.random.fork_rng(devices=[]):
        net = timm.create_model(
            meta["vit_arch"],
            pretrained=False,
            num_classes=0,
            img_size=grid * patch,
            patch_size=patch,
            **meta["vit"],
        )
    assert isinstance(net, VisionTransformer)
    net.load_state_dict(vit_weights)
    vit = TimmFrozenViT(net, hooks=meta["feature_blocks"], mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)
    heads = {our_head_name(k): v for k, v in weights.items() if k.startswith("heads.")}
    discriminator = Discriminator(vit, meta["c_dim"], kernel_size=heads["0.context.conv.weight"].shape[-1])
    discriminator.load_trainable_state(heads)
    return discriminator
