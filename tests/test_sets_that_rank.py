"""Known sets get the order that anyone would give them: real, a little blurred, much blurred; right and wrong captions.

The distances' judges have weights as they are drawn: even they see blur and noise. What reads captions is trained here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageFilter
from torch import Tensor

from stylegan_t.data import shapes
from stylegan_t.evaluation.evaluator import Evaluator
from stylegan_t.evaluation.panel import Extractor
from stylegan_t.evaluation.pictures import FolderPictures, Pictures, fitted
from stylegan_t.metrics.kernels import cmmd, kernel_distance
from stylegan_t.metrics.moments import Moments, frechet_distance
from stylegan_t.models.encoder_files import save_clip
from stylegan_t.models.judges import Features
from stylegan_t.records import Measurement
from stylegan_t.settings.encoders import TrainedClip
from stylegan_t.training.clip import train_clip
from tests.evaluation.judged import CPU, a_protocol, an_evaluator, measure_of, save_inception

EMOJI = Path(__file__).parents[2] / "shared" / "data" / "emoji"
SIDE = 32

Spoil = Callable[[np.ndarray], np.ndarray]


class Held(Pictures):
    """Pictures in memory."""

    def __init__(self, pictures: Sequence[np.ndarray], said: Sequence[str]) -> None:
        self.name, self.count, self.pictures, self.said = "held", len(pictures), list(pictures), list(said)

    @cached_property
    def identity(self) -> str:
        return hashlib.sha256(np.stack(self.pictures).tobytes()).hexdigest()

    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        return [torch.from_numpy(self.pictures[number].copy()).permute(2, 0, 1) for number in numbers]

    def captions(self) -> list[list[str]]:
        return [[caption] for caption in self.said]

    def spoiled(self, spoil: Spoil) -> Held:
        return Held([spoil(picture) for picture in self.pictures], self.said)


def blur(radius: float) -> Spoil:
    return lambda picture: np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def noise(deviation: float) -> Spoil:
    rng = np.random.default_rng(0)
    return lambda p: (p + rng.normal(0, deviation, p.shape)).round().clip(0, 255).astype(np.uint8)


SPOILED = {"blur": blur(1.0), "more blur": blur(2.5), "noise": noise(25), "more noise": noise(80)}


def drawn(count: int, seed: int) -> Held:
    scenes = [shapes.scene(i, seed, shapes.combinations()) for i in range(count)]
    said = [shapes.caption(scene.combination, scene.template) for scene in scenes]
    return Held(list(shapes.draw(scenes, SIDE)), said)


def emoji(first: int, count: int) -> Held:
    """Every fourth picture from ``first`` on."""
    every = FolderPictures(EMOJI)
    numbers = list(range(first, every.count, 4))[:count]
    said = every.captions()
    pictures = [each.permute(1, 2, 0).numpy() for each in fitted(every.read(numbers), SIDE)]
    return Held(pictures, [said[number][0] for number in numbers])


needs_emoji = pytest.mark.skipif(not EMOJI.is_dir(), reason=f"no pictures at {EMOJI}")


def number(value: float | None) -> float:
    assert value is not None
    return value


# ---- distances ------------------------------------------------------------------------------------------------------


def frechet(a: Tensor, b: Tensor) -> float:
    return frechet_distance(Moments.of(a), Moments.of(b))


def kernel(a: Tensor, b: Tensor) -> float:
    return kernel_distance(a, b, seed=0, num_subsets=4)


def distances(evaluator: Evaluator, fakes: Held, reals: Held) -> dict[str, Measurement]:
    found = evaluator.evaluate(fakes, "none", None, evaluator.references(reals, None), reals.identity)
    return {each.metric: each for each in found.measurements}


def chance_quantile(rows: Tensor, distance: Callable[[Tensor, Tensor], float]) -> float:
    """95 % of the distances between two random halves of one set lie below it."""
    generator, half = torch.Generator().manual_seed(1), len(rows) // 2
    orders = [torch.randperm(len(rows), generator=generator) for _ in range(30)]
    return float(np.quantile([distance(rows[order[:half]], rows[order[half:]]) for order in orders], 0.95))


def real_is_chance_and_spoiled_is_not(
    evaluator: Evaluator, name: str, half: Held, other: Held, by: dict[str, Callable[[Tensor, Tensor], float]]
) -> None:
    """Real against other real lies below the 95 % of chance, spoiled above, and the more spoiled the further."""
    rows = torch.cat([evaluator.see(each, None).rows(name) for each in (half, other)])
    chance = {metric: chance_quantile(rows, distance) for metric, distance in by.items()}
    value = {"real": distances(evaluator, half, other)}
    value |= {kind: distances(evaluator, half.spoiled(spoil), other) for kind, spoil in SPOILED.items()}
    for metric, most in chance.items():
        of = {kind: number(found[metric].value) for kind, found in value.items()}
        assert of["real"] < most, (metric, of, most)
        assert most < of["blur"] < of["more blur"], (metric, of, most)
        assert most < of["noise"] < of["more noise"], (metric, of, most)
        low = {kind: number(found[metric].low) for kind, found in value.items()}
        assert low["more blur"] > most, "the interval too"


class Filters(Features):
    """How strongly filters as they are drawn, blind to plain colour, answer in a picture, on average."""

    resize = "none"

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.randn(24, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        self.weight = drawn - drawn.mean(dim=(2, 3), keepdim=True)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return F.conv2d(images, self.weight).abs().mean(dim=(2, 3))


def test_spoiled_shapes_lie_further_from_shapes_than_other_shapes_do(tmp_path):
    protocol = a_protocol(measures=[measure_of("filters", "frechet", "kernel", "cmmd")])
    evaluator = an_evaluator(tmp_path / "judges", tmp_path / "work", protocol, batch_size=50)
    judge = Extractor(protocol.measures[0], Filters(), frozenset({"filters"}), None)
    evaluator.panel.extractors["filters"] = judge
    evaluator.panel.absent.clear()
    by = {"frechet": frechet, "kernel": kernel, "cmmd": cmmd}
    real_is_chance_and_spoiled_is_not(evaluator, "filters", drawn(150, 1), drawn(150, 2), by)


@pytest.mark.slow
@needs_emoji
def test_spoiled_emoji_lie_further_from_emoji_than_other_emoji_do(tmp_path):
    save_inception(tmp_path / "judges" / "inception")
    protocol = a_protocol(measures=[measure_of("inception", "kernel", resize="clean")])
    evaluator = an_evaluator(tmp_path / "judges", tmp_path / "work", protocol, batch_size=50)
    real_is_chance_and_spoiled_is_not(evaluator, "inception_clean", emoji(0, 300), emoji(2, 300), {"kernel": kernel})


# ---- captions -------------------------------------------------------------------------------------------------------

CLIP = {
    "kind": "train", "seed": 1, "image_px": SIDE, "patch_px": 8, "image_width": 32, "image_depth": 2,
    "text_width": 32, "text_depth": 1, "num_heads": 2, "embed_dim": 32, "context_length": 16, "word_steps": 100,
    "word_batch_size": 64, "word_lr": 0.004, "max_words": 128, "contrastive_steps": 100, "contrastive_batch_size": 64,
    "image_lr": 0.003, "text_lr": 0.003, "p_low_resolution": 0.0, "augment": [], "p_augment": 0.0,
    "weight_decay": 0.01,
}  # fmt: skip


def scores_of(tmp_path: Path, seen: Held, fresh: Held, **changes: int) -> dict[str, dict[str, float]]:
    """CLIP score and retrieval of fresh pictures, spoiled ones and shuffled captions, by a CLIP trained on others."""
    images = torch.stack(seen.read(range(seen.count)))
    clip = train_clip(TrainedClip.model_validate(CLIP | changes), images, seen.said, seed=0, device=CPU)
    save_clip(tmp_path / "judges" / "small_clip", clip)
    protocol = a_protocol(measures=[measure_of("small_clip", "clip_score", "retrieval")])
    evaluator = an_evaluator(tmp_path / "judges", tmp_path / "work", protocol, batch_size=50)
    shuffled = [fresh.said[i] for i in torch.randperm(fresh.count, generator=torch.Generator().manual_seed(0))]
    sets = {"real": (fresh, fresh.said), "shuffled": (fresh, shuffled)}
    sets |= {kind: (fresh.spoiled(spoil), fresh.said) for kind, spoil in SPOILED.items()}
    found = {}
    for kind, (pictures, captions) in sets.items():
        measurements = evaluator.evaluate(pictures, captions, None, {}, "").measurements
        found[kind] = {each.metric.partition("_1_of")[0]: number(each.value) for each in measurements}
    return found


@pytest.mark.slow
def test_shapes_agree_with_their_captions_more_than_spoiled_ones_and_far_more_than_with_shuffled_ones(tmp_path):
    found = scores_of(tmp_path, drawn(1500, 1), drawn(300, 2), word_steps=300, contrastive_steps=300)
    score = {kind: each["clip_score"] for kind, each in found.items()}
    assert score["real"] > score["more blur"] > score["shuffled"]
    assert score["real"] > score["more noise"] > score["shuffled"]
    assert found["real"]["retrieval"] > 4 / 32
    assert found["shuffled"]["retrieval"] < 3 / 32
    assert abs(score["shuffled"] - found["real"]["clip_score_of_wrong_captions"]) < 0.1 * (
        score["real"] - score["shuffled"]
    ), "shuffled captions are wrong captions"


@pytest.mark.slow
@needs_emoji
def test_emoji_agree_with_their_captions_more_than_with_shuffled_ones(tmp_path):
    """Pictures that the CLIP was trained on: in half a minute it learns no others."""
    pictures = emoji(0, 900)
    found = scores_of(tmp_path, pictures, pictures, word_steps=300, contrastive_steps=300, max_words=256)
    score = {kind: each["clip_score"] for kind, each in found.items()}
    assert score["real"] > score["more blur"] > score["shuffled"]
    assert score["real"] > score["more noise"] > score["shuffled"]
    assert found["real"]["retrieval"] > 2 * found["shuffled"]["retrieval"]
