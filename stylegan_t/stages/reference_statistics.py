"""Features of the held-out real images, which every model is measured against; once per data and judges."""

from __future__ import annotations

import logging

from stylegan_t.config import Config
from stylegan_t.data.shards import MANIFEST, Shards
from stylegan_t.device import pick_device
from stylegan_t.errors import DataError
from stylegan_t.evaluation.captions import Captions, read_captions
from stylegan_t.evaluation.panel import Measured, Panel, joined
from stylegan_t.evaluation.reference import real_images, reduced, reference_of, save_statistics
from stylegan_t.evaluation.scores import agreement, distances_of_halves
from stylegan_t.files import sha256
from stylegan_t.progress import Progress
from stylegan_t.randomness import derive_seed
from stylegan_t.stages.workspace import Workspace

NAME = "reference_statistics"
FEWEST_IMAGES = 4

log = logging.getLogger(__name__)


def resolutions(config: Config) -> list[int]:
    """The resolutions that the training stages end at, where their models are measured."""
    return [config.train_generator.resolutions[-1], config.train_super_resolution.resolutions[-1]]


def origin(workspace: Workspace, panel: Panel) -> dict[str, str]:
    """Content hashes of what the statistics are made from."""
    return {"heldout": sha256(workspace.prepared / "heldout" / MANIFEST)} | {
        f"judge_{name}": its for name, its in panel.identities.items()
    }


def run(config: Config, workspace: Workspace, device: str) -> None:
    """Measure all held-out images at each training stage's final resolution."""
    heldout = Shards(workspace.prepared / "heldout")
    if len(heldout) < FEWEST_IMAGES:
        raise DataError(
            f"{heldout.folder}: {len(heldout)} held-out images; measuring needs at least {FEWEST_IMAGES}: "
            "use more data or a larger filter.p_heldout"
        )
    panel = Panel(workspace.judges, pick_device(device))
    captions = Captions(read_captions(heldout), panel.encode_text, derive_seed(config.seed, "wrong captions"))
    measured = measure_reals(heldout, resolutions(config), panel, config.reference_statistics.batch_size)
    count, width = measured[resolutions(config)[0]].features.shape
    if count <= width:
        log.warning(
            "%s: %d images for %d features: the covariance is singular, so Fréchet distances mean little; "
            "read the kernel distance", NAME, count, width,
        )  # fmt: skip
    facts = {
        "num_images": count,
        "num_features": width,
        "origin": origin(workspace, panel),
        "reals": {str(px): real_scores(each, captions) for px, each in measured.items()},
    }
    references = {px: reference_of(each.features) for px, each in measured.items()}
    save_statistics(workspace.artifacts(NAME), references, facts)


def real_scores(measured: Measured, captions: Captions) -> dict[str, float]:
    """What the judges say of the real images themselves."""
    of_halves = {f"{name}_of_halves": value for name, value in distances_of_halves(measured).items()}
    return agreement(measured, captions) | of_halves


def measure_reals(heldout: Shards, sizes: list[int], panel: Panel, batch_size: int) -> dict[int, Measured]:
    """All held-out images as the judges see them, by resolution."""
    parts: dict[int, list[Measured]] = {px: [] for px in sizes}
    with Progress(NAME, len(heldout) * len(sizes)) as progress:
        for first in range(0, len(heldout), batch_size):
            images = real_images(heldout, range(first, min(first + batch_size, len(heldout))))
            for px in sizes:
                parts[px].append(panel.measure(reduced(images, px)))
                progress.advance(len(images))
    return {px: joined(each) for px, each in parts.items()}
