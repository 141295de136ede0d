from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylegan_t.data import scores
from stylegan_t.data.scores import (
    evaluation_schema,
    flat,
    open_scores,
    score_schema,
    vectors,
    write_scores_manifest,
    write_table,
)
from stylegan_t.errors import DataError

C = 4
SCHEMA = score_schema(C, ["aesthetic"])


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    """A row for each number: as many captions as its last digit says and one more; every fifth does not decode."""
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((stop + 1, C)).astype(np.float16)
    made = []
    for n in range(start, stop):
        decodable, count = n % 5 != 4, n % 10 + 1
        made.append({
            "key": f"key{n}", "decodable": decodable, "width": 30 * decodable, "height": 20 * decodable,
            "num_bytes": n, "pixel_sha256": bytes([n % 256]) * 32, "perceptual_hash": 2**64 - 1 - n,
            "sharpness": 0.5 * n, "url": f"http://example.com/{n}" if n % 2 else None,
            "captions": [f"caption {n}.{i}" for i in range(count)], "caption_words": [2] * count,
            "language": ["en"] * count, "clip_score": [n / 1024] * count, "image_embedding": embeddings[n],
            "text_embedding": [embeddings[n + 1]] * count, "plugin_aesthetic": float(n),
        })  # fmt: skip
    return made


def tables(start: int, stop: int, step: int) -> list[pa.Table]:
    return [pa.Table.from_pylist(rows(n, min(n + step, stop)), SCHEMA) for n in range(start, stop, step)]


@pytest.fixture
def folder(tmp_path):
    """Scores of two raw shards with 13 and 7 samples, and an evaluation set of 3 pictures."""
    entries = [
        write_table(tmp_path / "00000.parquet", tables(0, 13, 4), SCHEMA),
        write_table(tmp_path / "00001.parquet", tables(13, 20, 4), SCHEMA),
    ]
    held_out = write_table(tmp_path / "evaluation" / "coco.parquet", tables(0, 3, 3), evaluation_schema(C))
    write_scores_manifest(
        tmp_path, encoder="clip", raw="raw", tables=entries, evaluation=[{"name": "coco", **held_out}],
        plugins={"aesthetic": "abc"},
    )  # fmt: skip
    return tmp_path


def test_what_was_written_is_read_by_shard_and_as_a_whole(folder):
    found = open_scores(folder, "raw", "clip")
    expected = pa.Table.from_pylist(rows(0, 20), SCHEMA)
    assert found.read(SCHEMA.names).equals(expected) and len(found) == 20
    assert found.read(["key", "clip_score"], 1).equals(expected.select(["key", "clip_score"])[13:])
    assert found.plugins == ["aesthetic"] and found.evaluation_sets == ["coco"]
    assert found.read_evaluation("coco").equals(expected.select(evaluation_schema(C).names)[:3])


def test_types_are_those_of_the_schema_whatever_they_were(tmp_path):
    wide = pa.Table.from_pylist(rows(0, 3), SCHEMA).set_column(4, "num_bytes", pa.array([1, 2, 3], pa.int64()))
    write_table(tmp_path / "a.parquet", [wide], SCHEMA)
    assert pq.read_table(tmp_path / "a.parquet").schema.equals(SCHEMA)


def test_a_file_depends_on_its_rows_not_on_how_they_came(tmp_path):
    count, width = 5000, 512  # so wide that the writer begins pages in the middle of a batch
    numbers = np.random.default_rng(0).standard_normal(count * width).astype(np.float16)
    whole = pa.table({
        "key": [f"key{n}" for n in range(count)],
        "image_embedding": pa.FixedSizeListArray.from_arrays(pa.array(numbers), width),
    })  # fmt: skip
    entries = []
    for step in (97, 5000):
        parts = [whole[n : n + step] for n in range(0, count, step)]
        entries.append(write_table(tmp_path / f"{step}.parquet", parts, whole.schema) | {"file": ""})
    assert entries[0] == entries[1]
    assert (tmp_path / "97.parquet").read_bytes() == (tmp_path / "5000.parquet").read_bytes()


def test_no_more_rows_wait_in_memory_than_a_group_and_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "ROWS_PER_GROUP", 16)
    written, write = [], scores.pq.ParquetWriter.write_table
    monkeypatch.setattr(
        scores.pq.ParquetWriter, "write_table", lambda self, table: (written.append(len(table)), write(self, table))
    )
    waiting, given = [], 0

    def batches():
        nonlocal given
        for table in tables(0, 70, 7):
            given += len(table)
            yield table
            waiting.append(given - sum(written))

    write_table(tmp_path / "a.parquet", batches(), SCHEMA)
    assert max(waiting) < 16 + 7 and sum(written) == 70


def test_an_empty_table_has_its_columns(tmp_path):
    assert write_table(tmp_path / "a.parquet", [], SCHEMA)["num_samples"] == 0
    assert pq.read_table(tmp_path / "a.parquet").equals(SCHEMA.empty_table())


def test_embeddings_become_a_matrix_and_lists_their_values_with_borders(folder):
    read = open_scores(folder, "raw", "clip").read(["image_embedding", "text_embedding"])
    expected = rows(0, 20)
    np.testing.assert_array_equal(vectors(read["image_embedding"]), [row["image_embedding"] for row in expected])
    starts, values = flat(read["text_embedding"])
    text = vectors(values)
    assert text.dtype == np.float16 and len(text) == starts[-1]
    for n, row in enumerate(expected):
        np.testing.assert_array_equal(text[starts[n] : starts[n + 1]], row["text_embedding"])


def test_lists_of_a_slice_start_where_it_does(folder):
    part = open_scores(folder, "raw", "clip").read(["captions"])[2:5]
    starts, values = flat(part["captions"])
    assert [values.to_pylist()[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)] == part[
        "captions"
    ].to_pylist()


def test_scores_of_other_shards_or_by_another_encoder_are_refused(folder):
    with pytest.raises(DataError, match=r"manifest\.json: scores of other shards.*stylegan-t run score"):
        open_scores(folder, "other", "clip")
    with pytest.raises(DataError, match=r"manifest\.json: scores by another encoder.*stylegan-t run score"):
        open_scores(folder, "raw", "other")


@pytest.mark.parametrize("text", [None, "", "[]", '{"kind": "raw", "shards": []}'])
def test_a_manifest_that_is_none_is_named(folder, text):
    path = folder / "manifest.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: (missing|not readable).*stylegan-t run score"):
        open_scores(folder, "raw", "clip")


@pytest.mark.parametrize("name", ["00001.parquet", "evaluation/coco.parquet"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_cut_or_missing_table_is_named_at_once(folder, name, damage):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1]) if damage == "cut" else path.unlink()
    with pytest.raises(DataError, match=rf"{name}: missing or damaged.*stylegan-t run score"):
        open_scores(folder, "raw", "clip")


def test_a_flipped_bit_is_never_read_as_another_value(folder):
    path, found = folder / "00000.parquet", open_scores(folder, "raw", "clip")
    data, expected = path.read_bytes(), str(found.read(SCHEMA.names).to_pydict())
    damaged = 0
    for position in range(0, len(data), 23):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        try:
            assert str(found.read(SCHEMA.names).to_pydict()) == expected  # in a field that nobody reads
        except DataError as error:
            assert "00000.parquet: damaged" in str(error) and "stylegan-t run score" in str(error)
            damaged += 1
    assert damaged > 100


def test_the_manifest_names_what_the_scores_came_from(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["kind"], manifest["encoder"], manifest["raw"]) == ("scores", "clip", "raw")
    assert manifest["num_samples"] == 20 and manifest["plugin_weights"] == {"aesthetic": "abc"}
    assert [entry["file"] for entry in manifest["tables"]] == ["00000.parquet", "00001.parquet"]
