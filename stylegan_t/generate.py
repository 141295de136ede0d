"""Pictures from a bundle: ``stylegan-t generate`` and ``stylegan-t interpolate``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from stylegan_t.device import pick_device
from stylegan_t.errors import SettingsError
from stylegan_t.files import atomic
from stylegan_t.models.bundle import load_bundle
from stylegan_t.models.generator import Generator
from stylegan_t.progress import Progress
from stylegan_t.prompts import check_prompts, check_psi
from stylegan_t.randomness import draw_latents, draw_spatial_noise
from stylegan_t.sampling import device_of, embed, grid, inference, sample, save_png, tile_px, to_pil, to_uint8

SLUG_CHARS = 50
MOST_GRID_TILES = 1024
FRAME_MILLISECONDS = 60


def generate(
    model: Path,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    psi: float,
    out: Path,
    device: str,
    batch_size: int,
) -> list[Path]:
    """Paint every prompt with every seed: a PNG each, and ``grid.png`` (a row per prompt, a column per seed).

    Returns:
        The files written, the grid last.

    Raises:
        SettingsError: An argument is wrong; nothing is written.
        DataError: ``model`` is no bundle, or a damaged one.
    """
    prompts, seeds = check_prompts(prompts), list(dict.fromkeys(seeds))
    check_psi(psi)
    _check_out(out)
    bundle = load_bundle(model)
    where = pick_device(device)
    generator = bundle.generator.to(where)
    c = embed(bundle.text_encoder.to(where), prompts, batch_size)
    files = [out / f"{slug}-seed{seed:04d}.png" for slug, seed in product(slugs(prompts), seeds)]
    rows, all_seeds = torch.arange(len(prompts)).repeat_interleave(len(seeds)), seeds * len(prompts)
    tiles: list[UInt8[Tensor, "n 3 h w"]] = []
    with Progress("generate", len(files)) as progress:
        for first in range(0, len(files), batch_size):
            span = slice(first, first + batch_size)
            images = sample(generator, c[rows[span]], all_seeds[span], psi, batch_size)
            for file, image in zip(files[span], images, strict=True):
                save_png(file, to_pil(image))
            tiles.append(images[: max(0, MOST_GRID_TILES - first)])
            progress.advance(len(images))
    save_png(out / "grid.png", grid(torch.cat(tiles), columns=len(seeds)))
    return [*files, out / "grid.png"]


def interpolate(
    model: Path,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    frames: int,
    psi: float,
    out: Path,
    device: str,
) -> list[Path]:
    """A looping walk through prompts and latents: ``frame0000.png`` and on, and ``interpolation.webp``.

    Station i shows prompt i and seed i, whichever list is shorter starting again. Between stations the text
    embedding and the latent move on straight lines; both are brought back to unit length, so they turn at
    almost even speed. The spatial noise stays that of the first seed.

    Args:
        frames: Pictures from each station to the next.

    Raises:
        SettingsError: An argument is wrong, or there is only one station; nothing is written.
        DataError: ``model`` is no bundle, or a damaged one.
    """
    prompts, seeds = check_prompts(prompts), list(seeds)
    check_psi(psi)
    _check_out(out)
    stations = max(len(prompts), len(seeds))
    if stations < 2:
        raise SettingsError("interpolate needs two stations at least: give a second --prompt, or two --seeds")
    bundle = load_bundle(model)
    where = pick_device(device)
    generator = bundle.generator.to(where)
    c = embed(bundle.text_encoder.to(where), [prompts[i % len(prompts)] for i in range(stations)])
    z = draw_latents([seeds[i % len(seeds)] for i in range(stations)], generator.z_dim)
    pictures = []
    with Progress("interpolate", stations * frames, "frames") as progress:
        for z_row, c_row in zip(_walk(z, frames), _walk(c, frames), strict=True):
            pictures.append(_paint(generator, z_row[None], c_row[None], seeds[0], psi))
            save_png(out / f"frame{len(pictures) - 1:04d}.png", pictures[-1])
            progress.advance()
    side = tile_px(generator.resolution)
    shown = [picture.resize((side, side), Image.Resampling.NEAREST) for picture in pictures]
    with atomic(out / "interpolation.webp") as temporary:
        shown[0].save(
            temporary,
            "WEBP",
            save_all=True,
            append_images=shown[1:],
            duration=FRAME_MILLISECONDS,
            loop=0,
            lossless=True,
        )
    return [*(out / f"frame{i:04d}.png" for i in range(len(pictures))), out / "interpolation.webp"]


def _walk(stations: Float[Tensor, "s d"], frames: int) -> Float[Tensor, "n d"]:
    """Points of unit length on the way from each station to the next, and from the last to the first."""
    stations = F.normalize(stations, dim=1)
    share = (torch.arange(frames) / frames)[:, None]
    legs = [torch.lerp(a, b, share) for a, b in zip(stations, stations.roll(-1, dims=0), strict=True)]
    return F.normalize(torch.cat(legs), dim=1)


def _paint(
    generator: Generator,
    z: Float[Tensor, "1 z_dim"],
    c: Float[Tensor, "1 c_dim"],
    noise_seed: int,
    psi: float,
) -> Image.Image:
    device = device_of(generator)
    noise = [layer.to(device) for layer in draw_spatial_noise([noise_seed], generator.synthesis.noise_shapes)]
    with inference(generator):
        return to_pil(to_uint8(generator(z.to(device), c.to(device), psi=psi, noise=noise)[0]).cpu())


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out}: is a file; --out names the folder to write to")


def slugs(prompts: Sequence[str]) -> list[str]:
    """A file name for each prompt, all different."""
    names: list[str] = []
    for prompt in prompts:
        name = re.sub(r"\W+", "-", prompt.lower()).strip("-_")[:SLUG_CHARS].strip("-_") or "prompt"
        taken = sum(other == name or re.fullmatch(rf"{re.escape(name)}-\d+", other) is not None for other in names)
        names.append(f"{name}-{taken + 1}" if name in names else name)
    return names
