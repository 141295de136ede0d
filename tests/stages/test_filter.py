from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stylegan_t.data.images import decode, encode, square
from stylegan_t.data.rules import REASONS
from stylegan_t.data.shards import Shards
from stylegan_t.errors import DataError
from stylegan_t.models.encoder_files import identity
from stylegan_t.stages import download, filter, score
from stylegan_t.stages.workspace import Workspace
from tests.stages.data_world import config, contents, folder_source, put_clip

NUM_GOOD, NUM_PLANTED = 60, 4
RULES: dict[str, Any] = {
    "min_side_px": 16, "max_aspect_ratio": 2.0, "min_caption_chars": 3, "max_caption_chars": 40,
    "drop_exact_duplicates": True, "min_clip_score": None, "keep_fraction": None,
    "p_heldout": 0.2, "variant_pattern": "-v[0-9]$", "image_px": 32, "image_format": "png",
}  # fmt: skip


def planted(folder):
    """Good pairs (every third with a variant) and the same number of each defect."""
    folder.mkdir()
    rng = np.random.default_rng(0)

    def put(name: str, height: int, width: int, caption: str, cut: int | None = None) -> bytes:
        data = encode(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))[:cut]
        (folder / f"{name}.png").write_bytes(data)
        (folder / f"{name}.txt").write_text(caption)
        return data

    for n in range(NUM_GOOD):
        twin = put(
            f"good{n // 3 if n % 3 == 2 else n:02d}" + ("-v1" if n % 3 == 2 else ""),
            40,
            32 + n % 9,
            f"good {n}",
        )
        if n % 3 != 2 and n < 3 * NUM_PLANTED // 2:
            (folder / f"later{n}.png").write_bytes(twin)
            (folder / f"later{n}.txt").write_text("the same pixels")
    for n in range(NUM_PLANTED):
        put(f"broken{n}", 40, 40, "does not decode", cut=200)
        put(f"tiny{n}", 15, 40, "too small")
        put(f"wide{n}", 20, 41, "too wide")
        put(f"terse{n}", 40, 40, "ab")
        put(f"long{n}", 40, 40, "much too long" * 4)
        (folder / f"nocaption{n}.png").write_bytes(twin)
        (folder / f"noimage{n}.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Downloaded and scored once; tests change copies of the settings only."""
    workspace = Workspace(tmp_path_factory.mktemp("scored"))
    put_clip(workspace)
    source = folder_source(planted(workspace.root / "pictures"), per_shard=25)
    download.run(config(download=source), workspace, "cpu")
    score.run(config(), workspace, "cpu")
    return workspace


def filtered(workspace: Workspace, **rules: Any) -> dict[str, Any]:
    settings = config(filter={**RULES, **rules}, download={"samples_per_shard": 25})
    filter.run(settings, workspace, "cpu")
    return json.loads((workspace.prepared / "report.json").read_text())


def sides(workspace: Workspace) -> tuple[Shards, Shards]:
    return Shards(workspace.prepared / "train"), Shards(workspace.prepared / "heldout")


def test_planted_defects_are_counted_exactly_and_no_good_pair_is_lost(scored):
    report = filtered(scored)
    expected = dict.fromkeys(REASONS, NUM_PLANTED) | {"low_clip_score": 0}
    assert report["dropped"] == expected
    assert Shards(scored.raw).manifest["skipped"] == {
        "missing_caption": NUM_PLANTED,
        "missing_image": NUM_PLANTED,
    }
    train, heldout = sides(scored)
    assert report["kept"] == NUM_GOOD == len(train) + len(heldout)
    assert (report["train"], report["heldout"]) == (len(train), len(heldout))
    assert report["total"] == NUM_GOOD + NUM_PLANTED * 6
    assert all(key.startswith("good") for key in train.keys + heldout.keys)


def test_a_prepared_sample_is_the_raw_pair_resized_with_its_text_embedding(scored):
    filtered(scored)
    raw = {sample.key: sample for sample in Shards(scored.raw)}
    tables = [pq.read_table(path) for path in sorted(scored.scores.glob("*.parquet"))]
    c = {row["key"]: row["text_embedding"] for table in tables for row in table.to_pylist()}
    for shards in sides(scored):
        shards.verify()
        assert shards.manifest["encoder"] == identity(scored.players / "clip") and shards.manifest["image_px"] == 32
        for sample in shards:
            source = raw[sample.key]
            np.testing.assert_array_equal(decode(sample.image), square(decode(source.image), 32))
            assert (sample.caption, sample.metadata) == (source.caption, source.metadata)
            assert sample.c.dtype == np.float16
            np.testing.assert_array_equal(sample.c, np.array(c[sample.key], np.float16))
            assert np.linalg.norm(sample.c.astype(float)) == pytest.approx(1, abs=2e-3)


def test_variants_of_a_picture_fall_on_one_side_of_the_split(scored):
    filtered(scored)
    train, heldout = ({re.sub("-v1$", "", key) for key in shards.keys} for shards in sides(scored))
    assert train and heldout and not train & heldout


def test_new_thresholds_never_load_an_encoder_and_count_what_they_drop(scored, monkeypatch):
    monkeypatch.setattr("stylegan_t.stages.score.measure", None)
    monkeypatch.setattr("stylegan_t.models.encoder_files.load_clip", None)
    before = contents(scored.scores)
    report = filtered(scored, keep_fraction=0.9)
    assert report["dropped"]["low_clip_score"] + report["dropped"]["duplicate"] >= NUM_GOOD // 10
    assert report["kept"] == 54
    least = filtered(scored, min_clip_score=report["lowest_clip_score_kept"])
    assert least["kept"] == 54, "the score that a fraction cuts at, given as a threshold, keeps the same"
    assert filtered(scored, drop_exact_duplicates=False)["kept"] == NUM_GOOD + NUM_PLANTED
    assert contents(scored.scores) == before


def test_a_second_run_writes_the_same_bytes_and_nothing_stale(scored):
    filtered(scored, p_heldout=0.5)
    filtered(scored)
    first = contents(scored.prepared)
    filtered(scored)
    assert contents(scored.prepared) == first


@pytest.mark.parametrize(("image_format", "ext"), [("webp", "webp"), ("jpeg", "jpg")])
def test_pictures_are_stored_in_the_chosen_format(scored, image_format, ext):
    filtered(scored, image_format=image_format)
    train, _ = sides(scored)
    assert set(train[0].fields) == {ext, "txt", "json", "npy"}
    assert decode(train[0].image).shape == (32, 32, 3)


def test_too_few_samples_say_which_rule_dropped_how_many(scored):
    with pytest.raises(DataError, match=r"of 84 pairs, 0 remain.*undecodable 4, too_small 80; loosen"):
        filtered(scored, min_side_px=1000)


def test_scores_of_other_shards_or_another_encoder_are_refused(scored):
    manifest = scored.raw / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"missing_image"', '"missing_picture"'))
    try:
        with pytest.raises(DataError, match="scores of other shards.*stylegan-t run score"):
            filtered(scored)
    finally:
        manifest.write_text(text)
    put_clip(scored, seed=1)
    try:
        with pytest.raises(DataError, match="scores by another encoder.*stylegan-t run score"):
            filtered(scored)
    finally:
        put_clip(scored)
    filtered(scored)


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest gone", "manifest cut"])
def test_damaged_scores_are_named(scored, damage):
    path = scored.scores / ("00001.parquet" if "manifest" not in damage else "manifest.json")
    data = path.read_bytes()
    path.write_bytes(data[:50]) if "cut" in damage else path.unlink()
    try:
        with pytest.raises(DataError, match=rf"{path.name}: .*stylegan-t run score"):
            filtered(scored)
    finally:
        path.write_bytes(data)
