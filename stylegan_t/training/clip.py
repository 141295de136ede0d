"""Training of the small CLIP, for machines without pretrained weights.

Two phases: the image tower alone learns to predict the words of the caption, which a small transformer learns far
sooner than matching; then both towers learn to match pictures with captions while the words stay a second task, for
both of them. Some pictures are augmented as the discriminator's will be: a discriminator that looks through this image
tower is blind to whatever an augmentation hides from the tower. The words give every attribute a direction of its own,
shared by pictures and captions, so that combinations that the data never showed fall into place. A caption's embedding
has to tell only the words that its picture tells: asked for all of them, it would spend most of itself on the turn of
phrase, which no picture shows, and two phrasings of one meaning would lie further apart than two meanings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from stylegan_t.models.augment import NUM_DRAWS, diff_augment
from stylegan_t.models.encoders import Clip, resize, small_clip, tokens_of
from stylegan_t.progress import Progress
from stylegan_t.randomness import derive_seed
from stylegan_t.settings.encoders import TrainedClip
from stylegan_t.training.captions import words_of

Batches = Iterator[Int[Tensor, " n"]]


def train_clip(
    settings: TrainedClip,
    images: UInt8[Tensor, "m 3 px px"],
    captions: Sequence[str],
    *,
    seed: int,
    device: torch.device,
    name: str = "clip",
) -> Clip:
    """A CLIP that knows the pictures and captions given; the same for the same arguments on one machine.

    Args:
        settings: Architecture and schedules.
        images: Pictures of the side that ``settings`` names, all in memory.
        captions: One for each picture.
        seed: Of the weights and of the order of the pictures.
        name: Shown with the progress.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        clip = new_clip(settings, captions).to(device)
        words = Words(captions, settings.max_words, settings.embed_dim).to(device)
    data = Data(clip, words, images, captions, settings, device)
    steps = settings.word_steps + settings.contrastive_steps
    with Progress(f"training {name}", steps, unit="steps") as progress:
        learn_words(settings, data, derive_seed(seed, "words"), progress)
        learn_pairs(settings, data, derive_seed(seed, "pairs"), progress)
    return clip.eval().requires_grad_(False)


def new_clip(settings: TrainedClip, captions: Sequence[str]) -> Clip:
    """A CLIP at its random start, whose vocabulary is the tokens of ``captions``."""
    text_cfg = {
        "context_length": settings.context_length,
        "width": settings.text_width,
        "heads": settings.num_heads,
        "layers": settings.text_depth,
    }
    token_ids = tokens_of(captions)
    clip = small_clip(
        {
            "image": {
                "image_px": settings.image_px,
                "patch_px": settings.patch_px,
                "width": settings.image_width,
                "depth": settings.image_depth,
                "num_heads": settings.num_heads,
                "embed_dim": settings.embed_dim,
            },
            "text": {"embed_dim": settings.embed_dim, "text_cfg": text_cfg, "num_tokens": len(token_ids)},
        }
    )
    clip.text.token_ids.copy_(token_ids)
    return clip


class Words(nn.Module):
    """Reads the words of the caption off an embedding, of a picture or of a caption, with the same weights.

    Args:
        captions: Whose words to know.
        max_words: Only so many, the most frequent.
        embed_dim: Length of an embedding.
    """

    def __init__(self, captions: Sequence[str], max_words: int, embed_dim: int) -> None:
        super().__init__()
        counts = Counter(word for caption in captions for word in words_of(caption))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))[:max_words]
        self.number = {word: i for i, word in enumerate(ranked)}
        self.linear = nn.Linear(embed_dim, len(ranked))
        share = torch.tensor([counts[word] / len(captions) for word in ranked])
        with torch.no_grad():
            self.linear.bias.copy_(torch.logit(share, eps=1e-3))

    def targets(self, captions: Sequence[str]) -> Bool[Tensor, "n words"]:
        """Which of the known words each caption holds."""
        found = torch.zeros(len(captions), len(self.number), dtype=torch.bool)
        for i, caption in enumerate(captions):
            found[i, [self.number[word] for word in words_of(caption) if word in self.number]] = True
        return found

    def logits(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n words"]:
        return self.linear(embeddings * embeddings.shape[1] ** 0.5)

    def shares(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n words"]:
        """How likely each word is to stand in the caption."""
        return torch.sigmoid(self.logits(embeddings))

    def loss(self, embeddings: Float[Tensor, "n d"], targets: Shaped[Tensor, "n words"]) -> Float[Tensor, ""]:
        """Binary cross entropy against words or their shares, summed over the words: the cost of a caption in nats."""
        logits = self.logits(embeddings)
        return F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="sum") / len(logits)


class Data:
    """Pairs in memory: pictures, tokens, words, and which captions are the same."""

    def __init__(
        self,
        clip: Clip,
        words: Words,
        images: Tensor,
        captions: Sequence[str],
        settings: TrainedClip,
        device: torch.device,
    ) -> None:
        self.clip, self.words, self.settings, self.device = clip, words, settings, device
        self.images = images
        distinct = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
        self.caption_number = torch.tensor([distinct[caption] for caption in captions])
        self.tokens = clip.text.tokenize(list(distinct))
        self.targets = words.targets(list(distinct))

    def batches(self, batch_size: int, generator: torch.Generator) -> Batches:
        """Endless batches of picture numbers; every picture once before any comes again."""
        size = min(batch_size, len(self.images))
        while True:
            order = torch.randperm(len(self.images), generator=generator)
            yield from order[: len(order) // size * size].split(size)

    def pictures(self, rows: Int[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n 3 px px"]:
        """In [-1, 1]; a low-resolution batch keeps the detail that half the side can hold; some are augmented."""
        images = self.images[rows].to(self.device).float() / 127.5 - 1
        if torch.rand((), generator=generator).item() < self.settings.p_low_resolution:
            images = resize(F.avg_pool2d(images, 2), images.shape[-1])
        if not self.settings.augment:
            return images
        draws = torch.rand(len(rows), 1 + NUM_DRAWS, generator=generator).to(self.device)
        chosen = draws[:, 0, None, None, None] < self.settings.p_augment
        return torch.where(chosen, diff_augment(images, draws[:, 1:], self.settings.augment), images)


def learn_words(settings: TrainedClip, data: Data, seed: int, progress: Progress) -> None:
    """First phase: the image tower learns to tell the words of the caption."""
    if not settings.word_steps:
        return
    generator = torch.Generator().manual_seed(seed)
    batches = data.batches(settings.word_batch_size, generator)
    parameters = [*data.clip.image.parameters(), *data.words.parameters()]
    optimizer, schedule = one_cycle(settings, [(parameters, settings.word_lr)], settings.word_steps)
    for _ in range(settings.word_steps):
        rows = next(batches)
        embeddings = data.clip.encode_image(data.pictures(rows, generator))
        loss = data.words.loss(embeddings, data.targets[data.caption_number[rows]].to(data.device))
        update(loss, optimizer, schedule)
        progress.advance(note=f"words {loss.item():.3f}")


def learn_pairs(settings: TrainedClip, data: Data, seed: int, progress: Progress) -> None:
    """Second phase: both towers learn to match, and to tell the words."""
    generator = torch.Generator().manual_seed(seed)
    batches = data.batches(settings.contrastive_batch_size, generator)
    clip = data.clip
    image_parameters = [*clip.image.parameters(), *data.words.parameters()]
    text_parameters = [*clip.text.parameters(), clip.logit_scale]
    groups = [(image_parameters, settings.image_lr), (text_parameters, settings.text_lr)]
    optimizer, schedule = one_cycle(settings, groups, settings.contrastive_steps)
    for _ in range(settings.contrastive_steps):
        rows = next(batches)
        number = data.caption_number[rows]
        targets = data.targets[number].to(data.device)
        image_embeddings = clip.encode_image(data.pictures(rows, generator))
        text_embeddings = clip.text(data.tokens[number].to(data.device))
        same = (number[:, None] == number[None]).to(data.device)
        matching = contrastive_loss(image_embeddings, text_embeddings, same, clip.logit_scale)
        shown = data.words.shares(image_embeddings).detach()
        telling = data.words.loss(image_embeddings, targets) + data.words.loss(text_embeddings, shown)
        update(matching + telling, optimizer, schedule)
        with torch.no_grad():
            clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        progress.advance(note=f"matching {matching.item():.3f}, words {telling.item():.3f}")


MAX_LOGIT_SCALE = 4.6052
"""ln(100), as in the CLIP paper (arXiv:2103.00020, section 2.5)."""


def contrastive_loss(
    image_embeddings: Float[Tensor, "n d"],
    text_embeddings: Float[Tensor, "n d"],
    same: Bool[Tensor, "n n"],
    logit_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """How badly pictures and captions of a batch find each other, averaged over both directions.

    Cross entropy against an even share for every pair whose captions are the same: with few distinct captions, a batch
    holds several right answers (arXiv:2103.00020, figure 3, where ``same`` is the identity).
    """
    logits = logit_scale.exp() * image_embeddings @ text_embeddings.T
    target = same.float() / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def one_cycle(
    settings: TrainedClip, groups: Sequence[tuple[list[nn.Parameter], float]], steps: int
) -> tuple[AdamW, OneCycleLR]:
    """AdamW whose learning rates rise to their peaks and fall to nothing within ``steps``."""
    parameters = [{"params": parameters} for parameters, _ in groups]
    optimizer = AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True)
    schedule = OneCycleLR(optimizer, max_lr=[lr for _, lr in groups], total_steps=max(steps, 2), cycle_momentum=False)
    return optimizer, schedule


def update(loss: Float[Tensor, ""], optimizer: AdamW, schedule: OneCycleLR) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    schedule.step()


@torch.no_grad()
def retrieval_accuracy(
    clip: Clip, images: UInt8[Tensor, "m 3 px px"], captions: Sequence[str], num_choices: int
) -> float:
    """How often a picture finds its caption among ``num_choices``: its own and those of the pictures after it.

    A choice with the same words counts as right.
    """
    image_embeddings = torch.cat([clip.encode_image(b.to(clip.device).float() / 127.5 - 1) for b in images.split(256)])
    text_embeddings = clip.encode_text(captions)
    total = len(captions)
    hits = 0
    for i in range(total):
        rows = [(i + k) % total for k in range(min(num_choices, total))]
        best = rows[int((text_embeddings[rows] @ image_embeddings[i]).argmax())]
        hits += captions[best] == captions[i]
    return hits / total
