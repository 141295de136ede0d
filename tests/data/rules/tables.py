"""Score tables made of plain values."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stylegan_t.data.rules.captions import CaptionRules
from stylegan_t.data.rules.duplicates import Likeness
from stylegan_t.data.rules.judge import Judgement, Rules, judge
from stylegan_t.data.rules.pictures import PictureRules
from stylegan_t.data.rules.verdicts import KEPT
from stylegan_t.data.scores import (
    EVALUATION,
    Scores,
    evaluation_schema,
    open_scores,
    score_schema,
    write_scores_manifest,
    write_table,
)

C_DIM = 8
OFF = Likeness(same_pixels=False, max_distance=None, min_cosine=None)
SAME = OFF._replace(same_pixels=True)


def pixels(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def direction(name: object) -> np.ndarray:
    """A unit vector of its own for each name."""
    vector = np.random.default_rng(int.from_bytes(pixels(name)[:4], "big")).standard_normal(C_DIM)
    return vector / np.linalg.norm(vector)


def row(number: int, **values: Any) -> dict[str, Any]:
    """A good pair with other values where given; ``caption``, ``score`` and ``picture`` stand for the usual case."""
    captions = values.pop("captions", [values.pop("caption", "a dog asleep on a red sofa")])
    picture = values.pop("picture", number)
    scores = values.pop("scores", [values.pop("score", 0.5)] * len(captions))
    usual = {
        "key": f"k{number:04d}", "decodable": True, "width": 64, "height": 64, "num_bytes": 1000,
        "pixel_sha256": pixels(picture), "perceptual_hash": int.from_bytes(pixels(picture)[:8], "big"),
        "sharpness": 100.0, "url": None, "captions": captions, "caption_words": [len(c.split()) for c in captions],
        "language": ["en"] * len(captions), "clip_score": scores, "image_embedding": direction(picture),
        "text_embedding": [direction(caption) for caption in captions],
    }  # fmt: skip
    return usual | values


def table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    half = lambda value: np.asarray(value, np.float16)
    columns = {
        name: [r[name] for r in rows]
        for name in schema.names
        if not name.endswith("embedding")
    } | {name: [half(r[name]) if name[0] == "i" else list(half(r[name])) for r in rows] for name in schema.names
         if name.endswith("embedding")}  # fmt: skip
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names})


def score_table(*rows: dict[str, Any]) -> pa.Table:
    plugins = sorted({name.removeprefix("plugin_") for r in rows for name in r if name.startswith("plugin_")})
    return table([row(number, **values) for number, values in enumerate(rows)], score_schema(C_DIM, plugins))


def scores_of(
    folder: Path,
    rows: list[dict[str, Any]],
    per_table: int = 7,
    evaluation: dict[str, list[dict[str, Any]]] | None = None,
) -> Scores:
    """Tables of so many rows each, on disk, and evaluation sets."""
    whole, entries, sets = score_table(*rows), [], []
    for number, start in enumerate(range(0, len(rows), per_table)):
        part = whole[start : start + per_table]
        entries.append(write_table(folder / f"{number:05d}.parquet", [part], whole.schema))
    for name, pictures in (evaluation or {}).items():
        full = [row(number, **values) for number, values in enumerate(pictures)]
        path = folder / EVALUATION / f"{name}.parquet"
        schema = evaluation_schema(C_DIM)
        sets.append({"name": name, **write_table(path, [table(full, schema)], schema)})
    plugins = {name.removeprefix("plugin_"): "" for name in whole.schema.names if name.startswith("plugin_")}
    write_scores_manifest(folder, encoder="e", raw="r", tables=entries, evaluation=sets, plugins=plugins)
    return open_scores(folder, "r", "e")


def rules(**changes: Any) -> Rules:
    """Nothing is asked but what is given; rules on pictures and captions by their own names."""
    of_pictures = {n: changes.pop(n) for n in list(changes) if n in PictureRules.__dataclass_fields__}
    of_captions = {n: changes.pop(n) for n in list(changes) if n in CaptionRules.__dataclass_fields__}
    usual: dict[str, Any] = {
        "keep_fraction": None, "duplicates": OFF, "cell_size": 1000, "decontamination": OFF, "p_heldout": 0.2,
        "variant_pattern": None,
    }  # fmt: skip
    return Rules(pictures=PictureRules(**of_pictures), captions=CaptionRules(**of_captions), **(usual | changes))


def judged(
    folder: Path, rows: list[dict[str, Any]], *, per_table: int = 7, sets: Any = None, **asked: Any
) -> Judgement:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return judge(scores_of(folder, rows, per_table, sets), rules(**asked), scratch)


def reasons(judgement: Judgement) -> list[str]:
    """The reason of each pair, '' where it is kept."""
    names = ["", *judgement.verdicts.reasons]
    assert names[KEPT] == ""
    return [names[code] for code in judgement.verdicts.codes]
