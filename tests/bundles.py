"""A bundle of random weights that paints in a moment."""

from pathlib import Path

import torch

from stylegan_t.models.bundle import save_bundle
from stylegan_t.models.encoders import TextEncoder
from stylegan_t.models.generator import Generator

C_DIM = 8
TEXT_CFG = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


def tiny_generator(resolution: int = 16, seed: int = 0) -> Generator:
    """Random weights, spatial noise included."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = Generator(
            resolution=resolution, z_dim=8, c_dim=C_DIM, channel_base=1024, channel_max=32, num_res_blocks=1
        )
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.fill_(0.3)
        generator.mapping.w_avg.normal_()
    return generator


def tiny_text_encoder(seed: int = 1) -> TextEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextEncoder(embed_dim=C_DIM, text_cfg=TEXT_CFG)


def tiny_bundle(folder: Path, resolution: int = 16, seed: int = 0, stage: str = "train_generator") -> Path:
    facts = {"stage": stage, "kimg": 1.0, "data": "nothing", "encoder": "random weights", "seed": seed}
    save_bundle(folder, tiny_generator(resolution, seed), tiny_text_encoder(seed + 1), facts)
    return folder
