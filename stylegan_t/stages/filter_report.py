"""What the filter tells of itself: ``report.json``, plots, contact sheets, and the table of what it dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from stylegan_t.data.plots import plot_funnel, plot_histogram
from stylegan_t.data.rules.judge import Judgement
from stylegan_t.data.scores import Scores, flat, write_table
from stylegan_t.data.shards import Shards
from stylegan_t.data.sheets import COLUMNS, NUM_TILES, TILE_PX, draw_rows, save_sheet
from stylegan_t.settings.filter import Filter

REPORT, REJECTED, PLOTS = "report.json", "rejected.parquet", "plots"
TITLES = {
    "side_px": "shorter side, pixels",
    "aspect": "longer side over the shorter",
    "caption_chars": "characters of the first caption",
    "caption_words": "words of the first caption",
    "caption_letters": "share of letters in the first caption",
    "clip_score": "CLIP similarity to the best caption",
    "sharpness": "sharpness (variance of the Laplacian)",
}
REASONS_OF = {
    "side_px": ["too_small"], "aspect": ["aspect"], "caption_chars": ["caption_too_short", "caption_too_long"],
    "caption_words": ["caption_few_words", "caption_many_words"], "caption_letters": ["caption_few_letters"],
}  # fmt: skip


def count(judgement: Judgement, dataset: Int64[np.ndarray, " n"], datasets: Sequence[str | None]) -> dict[str, Any]:
    """How many pairs and captions there were, and what became of them: by reason, and by dataset if there are some."""
    verdicts, heldout = judgement.verdicts, judgement.heldout
    kept, dropped = verdicts.passing, verdicts.count()
    scores = judgement.each.numbers["clip_score"][kept]
    captions = dict(judgement.each.caption_counts)
    left, funnel = len(verdicts), []
    for reason, number in dropped.items():
        left -= number
        funnel.append({"reason": reason, "dropped": number, "left": left})
    return {
        **_sides(np.ones(len(verdicts), bool), kept, heldout),
        "dropped": dropped,
        "funnel": funnel,
        "captions": {"kept": captions.pop("kept"), "dropped": captions},
        "datasets": {
            name: _sides(dataset == number, kept, heldout) for number, name in enumerate(datasets) if name is not None
        },
        "cutoffs": judgement.cutoffs,
        "lowest_clip_score_kept": float(scores.min()) if len(scores) else None,
    }


def _sides(
    mine: Bool[np.ndarray, " n"], kept: Bool[np.ndarray, " n"], heldout: Bool[np.ndarray, " n"]
) -> dict[str, int]:
    stays = mine & kept
    held = int((stays & heldout).sum())
    return {"total": int(mine.sum()), "kept": int(stays.sum()), "train": int(stays.sum()) - held, "heldout": held}


def in_force(settings: Filter, cutoffs: dict[str, float | None]) -> dict[str, list[float]]:
    """The thresholds on each number that was measured, those that a kept fraction came to among them."""
    on: dict[str, list[float | None]] = {
        "side_px": [settings.min_side_px],
        "aspect": [settings.max_aspect_ratio],
        "caption_chars": [settings.min_caption_chars, settings.max_caption_chars],
        "caption_words": [settings.min_caption_words, settings.max_caption_words],
        "caption_letters": [settings.min_caption_letters],
        "clip_score": [settings.min_clip_score],
    }
    for threshold in settings.thresholds:
        on.setdefault(threshold.column, []).extend([threshold.min, threshold.max])
    for column, cutoff in cutoffs.items():
        on.setdefault(column, []).append(cutoff)
    return {name: [float(value) for value in values if value is not None] for name, values in on.items()}


def draw_plots(folder: Path, judgement: Judgement, thresholds: dict[str, list[float]]) -> list[dict[str, str]]:
    """The funnel and a histogram of each number; returns files (relative to the report) and titles."""
    verdicts = judgement.verdicts
    plot_funnel(folder / PLOTS / "funnel.png", len(verdicts), verdicts.count())
    plots = [{"file": f"{PLOTS}/funnel.png", "title": "pairs left after each rule"}]
    for name, values in judgement.each.numbers.items():
        reasons = [*REASONS_OF.get(name, []), f"low_{name}", f"high_{name}"]
        codes = [verdicts.code(reason) for reason in reasons if reason in verdicts.reasons]
        title = TITLES.get(name, name.replace("_", " "))
        here = np.isin(verdicts.codes, codes)
        file = f"{PLOTS}/{name}.png"
        plot_histogram(folder / file, title, values, verdicts.passing, here, thresholds.get(name, []))
        plots.append({"file": file, "title": title})
    return plots


def draw_sheets(folder: Path, judgement: Judgement, raw: Shards) -> dict[str, dict[str, Any]]:
    """A contact sheet of kept pairs and one for each reason; returns what stands on them, tile by tile.

    After each duplicate comes the pair that stayed in its place.
    """
    verdicts, sheets = judgement.verdicts, {}
    for code, reason in enumerate(("kept", *verdicts.reasons)):
        rows = np.flatnonzero(verdicts.codes == code)
        if not len(rows):
            continue
        twins = (verdicts.twins[rows] >= 0) & (verdicts.twins[rows] < len(verdicts))
        chosen = draw_rows(rows, judgement.hashes, NUM_TILES // 2 if twins.any() else NUM_TILES)
        tiles, pictures = [], []
        for row in chosen.tolist():
            twin = int(verdicts.twins[row])
            for number in (row, twin) if 0 <= twin < len(verdicts) else (row,):
                sample, value = raw[number], verdicts.values[number]
                tile = {"key": sample.key, "caption": sample.caption, "kept": bool(verdicts.codes[number] == 0)}
                tiles.append(tile | ({"value": float(value)} if np.isfinite(value) else {}))
                pictures.append(sample.image)
        file = f"{PLOTS}/{reason if code == 0 else f'dropped_{reason}'}.png"
        save_sheet(folder / file, pictures)
        sheets[reason] = {"file": file, "tile_px": TILE_PX, "columns": COLUMNS, "tiles": tiles}
    return sheets


def write_rejected(path: Path, judgement: Judgement, scores: Scores, raw: Shards) -> None:
    """A row for each pair that was dropped: key, raw shard, reason, what was measured, whose copy it is, caption."""
    schema = pa.schema([
        ("key", pa.string()), ("shard", pa.string()), ("reason", pa.string()),
        ("value", pa.float32()),  # null where nothing was measured
        ("twin", pa.string()),  # key of the pair that it is too near, or <evaluation set>/<key>
        ("caption", pa.string()),  # the first
    ])  # fmt: skip
    reasons, keys = pa.array(["", *judgement.verdicts.reasons]), judgement.keys
    verdicts = judgement.verdicts

    def tables() -> Iterator[pa.Table]:
        for shard, entry in enumerate(raw.manifest["shards"]):
            numbers = raw.shard_range(shard)
            rows = numbers.start + np.flatnonzero(verdicts.codes[numbers.start : numbers.stop])
            starts, captions = flat(scores.read(["captions"], shard)["captions"])
            twins = verdicts.twins[rows]
            yield pa.table(
                [
                    keys.take(pa.array(rows)).cast(pa.string()),
                    pa.repeat(entry["file"], len(rows)),
                    reasons.take(pa.array(verdicts.codes[rows])),
                    pa.array(verdicts.values[rows], from_pandas=True),
                    keys.take(pa.array(twins, mask=twins < 0)).cast(pa.string()),
                    captions.take(pa.array(starts[rows - numbers.start])),
                ],
                schema=schema,
            )

    write_table(path, tables(), schema)
