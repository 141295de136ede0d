"""The score tables: what ``score`` measured of each raw pair, in a form that rules read without decoding a picture.

``data/scores`` holds a parquet table for each raw shard, with a row for each of its samples, in the same order;
``evaluation/<name>.parquet`` for each evaluation set; and a manifest that says which raw shards, which encoder and
which plug-ins they came from. Every page carries a checksum, which is compared whenever it is read: whoever reads a few
columns finds the damage in these, and need not read the embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float16, Int64

from stylegan_t.data.shards import MANIFEST
from stylegan_t.errors import DataError
from stylegan_t.files import atomic, sha256, write_json

EVALUATION = "evaluation"
PLUGIN = "plugin_"
"""Columns of plug-ins start like this."""
MANIFEST_KEYS = {"encoder", "raw", "embed_dim", "num_samples", "tables", "evaluation", "plugins"}
ROWS_PER_GROUP = 4096
"""So many rows are held in memory before they are written; readers pay for each group, writers for its size."""
SCORE_AGAIN = "make it anew with `dvc repro --force --single-item score` (or `stylegan-t run score`)"


def score_schema(embed_dim: int, plugins: Sequence[str]) -> pa.Schema:
    """The columns of a score table.

    A picture that does not decode has sides of 0, hashes of zeros, NaN for what is measured on pixels, and an image
    embedding of zeros. The lists have an entry for each caption of the sample.

    Args:
        embed_dim: Length of the CLIP's embeddings.
        plugins: Names, each of which gives a column ``plugin_<name>``.
    """
    embedding = pa.list_(pa.float16(), embed_dim)
    return pa.schema([
        ("key", pa.string()),
        ("decodable", pa.bool_()),
        ("width", pa.int32()), ("height", pa.int32()),  # upright, pixels
        ("num_bytes", pa.int32()),  # of the picture's file
        ("pixel_sha256", pa.binary(32)),  # see measures.pixel_hash
        ("perceptual_hash", pa.uint64()),  # see measures.perceptual_hashes
        ("sharpness", pa.float32()),  # see measures.sharpness
        ("url", pa.string()),  # null where the metadata names none
        ("captions", pa.list_(pa.string())),
        ("caption_words", pa.list_(pa.int32())),  # see measures.num_words
        ("language", pa.list_(pa.string())),  # see measures.Languages
        ("clip_score", pa.list_(pa.float32())),  # cosine of the two embeddings
        ("image_embedding", embedding),
        ("text_embedding", pa.list_(embedding)),
        *((PLUGIN + name, pa.float32()) for name in plugins),
    ])  # fmt: skip


def evaluation_schema(embed_dim: int) -> pa.Schema:
    """The columns of an evaluation set's table: what tells whether a raw picture is one of it."""
    columns = score_schema(embed_dim, [])
    return pa.schema([columns.field(n) for n in ("key", "pixel_sha256", "perceptual_hash", "image_embedding")])


def write_table(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> dict[str, Any]:
    """Write tables one after the other into one file, whole or absent; returns the manifest's entry for it.

    The file depends on the rows only, not on how many come in each table.
    """
    num_samples, waiting = 0, schema.empty_table()
    with atomic(path) as temporary:
        with pq.ParquetWriter(temporary, schema, write_page_checksum=True) as writer:
            for table in tables:
                num_samples += len(table)
                waiting = pa.concat_tables([waiting, table.select(schema.names).cast(schema)])
                while len(waiting) >= ROWS_PER_GROUP:
                    writer.write_table(waiting[:ROWS_PER_GROUP].combine_chunks())
                    waiting = waiting[ROWS_PER_GROUP:]
            writer.write_table(waiting.combine_chunks())
        num_bytes = temporary.stat().st_size
        digest = sha256(temporary)
    return {"file": path.name, "num_samples": num_samples, "num_bytes": num_bytes, "sha256": digest}


def write_scores_manifest(
    folder: Path,
    *,
    encoder: str,
    raw: str,
    tables: Sequence[dict[str, Any]],
    evaluation: Sequence[dict[str, Any]],
    plugins: dict[str, str],
) -> None:
    """Write the manifest, last of all.

    Args:
        folder: That of the tables.
        encoder: Identity of the CLIP.
        raw: sha256 of the raw shards' manifest.
        tables: Entries by ``write_table``, in the order of the raw shards.
        evaluation: The same of the evaluation sets, each with its ``name``.
        plugins: sha256 of each plug-in's weights, by name.
    """
    num_samples = sum(entry["num_samples"] for entry in tables)
    embed_dim = 0  # where there are no tables
    if tables:
        embed_dim = pq.read_schema(folder / tables[0]["file"]).field("image_embedding").type.list_size
    facts = {
        "kind": "scores", "encoder": encoder, "raw": raw, "embed_dim": embed_dim, "num_samples": num_samples,
        "tables": list(tables), "evaluation": list(evaluation), "plugins": sorted(plugins), "plugin_weights": plugins,
    }  # fmt: skip
    write_json(folder / MANIFEST, facts)


@dataclass(frozen=True)
class Scores:
    """Score tables that are all there; get one from ``open_scores``.

    Attributes:
        folder: Where they lie.
        manifest: What ``write_scores_manifest`` wrote.
    """

    folder: Path
    manifest: dict[str, Any]

    def __len__(self) -> int:
        """Samples in all tables."""
        return self.manifest["num_samples"]

    @property
    def plugins(self) -> list[str]:
        """Names of the plug-ins, each with a column ``plugin_<name>``."""
        return self.manifest["plugins"]

    @property
    def evaluation_sets(self) -> list[str]:
        return [entry["name"] for entry in self.manifest["evaluation"]]

    def read(self, columns: Sequence[str], shard: int | None = None) -> pa.Table:
        """Columns of ``score_schema`` for the samples of one raw shard, or of all (a chunk or more each).

        Raises:
            DataError: What was read is damaged.
        """
        entries = self.manifest["tables"] if shard is None else [self.manifest["tables"][shard]]
        schema = score_schema(self.manifest["embed_dim"], self.plugins)
        wanted = pa.schema([schema.field(name) for name in columns])
        return pa.concat_tables(
            [wanted.empty_table(), *(_read(self.folder / entry["file"], wanted) for entry in entries)]
        )

    def read_evaluation(self, name: str) -> pa.Table:
        """All columns of ``evaluation_schema`` for the pictures of an evaluation set. Raises DataError."""
        entry = next(entry for entry in self.manifest["evaluation"] if entry["name"] == name)
        return _read(self.folder / EVALUATION / entry["file"], evaluation_schema(self.manifest["embed_dim"]))


def open_scores(folder: Path, raw_manifest_hash: str, encoder: str) -> Scores:
    """The scores in a folder, after a look at the files' sizes; reading compares checksums.

    Args:
        folder: ``data/scores``.
        raw_manifest_hash: sha256 of the manifest of the raw shards that they must be of.
        encoder: Identity of the CLIP that they must be by.

    Raises:
        DataError: They are missing, cut, or belong to other shards or another encoder.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if not isinstance(manifest, dict) or MANIFEST_KEYS - manifest.keys():
            raise ValueError("it is no manifest of scores")
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {SCORE_AGAIN}") from None
    except ValueError as error:
        raise DataError(f"{path}: not readable ({error}); {SCORE_AGAIN}") from None
    if manifest["raw"] != raw_manifest_hash:
        raise DataError(f"{path}: scores of other shards than the raw ones here; {SCORE_AGAIN}")
    if manifest["encoder"] != encoder:
        raise DataError(f"{path}: scores by another encoder than the one here; {SCORE_AGAIN}")
    files = [(folder / entry["file"], entry) for entry in manifest["tables"]]
    files += [(folder / EVALUATION / entry["file"], entry) for entry in manifest["evaluation"]]
    for table, entry in files:
        if not table.is_file() or table.stat().st_size != entry["num_bytes"]:
            raise DataError(f"{table}: missing or damaged; {SCORE_AGAIN}")
    return Scores(folder, manifest)


def vectors(column: pa.ChunkedArray) -> Float16[np.ndarray, "n c"]:
    """A column of embeddings (a list's values too, see ``flat``) as a matrix."""
    length = column.type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, length) for chunk in column.chunks]
    return np.concatenate([np.empty((0, length), np.float16), *parts])


def flat(column: pa.ChunkedArray) -> tuple[Int64[np.ndarray, " n_plus_1"], pa.ChunkedArray]:
    """A column of lists as where each row begins (and the last one ends) in its values, and these."""
    lengths = [np.asarray(chunk.value_lengths()) for chunk in column.chunks]
    starts = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    return starts, pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)


def _read(path: Path, wanted: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path, columns=wanted.names, page_checksum_verification=True)
        if not table.schema.equals(wanted):
            raise ValueError(f"columns are {table.schema.to_string(show_schema_metadata=False)}")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())}); {SCORE_AGAIN}") from None
    return table
