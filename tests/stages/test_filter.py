from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylegan_t.data.images import decode, square
from stylegan_t.data.measures import pixel_hash
from stylegan_t.data.prepare import PrepareShard
from stylegan_t.data.shards import MANIFEST, Shards
from stylegan_t.data.verify import check_shard
from stylegan_t.errors import DataError
from stylegan_t.files import sha256, write_json
from stylegan_t.models.encoder_files import identity
from stylegan_t.stages import filter, score
from stylegan_t.stages.parts import parse_parts
from stylegan_t.stages.workspace import Workspace
from tests.stages.data_world import config, contents, put_clip
from tests.stages.filter_world import (
    NUM_GOOD,
    NUM_PLANTED,
    REASONS,
    RULES,
    filtered,
    planted,
    put_raw,
    scored_world,
    sides,
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Scored once; tests change copies of the settings only."""
    return scored_world(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def plain(scored):
    """The report and the files of the usual rules."""
    return filtered(scored), contents(scored.prepared)


def test_planted_defects_are_counted_exactly_and_no_good_pair_is_lost(scored, plain):
    report, _ = plain
    filtered(scored)
    assert {reason: count for reason, count in report["dropped"].items() if count} == dict.fromkeys(
        REASONS, NUM_PLANTED
    )
    train, heldout = sides(scored)
    assert report["kept"] == NUM_GOOD == len(train) + len(heldout)
    assert (report["train"], report["heldout"]) == (len(train), len(heldout))
    assert report["total"] == NUM_GOOD + NUM_PLANTED * len(REASONS)
    assert all(key.startswith("good") for key in [*train.keys, *heldout.keys])


def test_a_prepared_sample_is_the_raw_pair_resized_with_the_embeddings_of_the_captions_that_stay(scored):
    filtered(scored)
    raw = {sample.key: sample for sample in Shards(scored.raw)}
    tables = [pq.read_table(path) for path in sorted(scored.scores.glob("*.parquet"))]
    c = {row["key"]: row["text_embedding"] for table in tables for row in table.to_pylist()}
    captions = []
    for shards in sides(scored):
        shards.verify()
        assert shards.manifest["encoder"] == identity(scored.players / "clip") and shards.manifest["image_px"] == 32
        for sample in shards:
            source, picture = raw[sample.key], decode(raw[sample.key].image)
            np.testing.assert_array_equal(decode(sample.image), square(picture, 32))
            assert sample.metadata == source.metadata | {"pixel_sha256": pixel_hash(picture).hex()}
            stay = [number for number, caption in enumerate(source.captions) if len(caption) >= 3]
            assert sample.captions == [source.captions[number] for number in stay]
            assert sample.c.dtype == np.float16
            np.testing.assert_array_equal(sample.c, np.array(c[sample.key], np.float16)[stay])
            assert np.linalg.norm(sample.c.astype(float), axis=1) == pytest.approx(1, abs=2e-3)
            captions.append(len(stay))
        assert sum(entry["num_captions"] for entry in shards.manifest["shards"]) == sum(
            map(len, (s.captions for s in shards))
        )
    assert set(captions) == {1, 2}


def test_variants_of_a_picture_fall_on_one_side_of_the_split(scored):
    filtered(scored)
    train, heldout = ({re.sub("-v1$", "", key) for key in shards.keys} for shards in sides(scored))
    assert train and heldout and not train & heldout


def test_new_thresholds_never_load_an_encoder_and_count_what_they_drop(scored, monkeypatch):
    monkeypatch.setattr("stylegan_t.stages.score.load_networks", None)
    monkeypatch.setattr("stylegan_t.models.encoder_files.load_clip", None)
    before = contents(scored.scores)
    report = filtered(scored, keep_fraction=0.9)
    assert report["dropped"]["low_clip_score"] + report["dropped"]["duplicate"] >= NUM_GOOD // 10
    assert report["kept"] == 54
    least = filtered(scored, min_clip_score=report["lowest_clip_score_kept"])
    assert least["kept"] == 54, "the score that a fraction cuts at, given as a threshold, keeps the same"
    twice = filtered(
        scored,
        duplicates=RULES["duplicates"] | {"same_pixels": False},
        decontamination=RULES["decontamination"] | {"same_pixels": False},
    )
    assert twice["kept"] == NUM_GOOD + NUM_PLANTED
    assert contents(scored.scores) == before


def test_a_second_run_writes_the_same_bytes_and_nothing_stale(scored, plain):
    filtered(scored, p_heldout=0.5)
    assert contents(scored.prepared) != plain[1]
    filtered(scored)
    assert contents(scored.prepared) == plain[1]


@pytest.mark.parametrize(("image_format", "ext"), [("webp", "webp"), ("jpeg", "jpg")])
def test_pictures_are_stored_in_the_chosen_format_and_size(scored, image_format, ext):
    filtered(scored, image_format=image_format, image_px=64)
    train, _ = sides(scored)
    assert set(train[0].fields) == {ext, "txt", "json", "npy"}
    assert decode(train[0].image).shape == (64, 64, 3)


def test_too_few_samples_say_which_rule_dropped_how_many(scored):
    with pytest.raises(DataError, match=r"of 84 pairs, 0 remain.*: undecodable 4, too_small 80; loosen"):
        filtered(scored, min_side_px=1000)


def test_every_pair_that_was_dropped_stays_listed_with_its_reason(scored, plain):
    filtered(scored)
    rows = pq.read_table(scored.prepared / "rejected.parquet").to_pylist()
    kept = {key for shards in sides(scored) for key in shards.keys}
    raw = Shards(scored.raw)
    assert [row["key"] for row in rows] == [key for key in raw.keys if key not in kept]
    by_reason = {reason: [row for row in rows if row["reason"] == reason] for reason in REASONS}
    assert all(len(mine) == NUM_PLANTED for mine in by_reason.values())
    shard_of = {key: raw.manifest["shards"][n]["file"] for n in range(len(raw.shard_sizes)) for key in
                [raw.keys[i] for i in raw.shard_range(n)]}  # fmt: skip
    captions = {sample.key: sample.caption for sample in raw}
    for row in rows:
        assert (row["shard"], row["caption"]) == (shard_of[row["key"]], captions[row["key"]])
    assert {row["value"] for row in by_reason["too_small"]} == {15}
    assert {row["value"] for row in by_reason["aspect"]} == {np.float32(41 / 20)}
    assert {row["value"] for row in by_reason["undecodable"]} == {None}
    assert {row["key"]: row["twin"] for row in by_reason["duplicate"]} == {
        "later0": "good00", "later1": "good01", "later2": "good00-v1", "later3": "good03",
    }  # fmt: skip


def test_the_funnel_tells_the_rules_in_order_and_ends_at_what_is_kept(plain):
    report, _ = plain
    left = report["total"]
    for step in report["funnel"]:
        left -= step["dropped"]
        assert (step["left"], step["dropped"]) == (left, report["dropped"][step["reason"]])
    assert left == report["kept"]
    told = [step["reason"] for step in report["funnel"] if step["dropped"]]
    assert told == list(REASONS)
    assert report["captions"]["dropped"]["caption_too_short"] == NUM_PLANTED + NUM_GOOD // 4
    assert report["datasets"] == {}


def test_keys_that_begin_anew_in_every_raw_shard_are_told_apart(tmp_path):
    """Those of foreign tars often do; training finds a sample by its place, people by its key."""
    workspace = Workspace(tmp_path)
    put_clip(workspace)
    good = [sample for sample in planted() if sample.key.startswith("good")]
    put_raw(workspace, (replace(sample, key=f"{n % 20:05d}") for n, sample in enumerate(good)), per_shard=20)
    score.run(config(), workspace, "cpu")
    filtered(workspace, p_heldout=0.3)
    samples = [sample for side in sides(workspace) for sample in side]
    assert len({sample.key for sample in samples}) == len(samples) == NUM_GOOD
    from_first = [sample for sample in samples if "original_key" not in sample.metadata]
    assert sorted(sample.key for sample in from_first) == [f"{n:05d}" for n in range(20)]
    for sample in samples:
        if sample not in from_first:
            assert re.fullmatch(rf"{sample.metadata['original_key']}-0000[12]", sample.key)
    for split in ("train", "heldout"):
        for entry in Shards(workspace.prepared / split).manifest["shards"]:
            assert check_shard(workspace.prepared / split / entry["file"], entry, quick=False).problems == []


def test_the_report_tells_the_thresholds_in_force_and_the_settings(scored):
    on = [{"column": "sharpness", "min": 0.5, "max": 1e9, "keep_fraction": 0.9}]
    report = filtered(scored, keep_fraction=0.8, thresholds=on)
    cutoffs = report["cutoffs"]
    assert report["thresholds"] == {
        "side_px": [16], "aspect": [2], "caption_chars": [3, 40], "caption_words": [], "caption_letters": [],
        "clip_score": [cutoffs["clip_score"]], "sharpness": [0.5, 1e9, cutoffs["sharpness"]],
    }  # fmt: skip
    assert report["lowest_clip_score_kept"] >= cutoffs["clip_score"] > -1
    assert report["settings"] == {name: value for name, value in RULES.items() if name != "engine"} | {
        "keep_fraction": 0.8, "thresholds": on,
    }  # fmt: skip


def test_plots_and_sheets_show_what_the_report_says(scored, plain):
    report = filtered(scored, pictures=True)
    first = contents(scored.prepared)
    filtered(scored, pictures=True)
    assert contents(scored.prepared) == first, "also pictures are the same bytes"
    files = {plot["file"] for plot in report["plots"]} | {sheet["file"] for sheet in report["samples"].values()}
    assert files == {f"plots/{path.name}" for path in (scored.prepared / "plots").iterdir()}
    assert {f"plots/{name}.png" for name in ("funnel", "clip_score", "aspect", "sharpness", "kept")} < files
    assert set(report["samples"]) == {"kept", *REASONS}
    captions = {sample.key: sample.caption for sample in Shards(scored.raw)}
    for reason, sheet in report["samples"].items():
        keys = [tile["key"] for tile in sheet["tiles"]]
        assert len(keys) == {"kept": 32, "duplicate": 2 * NUM_PLANTED}.get(reason, NUM_PLANTED)
        assert [tile["caption"] for tile in sheet["tiles"]] == [captions[key] for key in keys]
        with Image.open(scored.prepared / sheet["file"]) as picture:
            assert picture.width == min(8, len(keys)) * 100 - 4
    pairs = [tile["key"] for tile in report["samples"]["duplicate"]["tiles"]]
    assert dict(zip(pairs[::2], pairs[1::2], strict=True))["later1"] == "good01"


def test_any_number_of_processes_writes_the_same_bytes(scored, plain):
    filtered(scored, engine={"kind": "processes", "num_workers": 2})
    assert contents(scored.prepared) == plain[1]


@pytest.mark.slow
def test_ray_writes_the_same_bytes(scored, plain):
    pytest.importorskip("ray", reason="ray is not installed (extra: ray)")
    filtered(scored, engine={"kind": "ray", "address": None, "num_cpus": 1.0, "num_gpus": 0.0})
    assert contents(scored.prepared) == plain[1]


def test_machines_that_share_the_shards_out_make_what_one_makes_with_any_engine(scored, plain):
    states = lambda: {path.name for path in (scored.root / ".state" / "filter").iterdir() if path.is_dir()}
    before = states()
    for share, num_workers in (("2/2", 0), ("0", 0), ("0", 3)):
        engine = {"kind": "processes", "num_workers": num_workers}
        report = filtered(scored, parts=parse_parts(share), p_heldout=0.3, engine=engine)
        assert report["settings"]["p_heldout"] != 0.3, "no output yet"
    assert len(states() - before) == 1, "one state, whatever the engine"
    filtered(scored, p_heldout=0.3)
    shared = contents(scored.prepared)
    filtered(scored)
    filtered(scored, p_heldout=0.3)
    assert contents(scored.prepared) == shared


def test_a_killed_run_goes_on_after_its_last_whole_shard_and_other_rules_start_afresh(scored, plain, monkeypatch):
    sample, made = PrepareShard._sample, []

    def counted(self, raw, *arguments):
        made.append(raw.key)
        if len(made) == 45:
            raise KeyboardInterrupt
        return sample(self, raw, *arguments)

    monkeypatch.setattr(PrepareShard, "_sample", counted)
    with pytest.raises(KeyboardInterrupt):
        filtered(scored)
    monkeypatch.setattr(filter, "judge", None)
    filtered(scored)
    assert len(made) == 45 + NUM_GOOD - 40, "two shards of twenty were whole"
    assert contents(scored.prepared) == plain[1]
    monkeypatch.undo()
    monkeypatch.setattr(PrepareShard, "_sample", counted)
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        filtered(scored)
    filtered(scored, p_heldout=0.3)
    assert len(made) == 45 + NUM_GOOD


def test_blocklists_are_told_by_their_hash_and_a_changed_one_is_applied(scored, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("good00.org\n")
    entry: dict[str, Any] = {"kind": "domains", "path": str(path), "sha256": None}
    first = filtered(scored, blocklists=[entry])
    assert first["blocklists"] == [{"kind": "domains", "entries": 1, "sha256": sha256(path)}]
    assert (first["dropped"]["blocked_domain"], first["kept"]) == (1, NUM_GOOD), "its copy takes its place"
    filtered(scored, parts=parse_parts("0"), blocklists=[entry])  # leaves its state
    known = sha256(path)
    path.write_text("good00.org\ngood01.org\nlater1.org\n")
    assert filtered(scored, blocklists=[entry])["kept"] == NUM_GOOD - 1
    with pytest.raises(DataError, match=rf"bad\.txt: its sha256 is {sha256(path)}, and in params\.yaml.*{known}"):
        filtered(scored, blocklists=[entry | {"sha256": known}])


def test_a_mixture_is_counted_and_stored_by_dataset(scored, tmp_path):
    workspace = Workspace(tmp_path)
    shutil.copytree(scored.root, tmp_path, dirs_exist_ok=True)
    put_raw(workspace, planted(), datasets=["cats", "dogs", "cats", "cats"])
    manifest = json.loads((workspace.scores / MANIFEST).read_text())
    write_json(workspace.scores / MANIFEST, manifest | {"raw": sha256(workspace.raw / MANIFEST)})
    report = filtered(workspace)
    assert list(report["datasets"]) == ["cats", "dogs"]
    for count in ("total", "kept", "train", "heldout"):
        assert sum(of_one[count] for of_one in report["datasets"].values()) == report[count]
    raw = Shards(workspace.raw)
    dataset = {
        raw.keys[i]: entry["dataset"] for n, entry in enumerate(raw.manifest["shards"]) for i in raw.shard_range(n)
    }
    for shards, split in zip(sides(workspace), ("train", "heldout"), strict=True):
        names = [entry["dataset"] for entry in shards.manifest["shards"]]
        assert names == sorted(names)
        for number, name in enumerate(names):
            samples = [shards[i] for i in shards.shard_range(number)]
            assert {(dataset[s.key], s.metadata["dataset"]) for s in samples} == {(name, name)}
        assert names.count("dogs") >= 1 and sum(shards.shard_sizes) == report[split]


def test_scores_of_other_shards_or_another_encoder_are_refused(scored):
    manifest = scored.raw / MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace('"test"', '"best"'))
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


@pytest.mark.parametrize("damage", ["cut", "gone", "changed", "manifest gone", "manifest cut"])
def test_damaged_scores_are_named(scored, damage):
    path = scored.scores / ("00001.parquet" if "manifest" not in damage else "manifest.json")
    data = path.read_bytes()
    changed = data[:40] + bytes(byte ^ 255 for byte in data[40:60]) + data[60:]
    path.unlink() if "gone" in damage else path.write_bytes(changed if damage == "changed" else data[:50])
    try:
        with pytest.raises(DataError, match=rf"{path.name}: .*stylegan-t run score"):
            filtered(scored, min_side_px=17)
    finally:
        path.write_bytes(data)


def test_a_picture_that_was_damaged_since_is_named(scored):
    shard = scored.raw / "00000.tar"
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"IDAT", b"IDAX"))
    try:
        with pytest.raises(DataError, match=r"raw: sample good\d+: not a readable picture.*stylegan-t data verify"):
            filtered(scored, p_heldout=0.21)
    finally:
        shard.write_bytes(data)
