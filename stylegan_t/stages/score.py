"""Stage ``score``: measures every raw pair once, so that the filter's rules can change without measuring again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import UInt8

from stylegan_t.config import Config
from stylegan_t.data.images import UndecodableImage, decode, square, to_signed
from stylegan_t.data.rules import SCORE_COLUMNS
from stylegan_t.data.shards import MANIFEST, Sample, Shards
from stylegan_t.device import pick_device
from stylegan_t.files import atomic, sha256, write_json
from stylegan_t.models.encoder_files import identity, load_clip
from stylegan_t.models.encoders import Clip
from stylegan_t.progress import Progress
from stylegan_t.stages.parts import make_part, publish
from stylegan_t.stages.workspace import Workspace


def run(config: Config, workspace: Workspace, device: str) -> None:
    """Write ``data/scores``: a table per raw shard. A killed run goes on after its last whole table."""
    raw = Shards(workspace.raw)
    clip = load_clip(workspace.players / "clip").to(pick_device(device))
    encoder, raw_hash = identity(workspace.players / "clip"), sha256(workspace.raw / MANIFEST)
    batch_size = config.score.batch_size
    digest = hashlib.sha256(f"{encoder} {raw_hash} {batch_size}".encode()).hexdigest()[:16]
    parts = workspace.state("score", digest)
    parts.mkdir(parents=True, exist_ok=True)
    tables = []
    with Progress("score", len(raw)) as progress:
        for shard, entry in enumerate(raw.manifest["shards"]):
            path = parts / Path(entry["file"]).with_suffix(".parquet").name
            tables.append(make_part(parts, path.stem, partial(_score_shard, path, raw, shard, clip, batch_size)))
            progress.advance(len(raw.shard_range(shard)))
    facts = {"kind": "scores", "encoder": encoder, "raw": raw_hash, "num_samples": len(raw), "tables": tables}
    write_json(parts / MANIFEST, facts)
    publish(parts, workspace.scores)


def _score_shard(path: Path, raw: Shards, shard: int, clip: Clip, batch_size: int) -> dict[str, Any]:
    numbers = raw.shard_range(shard)
    batches = [
        measure([raw[number] for number in numbers[start : start + batch_size]], clip)
        for start in range(0, len(numbers), batch_size)
    ]
    with atomic(path) as temporary:
        pq.write_table(pa.concat_tables(batches), temporary)
    return {"file": path.name, "num_samples": len(numbers), "sha256": sha256(path)}


@torch.inference_mode()
def measure(samples: Sequence[Sample], clip: Clip) -> pa.Table:
    """A row of ``SCORE_COLUMNS`` for each sample; one that does not decode has no size, hash, score or embedding."""
    pictures = [_decoded(sample) for sample in samples]
    captions = [sample.caption for sample in samples]
    text = clip.encode_text(captions).float().cpu().numpy()
    image = np.zeros_like(text)
    decodable = np.array([picture is not None for picture in pictures])
    seen = [square(picture, clip.image_px) for picture in pictures if picture is not None]
    if seen:
        images = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2)
        image[decodable] = clip.encode_image(to_signed(images).to(clip.device)).float().cpu().numpy()
    scores = np.where(decodable, (image * text).sum(axis=1), np.nan).astype(np.float32)
    shape = text.shape[1]
    columns = {
        "key": [sample.key for sample in samples],
        "caption_chars": [len(caption) for caption in captions],
        "width": [0 if p is None else p.shape[1] for p in pictures],
        "height": [0 if p is None else p.shape[0] for p in pictures],
        "decodable": decodable,
        "pixel_sha256": ["" if p is None else pixel_hash(p) for p in pictures],
        "clip_score": scores,
        "image_embedding": pa.FixedSizeListArray.from_arrays(pa.array(image.astype(np.float16).ravel()), shape),
        "text_embedding": pa.FixedSizeListArray.from_arrays(pa.array(text.astype(np.float16).ravel()), shape),
    }
    return pa.table({name: pa.array(columns[name], kind) for name, kind in SCORE_COLUMNS.items()} | {
        name: columns[name] for name in ("image_embedding", "text_embedding")
    })  # fmt: skip


def pixel_hash(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """Hex digest that two files share exactly when they show the same pixels at the same size."""
    digest = hashlib.sha256(f"{picture.shape[1]}x{picture.shape[0]} ".encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()


def _decoded(sample: Sample) -> UInt8[np.ndarray, "h w 3"] | None:
    try:
        return decode(sample.image)
    except UndecodableImage:
        return None
