"""Stage ``filter``: the rules, the split, the resize. Reads the score tables and never scores again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_t.config import Config
from stylegan_t.data.prepare import SHARDS_FILE, SPLITS, PrepareShard, new_keys, read_plan, write_plan
from stylegan_t.data.rules.blocklists import Blocklist, read_blocklist
from stylegan_t.data.rules.captions import CaptionRules
from stylegan_t.data.rules.duplicates import Likeness
from stylegan_t.data.rules.judge import Rules, judge
from stylegan_t.data.rules.pictures import PictureRules, Threshold
from stylegan_t.data.scores import Scores, open_scores
from stylegan_t.data.shards import MANIFEST, Shards, write_manifest
from stylegan_t.errors import DataError
from stylegan_t.files import sha256, write_json
from stylegan_t.models.encoder_files import identity
from stylegan_t.progress import Progress
from stylegan_t.settings.filter import Blocklist as BlocklistFile
from stylegan_t.settings.filter import Filter
from stylegan_t.stages import filter_report
from stylegan_t.stages.code import code_hash
from stylegan_t.stages.filter_report import REJECTED, REPORT
from stylegan_t.stages.parts import PartRange, open_parts
from stylegan_t.stages.workspace import Workspace

MIN_HELDOUT = 2
"""Fewer have no covariance, so nothing can be measured against them."""


def run(
    config: Config, workspace: Workspace, device: str, parts: PartRange | None = None, afresh: bool = False
) -> None:
    """Write ``data/prepared``: train and heldout shards, and a report of what was dropped for which reason.

    A killed run goes on with the shards that were not finished; other rules start from nothing.

    Args:
        parts: Make only these of the prepared shards; see ``open_parts``.
        afresh: Forget the parts that are finished.
    """
    settings, samples_per_shard = config.filter, config.download.samples_per_shard
    raw, encoder = Shards(workspace.raw), identity(workspace.players / "clip")
    scores = open_scores(workspace.scores, sha256(workspace.raw / MANIFEST), encoder)
    blocklists = [open_blocklist(entry, workspace.root) for entry in settings.blocklists]
    asked = settings.model_dump(mode="json", exclude={"engine"})
    facts = [asked, blocklists_told(blocklists), samples_per_shard, sha256(workspace.scores / MANIFEST)]
    facts.append(code_hash("filter"))
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    with open_parts(workspace.state("filter", digest), parts, afresh) as made:
        made.plan(partial(decide, made.folder, raw, scores, settings, blocklists, samples_per_shard))
        sections = (config.train_generator, config.finetune_text_encoder, config.train_super_resolution)
        report = json.loads((made.folder / REPORT).read_text())
        check_enough(report, max(section.batch_size for section in sections))

        planned = read_plan(made.scratch)
        sizes = [shard["num_samples"] for shard in planned]
        chosen, done = made.chosen(len(sizes)), made.finished(len(sizes))
        work = PrepareShard(
            made.scratch, made.folder, workspace.raw, scores, settings.image_px, settings.image_format
        )  # fmt: skip
        with Progress("filter", sum(sizes[n] for n in chosen), done=sum(sizes[n] for n in done)) as progress:
            entries = made.make(work, len(sizes), settings.engine, lambda n, _: progress.advance(sizes[n]))
        if entries is not None:
            for split in SPLITS:
                mine = [entry for entry, shard in zip(entries, planned, strict=True) if shard["split"] == split]
                write_manifest(made.folder / split, "prepared", mine, encoder=encoder, image_px=settings.image_px)
            made.publish(workspace.prepared)


def decide(
    folder: Path,
    raw: Shards,
    scores: Scores,
    settings: Filter,
    blocklists: list[Blocklist],
    samples_per_shard: int,
    scratch: Path,
) -> int:
    """Ask the rules, write the report and which pairs go into which shard; the number of shards.

    What an earlier process decided stays: the last file that it writes is the plan in ``scratch``.
    """
    if (scratch / SHARDS_FILE).is_file():
        return len(read_plan(scratch))
    judgement = judge(scores, rules_of(settings, blocklists), scratch, watched)
    (scratch / "embeddings.npy").unlink(missing_ok=True)
    of_shard = [entry.get("dataset") for entry in raw.manifest["shards"]]
    datasets = list(dict.fromkeys(of_shard))
    dataset = np.repeat(np.array([datasets.index(name) for name in of_shard], np.int64), raw.shard_sizes)

    counts = filter_report.count(judgement, dataset, datasets)
    thresholds = filter_report.in_force(settings, judgement.cutoffs)
    filter_report.write_rejected(folder / REJECTED, judgement, scores, raw)
    report = counts | {
        "thresholds": thresholds,
        "plots": filter_report.draw_plots(folder, judgement, thresholds),
        "samples": filter_report.draw_sheets(folder, judgement, raw),
        "settings": settings.model_dump(mode="json", exclude={"engine"}),
        "blocklists": blocklists_told(blocklists),
    }
    write_json(folder / REPORT, report)
    each = judgement.each
    shards = write_plan(
        scratch, judgement.verdicts.passing, judgement.heldout, dataset, datasets, each.caption_starts,
        each.caption_kept, new_keys(each.keys, judgement.hashes, raw.shard_sizes), samples_per_shard,
    )  # fmt: skip
    return len(shards)


@contextmanager
def watched(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for a step of the rules."""
    with Progress(f"filter: {what}", total, unit="pairs", shown=total > 0) as progress:
        yield progress.advance


def open_blocklist(entry: BlocklistFile, root: Path) -> Blocklist:
    """The list in a file. Raises DataError where it is missing, damaged, or another than the settings say."""
    blocklist = read_blocklist(entry.kind, root / Path(entry.path).expanduser())
    if entry.sha256 not in (None, blocklist.sha256):
        raise DataError(
            f"{entry.path}: its sha256 is {blocklist.sha256}, and in params.yaml (filter.blocklists) {entry.sha256}; "
            "give the file that is meant, or the hash of this one"
        )
    return blocklist


def blocklists_told(blocklists: list[Blocklist]) -> list[dict[str, Any]]:
    """What the report says of the lists."""
    return [{"kind": each.kind, "entries": len(each.entries), "sha256": each.sha256} for each in blocklists]


def rules_of(settings: Filter, blocklists: list[Blocklist]) -> Rules:
    """The rules that the settings describe."""
    thresholds = [Threshold(each.column, each.min, each.max, each.keep_fraction) for each in settings.thresholds]
    copies, near = settings.duplicates, settings.decontamination
    return Rules(
        pictures=PictureRules(
            min_side=settings.min_side_px,
            max_aspect=settings.max_aspect_ratio,
            thresholds=tuple(thresholds),
            blocklists=tuple(blocklists),
        ),
        captions=CaptionRules(
            min_chars=settings.min_caption_chars,
            max_chars=settings.max_caption_chars,
            min_words=settings.min_caption_words,
            max_words=settings.max_caption_words,
            min_letters=settings.min_caption_letters,
            drop_urls=settings.drop_url_captions,
            boilerplate=tuple(settings.boilerplate_captions),
            languages=None if settings.languages is None else tuple(settings.languages),
            min_clip_score=settings.min_clip_score,
        ),
        keep_fraction=settings.keep_fraction,
        duplicates=Likeness(copies.same_pixels, copies.max_perceptual_distance, copies.min_cosine),
        cell_size=copies.cell_size,
        decontamination=Likeness(near.same_pixels, near.max_perceptual_distance, near.min_cosine),
        p_heldout=settings.p_heldout,
        variant_pattern=settings.variant_pattern,
    )


def check_enough(report: dict[str, Any], batch_size: int) -> None:
    """Raise DataError, with what each rule dropped, unless a batch and two held-out samples remain."""
    if report["train"] >= batch_size and report["heldout"] >= MIN_HELDOUT:
        return
    dropped = ", ".join(f"{step['reason']} {step['dropped']}" for step in report["funnel"] if step["dropped"])
    raise DataError(
        f"filter: of {report['total']} pairs, {report['train']} remain for training (a batch needs {batch_size}) and "
        f"{report['heldout']} for measuring (at least {MIN_HELDOUT}); dropped: {dropped or 'nothing'}; loosen the "
        "rules or change p_heldout in params.yaml's section filter, or give more pictures"
    )
