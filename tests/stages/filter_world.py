"""Raw shards with planted defects, and the settings of a filter that finds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, Shards, pack, shard_name, write_manifest, write_shard
from stylegan_t.stages import filter, filter_report, score
from stylegan_t.stages.workspace import Workspace
from tests.stages.data_world import config, put_clip

NUM_GOOD, NUM_PLANTED = 60, 4
RULES: dict[str, Any] = {
    "min_side_px": 16, "max_aspect_ratio": 2.0, "thresholds": [], "blocklists": [],
    "min_caption_chars": 3, "max_caption_chars": 40, "min_caption_words": None, "max_caption_words": None,
    "min_caption_letters": None, "drop_url_captions": False, "boilerplate_captions": [], "languages": None,
    "min_clip_score": None, "keep_fraction": None,
    "duplicates": {"same_pixels": True, "max_perceptual_distance": None, "min_cosine": None, "cell_size": 1000},
    "decontamination": {"same_pixels": True, "max_perceptual_distance": None, "min_cosine": None},
    "p_heldout": 0.2, "variant_pattern": "-v[0-9]$", "image_px": 32, "image_format": "png",
    "engine": {"kind": "processes", "num_workers": 0},
}  # fmt: skip
REASONS = ("undecodable", "too_small", "aspect", "caption_too_short", "caption_too_long", "duplicate")
"""Each has NUM_PLANTED pairs, by the rules above."""


def planted() -> Iterator[Sample]:
    """Good pairs (every third a variant of another, every fourth with a further caption), and each defect as often."""
    rng = np.random.default_rng(0)

    def pair(
        key: str, height: int, width: int, *captions: str, like: bytes | None = None, cut: int | None = None
    ) -> Sample:
        small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
        return pack(key, "png", (like or encode(picture))[:cut], captions, {"from": key, "url": f"http://{key}.org/x"})

    for n in range(NUM_GOOD):
        name = f"good{n // 3:02d}-v1" if n % 3 == 2 else f"good{n:02d}"
        good = pair(
            name,
            40,
            32 + n % 9,
            f"good {n}" + (" at good.com" if n == 7 else ""),
            *(["ab", f"more {n}"] if n % 4 == 0 else []),
        )
        yield good
        if n < NUM_PLANTED:
            yield pair(f"later{n}", 1, 1, "the same pixels", like=good.image)
            yield pair(f"broken{n}", 40, 40, "does not decode", cut=100)
            yield pair(f"tiny{n}", 15, 20, "too small")
            yield pair(f"wide{n}", 20, 41, "too wide")
            yield pair(f"terse{n}", 40, 40, "ab")
            yield pair(f"long{n}", 40, 40, "much too long" * 4)


def put_raw(workspace: Workspace, samples: Iterator[Sample], per_shard: int = 25, datasets: Any = None) -> None:
    """Write raw shards; ``datasets`` names that of each shard, if there are several."""
    waiting, entries = list(samples), []
    for number, start in enumerate(range(0, len(waiting), per_shard)):
        entry = write_shard(workspace.raw / shard_name(number), waiting[start : start + per_shard])
        entries.append(entry | ({"dataset": datasets[number]} if datasets else {}))
    write_manifest(workspace.raw, "raw", entries, source={"kind": "test"}, skipped={})


def scored_world(root: Path) -> Workspace:
    workspace = Workspace(root)
    put_clip(workspace)
    put_raw(workspace, planted())
    score.run(config(), workspace, "cpu")
    return workspace


def filtered(workspace: Workspace, parts: Any = None, pictures: bool = False, **rules: Any) -> dict[str, Any]:
    """Run the filter, by default without its plots and sheets, which take most of the time; its report."""
    settings = config(filter={**RULES, **rules}, download={"samples_per_shard": 20})
    with pytest.MonkeyPatch.context() as patch:
        if not pictures:
            patch.setattr(filter_report, "draw_plots", lambda *_: [])
            patch.setattr(filter_report, "draw_sheets", lambda *_: {})
        filter.run(settings, workspace, "cpu", **({"parts": parts} if parts else {}))
    path = workspace.prepared / "report.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def sides(workspace: Workspace) -> tuple[Shards, Shards]:
    return Shards(workspace.prepared / "train"), Shards(workspace.prepared / "heldout")
