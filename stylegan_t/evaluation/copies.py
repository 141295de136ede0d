"""Whether a model copies: the training pictures nearest to its samples, as a judge sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from stylegan_t.evaluation.evaluator import Evaluator
from stylegan_t.evaluation.fakes import Painted
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.pictures import ShardPictures, Some, fitted
from stylegan_t.evaluation.scores import Reference
from stylegan_t.evaluation.sets import Seen
from stylegan_t.records import Neighbour, Neighbours
from stylegan_t.sampling import grid, save_webp, tile_px
from stylegan_t.settings.evaluation import Copies

SHEET = "nearest.webp"
STRICT = 0.99
"""Share of held-out pictures that a sample must be nearer than, to be called close."""


def training_pictures(train: ShardPictures, settings: Copies) -> Some:
    """Those that samples are compared with: all, or an even selection."""
    count = min(train.count, settings.max_training_images)
    return Some(train, np.linspace(0, train.count - 1, count).round().astype(int).tolist())


def find_copies(
    evaluator: Evaluator,
    painted: Painted,
    train: Some,
    heldout: Reference,
    px: int | None,
    name: str,
    settings: Copies,
    folder: Path,
) -> Neighbours:
    """Compare samples with training pictures, and write a sheet of those that come nearest.

    The first so many samples count. How near held-out pictures come to training pictures is the yardstick: a model
    that invents comes as near as they do, one that copies comes nearer (Carlini et al. 2023, arXiv:2301.13188, search
    for copies in the same way).

    Args:
        heldout: The real pictures that were not trained on.
        name: The extractor to compare by.
        folder: Where the sheet goes.
    """
    seen = evaluator.see(train, px, "training pictures")
    samples = evaluator.see(painted, px).rows(name, settings.num_samples)
    nearest, numbers = neighbours_of(samples, seen, name, settings.num_neighbours)
    of_heldout, _ = neighbours_of(heldout.features.cpu(), seen, name, 1)
    shown = nearest[:, 0].argsort(descending=True, stable=True)[: settings.num_shown].tolist()
    rows = [[painted_first(painted, row, px), *fitted(train.read(numbers[row].tolist()), px)] for row in shown]
    tiles = torch.stack([tile for row in rows for tile in row])
    save_webp(folder / SHEET, grid(tiles, columns=len(rows[0])))
    line = torch.quantile(of_heldout[:, 0], STRICT)
    return Neighbours(
        sheet=SHEET,
        tile_px=tile_px(tiles.shape[-1]),
        extractor=name,
        in_training=evaluator.panel.extractors[name].in_training,
        num_training=train.count,
        prompts=[painted.prompts[row] for row in shown],
        neighbours=[
            [
                Neighbour(key=train.key(number), caption=train.caption(number), cosine=round(cosine, 6))
                for number, cosine in zip(numbers[row].tolist(), nearest[row].tolist(), strict=True)
            ]
            for row in shown
        ],
        median_of_samples=nearest[:, 0].median().item(),
        median_of_heldout=of_heldout[:, 0].median().item(),
        closer_than_heldout=(nearest[:, 0] > line).double().mean().item(),
        num_samples=len(samples),
    )


def painted_first(painted: Painted, row: int, px: int | None) -> UInt8[Tensor, "3 _ _"]:
    return fitted(painted.read([row]), px)[0]


def neighbours_of(
    features: Float[Tensor, "n d"], seen: Seen, name: str, count: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Cosines and numbers of the nearest pictures of a set, nearest first; memory does not grow with the set."""
    wanted = F.normalize(features.double(), dim=1).float()
    best, numbers = torch.zeros(len(features), 0), torch.zeros(len(features), 0, dtype=torch.int64)
    first = 0
    for part in seen.parts(name):
        cosines = wanted @ F.normalize(part.double(), dim=1).float().T
        both = torch.cat([best, cosines], dim=1)
        which = torch.arange(first, first + len(part)).expand(len(features), -1)
        best, chosen = both.topk(min(count, both.shape[1]), dim=1)
        numbers = torch.cat([numbers, which], dim=1).gather(1, chosen)
        first += len(part)
    return best, numbers


def extractor_for_copies(panel: Panel) -> str:
    """The first judge that did not take part in the training, else the first."""
    fair = [name for name, each in panel.extractors.items() if not each.in_training]
    return (fair or list(panel.extractors))[0]
