"""Stage ``filter``: the rules, the split, the resize. Reads the score tables and never scores again."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stylegan_t.config import Config
from stylegan_t.data.images import EXTENSION, decode, encode, square
from stylegan_t.data.rules import KEPT, REASONS, SCORE_COLUMNS, judge, split
from stylegan_t.data.shards import MANIFEST, Sample, Shards, write_manifest, write_shards
from stylegan_t.errors import DataError
from stylegan_t.files import sha256, write_json
from stylegan_t.models.encoder_files import identity
from stylegan_t.progress import Progress
from stylegan_t.settings.data import Filter
from stylegan_t.stages.workspace import Workspace

MIN_HELDOUT = 2
"""Fewer have no covariance, so nothing can be measured against them."""
SCORE_AGAIN = "make it anew with `dvc repro --force --single-item score` (or `stylegan-t run score`)"


def run(config: Config, workspace: Workspace, device: str) -> None:
    """Write ``data/prepared``: train and heldout shards, and a report of what was dropped for which reason."""
    raw = Shards(workspace.raw)
    tables = open_scores(workspace, raw)
    scores = pa.concat_tables([pq.read_table(path, columns=list(SCORE_COLUMNS)) for path in tables])
    settings = config.filter
    reasons = judge(
        scores,
        min_side_px=settings.min_side_px,
        max_aspect_ratio=settings.max_aspect_ratio,
        min_caption_chars=settings.min_caption_chars,
        max_caption_chars=settings.max_caption_chars,
        drop_exact_duplicates=settings.drop_exact_duplicates,
        min_clip_score=settings.min_clip_score,
        keep_fraction=settings.keep_fraction,
    )
    kept = np.flatnonzero(reasons == KEPT)
    heldout = np.zeros(len(reasons), dtype=bool)
    heldout[kept] = split([raw.keys[row] for row in kept], settings.p_heldout, settings.variant_pattern)
    report = _report(reasons, heldout, scores, settings)
    sections = (config.train_generator, config.finetune_text_encoder, config.train_super_resolution)
    check_enough(report, max(section.batch_size for section in sections))

    shutil.rmtree(workspace.prepared, ignore_errors=True)
    encoder = identity(workspace.players / "clip")
    with Progress("filter", len(kept)) as progress:
        for name, rows in (("train", kept[~heldout[kept]]), ("heldout", kept[heldout[kept]])):
            folder = workspace.prepared / name
            samples = _prepared(raw, tables, rows, settings, progress)
            shards = write_shards(folder, samples, config.download.samples_per_shard)
            write_manifest(folder, "prepared", shards, encoder=encoder, image_px=settings.image_px)
    write_json(workspace.prepared / "report.json", report)


def open_scores(workspace: Workspace, raw: Shards) -> list[Path]:
    """The score table of each raw shard.

    Raises:
        DataError: They are missing, damaged, or belong to other shards or another encoder.
    """
    path = workspace.scores / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {SCORE_AGAIN}") from None
    except ValueError as error:
        raise DataError(f"{path}: not readable ({error}); {SCORE_AGAIN}") from None
    if manifest["raw"] != sha256(workspace.raw / MANIFEST) or manifest["num_samples"] != len(raw):
        raise DataError(f"{path}: scores of other shards than those in {workspace.raw}; {SCORE_AGAIN}")
    if manifest["encoder"] != identity(workspace.players / "clip"):
        raise DataError(f"{path}: scores by another encoder than {workspace.players / 'clip'}; {SCORE_AGAIN}")
    for entry in manifest["tables"]:
        table = workspace.scores / entry["file"]
        if not table.is_file() or sha256(table) != entry["sha256"]:
            raise DataError(f"{table}: missing or damaged; {SCORE_AGAIN}")
    return [workspace.scores / entry["file"] for entry in manifest["tables"]]


def check_enough(report: dict[str, Any], batch_size: int) -> None:
    """Raise DataError, with what each rule dropped, unless a batch and two held-out samples remain."""
    if report["train"] >= batch_size and report["heldout"] >= MIN_HELDOUT:
        return
    dropped = ", ".join(f"{reason} {count}" for reason, count in report["dropped"].items() if count) or "nothing"
    raise DataError(
        f"filter: of {report['total']} pairs, {report['train']} remain for training (a batch needs {batch_size}) and "
        f"{report['heldout']} for measuring (at least {MIN_HELDOUT}); dropped: {dropped}; loosen the rules or change "
        "p_heldout in params.yaml's section filter, or give more pictures"
    )


def _prepared(
    raw: Shards, tables: list[Path], rows: np.ndarray, settings: Filter, progress: Progress
) -> Iterator[Sample]:
    for shard, table in enumerate(tables):
        numbers = raw.shard_range(shard)
        mine = rows[(rows >= numbers.start) & (rows < numbers.stop)]
        embeddings = pq.read_table(table, columns=["text_embedding"])["text_embedding"].combine_chunks()
        c = embeddings.flatten().to_numpy().reshape(len(numbers), -1)
        for row in mine.tolist():
            sample = raw[row]
            picture = encode(square(decode(sample.image), settings.image_px), settings.image_format)
            fields = {
                "txt": sample.fields["txt"],
                "json": sample.fields["json"],
                "npy": _npy(c[row - numbers.start]),
            }
            yield Sample(sample.key, {EXTENSION[settings.image_format]: picture, **fields})
            progress.advance()


def _npy(vector: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, vector, allow_pickle=False)
    return out.getvalue()


def _report(reasons: np.ndarray, heldout: np.ndarray, scores: pa.Table, settings: Filter) -> dict[str, Any]:
    counts = Counter(reasons.tolist())
    kept_scores = scores["clip_score"].to_numpy()[reasons == KEPT]
    return {
        "total": len(reasons),
        "kept": counts[KEPT],
        "train": counts[KEPT] - int(heldout.sum()),
        "heldout": int(heldout.sum()),
        "dropped": {reason: counts[reason] for reason in REASONS},
        "lowest_clip_score_kept": float(kept_scores.min()) if len(kept_scores) else None,
        "settings": settings.model_dump(),
    }
