"""Measures any model or folder of pictures by a protocol: ``stylegan-t evaluate``, which needs no pipeline."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stylegan_t import records
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.evaluation.evaluator import Evaluator
from stylegan_t.evaluation.fakes import Model, Painted, device_name, model_sha256
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.pictures import Pictures, choose_captions, open_pictures
from stylegan_t.evaluation.protocols import OTHER, load_protocol, protocol_name, renamed
from stylegan_t.evaluation.reals import first_captions
from stylegan_t.evaluation.scores import absences
from stylegan_t.evaluation.sets import Share
from stylegan_t.files import sha256, write_text
from stylegan_t.models.bundle import load_bundle
from stylegan_t.models.judges import save_absent, why_absent
from stylegan_t.models.weights import CONFIG
from stylegan_t.progress import Progress
from stylegan_t.prompts import check_psi, read_prompts
from stylegan_t.randomness import image_seeds
from stylegan_t.records import Evaluation
from stylegan_t.settings.protocol import Protocol
from stylegan_t.stages.pretrained import PretrainedJudge, check_judge, fetch_judge
from stylegan_t.stages.reference_statistics import measured_px
from stylegan_t.stages.seen import device_of, sets_folder

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_TRIES = 3600.0
PIPELINE_JUDGES = Path("artifacts/fetch_encoders/judges")
ORIGIN = "origin.txt"
"""In a judge's folder of ``work``: where it came from."""


@dataclass(frozen=True)
class Request:
    """What is to be measured, as the command line says it.

    Attributes:
        model: A bundle; or
        images: a folder of pictures, or shards.
        against: Real pictures, as ``images``.
        protocol: Name or file.
        captions: A file with one caption a line, for each of ``images`` in the order of their names, or to be painted.
        judges: Folder of networks; None: the pipeline's here, or those that the protocol names, kept in ``work``.
        weights: Local files of judges, by their name; they take precedence.
        num_images, psi, seed: Of a model's pictures; None: as many as the protocol says.
    """

    model: Path | None
    images: Path | None
    against: Path
    protocol: str
    captions: Path | None
    judges: Path | None
    weights: dict[str, Path]
    num_images: int | None
    psi: float
    seed: int
    batch_size: int
    device: str
    work: Path


def measure(request: Request) -> Evaluation | None:
    """The evaluation; None in all processes under torchrun but the first.

    What the judges saw stays in ``request.work``: a stopped command goes on there, and another one against the same
    pictures begins with what is known.

    Raises:
        SettingsError: An argument is wrong.
        DataError: Pictures, a model or all judges are missing or damaged.
    """
    _check(request)
    protocol, share = load_protocol(request.protocol), Share.of_torchrun()
    device = device_of(request.device, share)
    reals = open_pictures(request.against)
    protocol = renamed(protocol, reals.count)
    subject, captions, players = _subject(request, protocol, reals, device)
    for pictures in (reals, subject):
        if pictures.count < 2:
            raise DataError(f"{pictures.name}: {pictures.count} picture; a set of at least 2 can be measured")
    px = measured_px(subject.model.resolution, protocol) if isinstance(subject, Painted) else protocol.image_px
    if share.rank == 0:
        _warn(protocol, px, reals, subject)
    folder, elsewhere = _judges(request, protocol, share)
    panel = Panel(folder, protocol.measures, device, players, elsewhere)
    if not panel.extractors:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in panel.absent.items())
        raise DataError(f"nothing can be measured, no judge is there: {reasons}")
    many = _best_of(request, protocol, panel, subject)
    total = reals.count + subject.count + (many.count if many else 0)
    if share.rank == 0:
        logger.info("protocol %s: %s", request.protocol, protocol.description)
    with Progress("evaluate", total, shown=share.rank == 0) as progress:
        evaluator = Evaluator(
            protocol_name(request.protocol), protocol, panel, sets_folder(request.work / "sets", device),
            batch_size=request.batch_size, seed=request.seed, share=share, progress=progress,
        )  # fmt: skip
        start = time.perf_counter()
        found = _evaluated(evaluator, request, px, reals, subject, captions, many)
        made_on = f"{device_name(device)}, torch {torch.__version__}"
        return found and found.model_copy(update={"made_on": made_on, "seconds": time.perf_counter() - start})


def _check(request: Request) -> None:
    """Raise SettingsError for arguments that do not go together."""
    if (request.model is None) == (request.images is None):
        raise SettingsError("give --model DIR or --images DIR, one of them")
    check_psi(request.psi)
    if request.images and request.num_images:
        raise SettingsError("--num-images: of a model's pictures; of --images all are measured")
    if request.images and request.psi != 1:
        raise SettingsError("--psi: of a model's pictures; --images are as they are")


def _warn(protocol: Protocol, px: int | None, reals: Pictures, subject: Pictures) -> None:
    """Say what makes numbers less comparable than their protocol promises."""
    if protocol.reference == OTHER:
        logger.warning(
            "%s: %d pictures, and the protocol's are %d: the metrics' names say %s",
            reals.name, reals.count, protocol.reference_count, OTHER,
        )  # fmt: skip
    for pictures in (reals, subject):
        if px and not isinstance(pictures, Painted) and (side := min(pictures.read([0])[0].shape[1:])) < px:
            logger.warning(
                "%s: its first picture has a side of %d px and is enlarged to %d px; such numbers are not comparable "
                "with those of pictures of that size",
                pictures.name, side, px,
            )  # fmt: skip


def _best_of(request: Request, protocol: Protocol, panel: Panel, subject: Pictures) -> Painted | None:
    """Several pictures of each of the first prompts, where a judge chooses among them."""
    best = protocol.best_of
    wanted = any("best_of" in each.measure.metrics for each in panel.extractors.values())
    if not (best and wanted and isinstance(subject, Painted)):
        return None
    prompts = [caption for caption in subject.prompts[: best.num_prompts] for _ in range(best.num_pictures)]
    return Painted(subject.model, prompts, image_seeds(request.seed, "best of", 0, len(prompts)), request.psi)


def _evaluated(
    evaluator: Evaluator,
    request: Request,
    px: int | None,
    reals: Pictures,
    subject: Pictures,
    captions: list[str] | str,
    many: Painted | None,
) -> Evaluation | None:
    """All that is measured; None in all processes but the first."""
    painted, protocol = isinstance(subject, Painted), evaluator.protocol
    for pictures in filter(None, (reals, subject, many)):
        evaluator.see(pictures, px)
    for texts in (captions, many.prompts if many else ""):
        if not isinstance(texts, str):
            evaluator.read(texts)
    if not evaluator.meet():
        return None
    seeds = f"images 0 to {subject.count - 1} of 'evaluate 0', seed {request.seed}" if painted else None
    references = evaluator.references(reals, px)
    found = evaluator.evaluate(subject, captions, px, references, reals.identity, seeds=seeds)
    if many and protocol.best_of:
        more = evaluator.best_of(many, px, protocol.best_of.num_pictures)
    else:
        reasons = dict.fromkeys(evaluator.panel.extractors, "the best of several pictures of a prompt needs a --model")
        more = absences(protocol, reasons, subject.count, px, only="best_of")
    return found.model_copy(update={"measurements": [*found.measurements, *more]})


def _subject(
    request: Request, protocol: Protocol, reals: Pictures, device: torch.device
) -> tuple[Pictures, list[str] | str, frozenset[str] | None]:
    """What is measured, its captions (or why there are none), and the weights that took part in its training."""
    given = read_prompts(request.captions) if request.captions else None
    if request.images:
        pictures = open_pictures(request.images)
        if given is not None and len(given) != pictures.count:
            raise SettingsError(
                f"{request.captions}: {len(given)} captions for {pictures.count} pictures in {request.images}; "
                "write one a line, in the order of the pictures' names"
            )
        return pictures, given if given is not None else first_captions(pictures), None
    assert request.model is not None
    bundle = load_bundle(request.model)
    model = Model(str(request.model), bundle, model_sha256(request.model), request.batch_size, device)
    said = [[caption] for caption in given] if given is not None else reals.captions()
    prompts = choose_captions(
        said, protocol.captions, request.num_images or protocol.num_images, protocol.caption_seed
    )  # fmt: skip
    seeds = image_seeds(request.seed, "evaluate 0", 0, len(prompts))
    return Painted(model, prompts, seeds, request.psi), prompts, bundle.players


def _judges(request: Request, protocol: Protocol, share: Share) -> tuple[Path, dict[str, Path]]:
    """A folder of judges, and the folders of those that lie elsewhere since a local file of them was given.

    The first process fetches what is not there, or notes it as absent; the others wait for it.
    """
    if unknown := sorted(set(request.weights) - set(protocol.judges)):
        raise SettingsError(
            f"--weights {unknown[0]}=…: the protocol names no such judge; use {', '.join(protocol.judges) or 'none'}"
        )
    if request.judges and not request.judges.is_dir():
        raise DataError(f"{request.judges}: no such folder of judges")
    ours = request.work / "judges"
    folder = request.judges or (PIPELINE_JUDGES if PIPELINE_JUDGES.is_dir() else ours)
    fetched = set(request.weights)
    for name, settings in protocol.judges.items():
        given = request.weights.get(name)
        if given:
            local = settings.model_copy(update={"weights": str(given)})
            check_judge(f"--weights {name}", local)
            if share.rank == 0:
                try:
                    _fetch(local, ours / name, f"{local.model_dump_json()} {sha256(given)}")
                except DataError as error:
                    raise DataError(f"--weights {name}={given}: {error}") from None
        elif not request.judges and (folder == ours or why_absent(folder, name) is not None):
            fetched.add(name)
            if share.rank == 0:
                _fetch_or_note(settings, ours / name)
    share.wait_for_all()
    return folder, {name: ours / name for name in fetched}


def _fetch_or_note(settings: PretrainedJudge, folder: Path) -> None:
    """Fetch a judge, or note why it cannot be had: for an hour that is believed, for each try takes long."""
    note = folder / CONFIG
    lately = note.is_file() and time.time() - note.stat().st_mtime < SECONDS_BETWEEN_TRIES
    if lately and why_absent(folder.parent, folder.name) is not None:
        return
    try:
        _fetch(settings, folder, settings.model_dump_json())
    except DataError as error:
        save_absent(folder, str(error))


def _fetch(settings: PretrainedJudge, folder: Path, origin: str) -> None:
    """Fetch a judge, unless it is there and came from the same place: the name says nothing of its weights."""
    known = (folder / ORIGIN).read_text() if (folder / ORIGIN).is_file() else None
    if known == origin and why_absent(folder.parent, folder.name) is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    fetch_judge(settings, folder)
    write_text(folder / ORIGIN, origin)


def show(found: Evaluation, console: Console) -> None:
    """The numbers as a table, those that lead first, and why others are absent."""
    table = Table(
        title=escape(f"{found.subject}, protocol {found.protocol}, {found.count} pictures"), title_justify="left"
    )
    for column in ("metric", "value", "95 %", "remark"):
        table.add_column(column, justify="right" if column in ("value", "95 %") else "left", overflow="fold")
    known = [each for each in found.measurements if each.value is not None]
    for each in sorted(known, key=lambda each: not each.leads):
        interval = "" if each.low is None or each.high is None else f"{each.low:.4g} … {each.high:.4g}"
        remarks = [each.note or ""]
        if each.in_training:
            remarks.append("its network took part in the training")
        table.add_row(each.name, f"{each.value:.5g}", interval, "; ".join(filter(None, remarks)))
    console.print(table)
    absent: dict[str, list[str]] = {}
    for each in found.measurements:
        if each.absent:
            absent.setdefault(each.absent, []).append(each.name)
    for reason, names in absent.items():
        console.print(f"absent: {', '.join(names)}: {reason}", markup=False, highlight=False)


def write(found: Evaluation, out: Path) -> None:
    """Keep the record, and say where."""
    records.write_record(out, found)
    print(f"record: {out}")


def default_work() -> Path:
    """Where sets and judges are kept: in a workspace its state folder, else the user's cache."""
    if Path("params.yaml").is_file():
        return Path(".state/evaluate_by_hand")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stylegan-t"


def parse_weights(given: Sequence[str]) -> dict[str, Path]:
    """``NAME=FILE`` pairs. Raises SettingsError."""
    found = {}
    for each in given:
        name, sign, file = each.partition("=")
        if not (name and sign and file):
            raise SettingsError(f"--weights {each}: write NAME=FILE, e.g. inception=inception-2015-12-05.pt")
        found[name] = Path(file)
    return found
