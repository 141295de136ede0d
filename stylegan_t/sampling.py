"""Pictures from a trained generator, each from its own seed, and grids of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from stylegan_t.data.images import to_uint8
from stylegan_t.files import atomic
from stylegan_t.models.encoders import TextEncoder
from stylegan_t.models.generator import Generator
from stylegan_t.randomness import draw_latents, draw_spatial_noise

SMALLEST_TILE_PX, LARGEST_TILE_PX = 64, 256


@contextmanager
def inference(*modules: torch.nn.Module) -> Iterator[None]:
    """No gradients, and the modules in eval mode; afterwards each is as it was."""
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.train(training)


def embed(text_encoder: TextEncoder, prompts: Sequence[str], batch_size: int = 64) -> Float[Tensor, "n c_dim"]:
    """The text embedding of each prompt, on the CPU; a repeated prompt is read once."""
    unique = list(dict.fromkeys(prompts))
    device = device_of(text_encoder)
    with inference(text_encoder):
        parts = [
            text_encoder(text_encoder.tokenize(unique[first : first + batch_size]).to(device)).float().cpu()
            for first in range(0, len(unique), batch_size)
        ]
    row = {prompt: i for i, prompt in enumerate(unique)}
    return torch.cat(parts)[[row[prompt] for prompt in prompts]]


def sample(
    generator: Generator,
    c: Float[Tensor, "n c_dim"],
    seeds: Sequence[int],
    psi: float = 1.0,
    batch_size: int = 64,
) -> UInt8[Tensor, "n 3 h w"]:
    """One picture for each row of ``c`` and its seed, on the CPU.

    Latent and spatial noise follow from the image's own seed (see randomness.py), so neither its place in
    the list nor the other seeds matter, beyond the last bit of the arithmetic in another batch.

    Args:
        generator: Runs where its weights are, in eval mode; left as it was.
        c: Text embeddings.
        seeds: One for each row of ``c``; a seed may repeat.
        psi: Truncation: 1 none, 0 the mean latent.
        batch_size: Images of one forward pass.
    """
    if len(seeds) != len(c):
        raise ValueError(f"{len(seeds)} seeds for {len(c)} text embeddings: give one for each")
    with inference(generator):
        starts = range(0, len(seeds), batch_size)
        spans = [slice(start, start + batch_size) for start in starts]
        return torch.cat([to_uint8(paint(generator, c[span], seeds[span], psi)).cpu() for span in spans])


def paint(
    generator: Generator, c: Float[Tensor, "n c_dim"], seeds: Sequence[int], psi: float
) -> Float[Tensor, "n 3 h w"]:
    """One forward pass: the pictures of ``c`` and the seeds, about [-1, 1], on the generator's device."""
    device = device_of(generator)
    z = draw_latents(seeds, generator.z_dim).to(device)
    noise = [layer.to(device) for layer in draw_spatial_noise(seeds, generator.synthesis.noise_shapes)]
    return generator(z, c.to(device), psi=psi, noise=noise)


def device_of(module: torch.nn.Module) -> torch.device:
    return next(module.parameters()).device


def tile_px(resolution: int) -> int:
    """Side of a grid's tile: the picture's, times a whole number where it is small, reduced where large."""
    return min(resolution * max(1, -(-SMALLEST_TILE_PX // resolution)), LARGEST_TILE_PX)


def grid(images: UInt8[Tensor, "n 3 h w"], columns: int, tile: int | None = None) -> Image.Image:
    """The pictures in rows of ``columns``; where row i is prompt i, column j is seed j.

    Args:
        images: Row by row.
        columns: Tiles in a row; a last row that is not full ends in black.
        tile: Side of a tile in pixels; by default ``tile_px`` of the pictures' side.
    """
    side = tile or tile_px(images.shape[3])
    enlarging = side >= images.shape[3]
    sheet = Image.new("RGB", (columns * side, -(-len(images) // columns) * side))
    for i, image in enumerate(images):
        scaled = to_pil(image).resize((side, side), Image.Resampling.NEAREST if enlarging else Image.Resampling.BOX)
        sheet.paste(scaled, (i % columns * side, i // columns * side))
    return sheet


def to_pil(image: UInt8[Tensor, "3 h w"]) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def save_webp(path: Path, image: Image.Image) -> None:
    """Write a picture without loss; the same picture gives the same bytes."""
    with atomic(path) as temporary:
        image.save(temporary, format="WEBP", lossless=True, quality=50, method=2)


def save_png(path: Path, image: Image.Image) -> None:
    """Write a picture as PNG; the same picture gives the same bytes."""
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")
