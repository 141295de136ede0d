"""Stage ``download``: image-caption pairs of a source into shards, resumable shard by shard."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from stylegan_t.config import Config
from stylegan_t.data.shards import shard_name, write_manifest, write_shard
from stylegan_t.data.sources import Folder, Shapes, Source
from stylegan_t.progress import Progress
from stylegan_t.settings.data import Download, FolderSource
from stylegan_t.stages.parts import make_part, publish
from stylegan_t.stages.workspace import Workspace


def run(config: Config, workspace: Workspace, device: str) -> None:
    """Write ``data/raw``. A killed run goes on after its last whole shard."""
    source = open_source(config.download, config.seed, workspace.root)
    per_shard = config.download.samples_per_shard
    digest = hashlib.sha256(f"{source.fingerprint()} {per_shard}".encode()).hexdigest()[:16]
    parts = workspace.state("download", digest)
    parts.mkdir(parents=True, exist_ok=True)
    shards = []
    with Progress("download", source.num_samples) as progress:
        for number, start in enumerate(range(0, source.num_samples, per_shard)):
            stop, path = min(start + per_shard, source.num_samples), parts / shard_name(number)
            shards.append(make_part(parts, path.stem, partial(write_shard, path, source.samples(start, stop))))
            progress.advance(stop - start)
    write_manifest(parts, "raw", shards, source=source.facts(), skipped=dict(sorted(source.skipped.items())))
    publish(parts, workspace.raw)


def open_source(settings: Download, seed: int, root: Path) -> Source:
    """The source that the settings describe; relative paths start at ``root``."""
    spec = settings.source
    if isinstance(spec, FolderSource):
        return Folder(root / Path(spec.path).expanduser())
    return Shapes(spec.num_images, spec.image_px, spec.heldout_combinations, seed)
