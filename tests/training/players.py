"""The smallest players: two blocks, a ViT of 16 channels, embeddings of 8 numbers."""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

from stylegan_t.data.loader import Batch
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoders import TextEncoder
from stylegan_t.models.generator import Generator
from stylegan_t.models.vit import TimmFrozenViT
from stylegan_t.settings.training import (
    Compute,
    Deviations,
    FinetuneTextEncoder,
    Guard,
    IndexedReader,
    LrDecay,
    Network,
    TrainGenerator,
)
from stylegan_t.training.players import Players

C_DIM, BATCH = 8, 8
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
COLOURS = ("red", "green", "blue", "white")


def settings(**changes: object) -> TrainGenerator:
    values = dict(
        total_kimg=0.08, batch_size=BATCH, generator_lr=0.01, discriminator_lr=0.01,
        lr_decay=LrDecay(start_kimg=0.0, end_kimg=0.08, final_factor=0.5), clip_guidance_weight=0.2,
        augment=["translation", "cutout"], spatial_noise=True,
        deviations=Deviations(
            share_fakes=False, share_vit_pass=True, wrong_caption_weight=0.0, p_hard_caption=0.5,
            range_penalty_weight=0.0,
        ),
        log_every_kimg=0.016, sample_every_kimg=0.04, save_every_kimg=0.024, keep_states=2, num_workers=0,
        reader=IndexedReader(kind="indexed"), mixture=None, horizontal_flip=False,
        start_from=None, guard=Guard(max_rollbacks=0, rollback_lr_factor=0.5),
        compute=Compute(
            microbatch_size=None, precision="float32", channels_last=False, compile=False,
            deterministic=False, shard_optimizer=False
        ),
        ema_halflife_kimg=0.1, ema_rampup=0.05, blur_sigma=0.0, blur_fade_kimg=0.0,
        network=Network(
            z_dim=8, channel_base=512, channel_max=32, num_res_blocks=1, residual=True, second_order_styles=True,
            text_bypass=True, local_batch_norm=True,
        ),
        resolutions=[8, 16], grow_at_kimg=[0.032],
    )  # fmt: skip
    return TrainGenerator.model_validate(values | changes)


def stage_two_settings(**changes: object) -> FinetuneTextEncoder:
    one = settings()
    shared = {name: getattr(one, name) for name in FinetuneTextEncoder.model_fields if name != "text_encoder_lr"}
    other = {"text_encoder_lr": 0.01, "clip_guidance_weight": 50.0}
    return FinetuneTextEncoder.model_validate(shared | other | changes)


def make_discriminator(local_batch_norm: bool = True) -> Discriminator:
    with torch.random.fork_rng():
        torch.manual_seed(11)  # the frozen network is an input: the same in every process
        vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=C_DIM)
    frozen = TimmFrozenViT(vit, hooks=[0, 1], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Discriminator(frozen, C_DIM, kernel_size=3, local_batch_norm=local_batch_norm)


def make_players(
    config: TrainGenerator | FinetuneTextEncoder, seed: int = 0, network: Network | None = None
) -> Players:
    torch.manual_seed(seed)
    network = network or settings().network
    generator = Generator(resolution=8, c_dim=C_DIM, **network.of_generator())
    discriminator = make_discriminator(network.local_batch_norm)
    if isinstance(config, TrainGenerator):
        averaged = copy.deepcopy(generator).requires_grad_(False)
        return Players(generator, averaged, None, discriminator, None, frozenset(), config.compute)
    text_encoder = TextEncoder(embed_dim=C_DIM, text_cfg=TEXT)
    generator.requires_grad_(False)
    return Players(generator, None, text_encoder, discriminator, None, frozenset(), config.compute)


def fetch(nimg: int, batch_size: int = BATCH) -> Iterator[Batch]:
    """Flat pictures of four colours, each with its caption; which one depends on the image's number only."""
    embeddings = F.normalize(torch.randn(4, C_DIM, generator=torch.Generator().manual_seed(7)), dim=1)
    palette = torch.tensor([[250, 5, 5], [5, 250, 5], [5, 5, 250], [250, 250, 250]], dtype=torch.uint8)
    while True:
        which = torch.tensor([(number * 7 + number // 4) % 4 for number in range(nimg, nimg + batch_size)])
        images = palette[which][:, :, None, None].expand(-1, -1, 16, 16).contiguous()
        yield Batch(images=images, c=embeddings[which], captions=[f"a {COLOURS[i]} picture" for i in which])
        nimg += batch_size
