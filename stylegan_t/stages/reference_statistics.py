"""What real images look like to the judges, which every model is measured against; once per data, judges and side."""

from __future__ import annotations

import logging
from typing import Any

import torch

from stylegan_t.config import Config
from stylegan_t.errors import DataError
from stylegan_t.evaluation.evaluator import Evaluator, references
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.pictures import Pictures, open_pictures
from stylegan_t.evaluation.protocols import OTHER, load_protocol, protocol_name, renamed
from stylegan_t.evaluation.reals import first_captions, measure_reals
from stylegan_t.evaluation.reference import save_statistics
from stylegan_t.evaluation.scores import FEWEST_FOR_FRECHET
from stylegan_t.evaluation.sets import Share
from stylegan_t.models.encoder_files import player_weights
from stylegan_t.progress import Progress
from stylegan_t.settings.protocol import Protocol
from stylegan_t.stages.seen import device_of, seen_sets
from stylegan_t.stages.workspace import Workspace

NAME = "reference_statistics"
FEWEST_IMAGES = 8

log = logging.getLogger(__name__)


def reals_of(against: str | None, workspace: Workspace) -> Pictures:
    """The real pictures that models are measured against: the held-out ones, or those that ``evaluate.against`` names.

    Raises:
        DataError: There are none, or too few.
    """
    reals = open_pictures(workspace.root / against if against else workspace.prepared / "heldout")
    if reals.count < FEWEST_IMAGES:
        raise DataError(
            f"{reals.name}: {reals.count} real images; measuring needs at least {FEWEST_IMAGES}: "
            "use more data or a larger filter.p_heldout"
        )
    return reals


def origin(reals: Pictures, panel: Panel) -> dict[str, str]:
    """Digests of what the statistics are made from."""
    return {"reals": reals.identity} | {f"judge {name}": identity for name, identity in panel.identity.items()}


def panel_of(workspace: Workspace, protocol: Protocol, device: torch.device) -> Panel:
    """The judges that the protocol asks for, of which at least one is there. Raises DataError."""
    panel = Panel(workspace.judges, protocol.measures, device, player_weights(workspace.players))
    if not panel.extractors:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in panel.absent.items())
        raise DataError(
            f"{workspace.judges}: no judge that the protocol asks for, so nothing can be measured ({reasons}); "
            "name one of fetch_encoders.judges as the protocol does, or use another evaluate.protocol"
        )
    return panel


def measured_px(resolution: int, protocol: Protocol) -> int:
    """Side at which the pictures of a model are measured: the protocol's, or their own if that is smaller."""
    return min(resolution, protocol.image_px or resolution)


def run(config: Config, workspace: Workspace, device: str, afresh: bool = False) -> None:
    """Measure all real images at each side at which a training stage's model is measured.

    Under torchrun, each process looks at its share of the images.

    Args:
        afresh: Forget what a stopped run saw.
    """
    share = Share.of_torchrun()
    reals = reals_of(config.evaluate.against, workspace)
    protocol = renamed(load_protocol(config.evaluate.protocol, workspace.root), reals.count)
    small, large = config.train_generator.resolutions[-1], config.train_super_resolution.resolutions[-1]
    trained = {large if stage == "train_super_resolution" else small for stage in config.evaluate.stages}
    sizes = sorted({measured_px(resolution, protocol) for resolution in trained})
    panel = panel_of(workspace, protocol, device_of(device, share))
    if share.rank == 0:
        _warn(protocol, config.evaluate.protocol, reals.count)
    found: dict[int, dict[str, Any]] = {}
    scores = []
    with (
        seen_sets(workspace.state(NAME), panel.device, share, afresh) as work,
        Progress(NAME, reals.count * len(sizes), shown=share.rank == 0) as progress,
    ):
        evaluator = Evaluator(
            protocol_name(config.evaluate.protocol), protocol, panel, work,
            batch_size=config.reference_statistics.batch_size, seed=config.seed, share=share, progress=progress,
        )  # fmt: skip
        look(evaluator, reals, sizes)
        if not evaluator.meet():
            return
        for px in sizes:
            found[px] = references(evaluator.see(reals, px), panel)
            scores.append(measure_reals(evaluator, reals, px).model_dump())
        facts = {"num_images": reals.count, "origin": origin(reals, panel), "absent": panel.absent, "reals": scores}
        save_statistics(workspace.artifacts(NAME), found, facts)


def _warn(protocol: Protocol, name: str, count: int) -> None:
    """Say what makes numbers less than their protocol promises."""
    if protocol.reference == OTHER:
        log.warning(
            "%s: %d real images, and those of protocol %s are %d (see evaluate.against): the metrics' names say %s",
            NAME, count, name, protocol.reference_count, OTHER,
        )  # fmt: skip
    if count < FEWEST_FOR_FRECHET:
        log.warning("%s: %d real images are few for Fréchet distances: read the kernel distance or CMMD", NAME, count)


def look(evaluator: Evaluator, reals: Pictures, sizes: list[int]) -> None:
    """Make this process's share of all parts."""
    for px in sizes:
        evaluator.see(reals, px)
    captions = first_captions(reals)
    if not isinstance(captions, str):
        evaluator.read(captions)
