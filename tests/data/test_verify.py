"""What is wrong with shards: found, named, and nothing found where nothing is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_t.data import images
from stylegan_t.data.found import INDEXED, captions, decode, find_shards
from stylegan_t.data.index import index_path
from stylegan_t.data.shards import MANIFEST, Sample, pack, shard_name, write_manifest, write_shard, write_shards
from stylegan_t.data.tars import index_shard
from stylegan_t.data.verify import check_folder, check_shard
from stylegan_t.errors import DataError
from tests.tars import picture, sample, write_tar


def ours(folder: Path) -> Path:
    samples = [pack(f"s{n}", "png", picture(n), [f"caption {n}"], {"n": n}) for n in range(7)]
    write_manifest(folder, "raw", write_shards(folder, samples, 3))
    return folder


def problems(*paths: Path, quick: bool = False) -> list[tuple[str, str]]:
    """Name of the shard or folder, and what is wrong, for all that is."""
    places = find_shards(paths)
    found = [(place.folder.name, problem) for place in places for problem in check_folder(place)]
    for place in places:
        for shard, entry in zip(place.shards, place.entries, strict=True):
            found += [(shard.name, problem) for problem in check_shard(shard, entry, quick=quick).problems]
    return found


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize("quick", [True, False])
def test_nothing_is_wrong_with_what_was_written(tmp_path, quick):
    assert problems(ours(tmp_path), quick=quick) == []


@pytest.mark.parametrize("quick", [True, False])
def test_nothing_is_wrong_with_tars_of_others_indexed_or_not(tmp_path, quick):
    path = write_tar(tmp_path / "a.tar", [*sample("k", 1), *sample("l", 2, ext="jpg")])
    assert problems(tmp_path, quick=quick) == []
    write_manifest(tmp_path, INDEXED, [index_shard(path, hashed=False)])
    assert problems(tmp_path, quick=quick) == []


def test_what_was_indexed_without_hashes_has_to_decode_instead(tmp_path):
    path = write_tar(tmp_path / "a.tar", [*sample("k", 1), ("l.png", b"damaged"), ("l.txt", b"caption")])
    write_manifest(tmp_path, INDEXED, [index_shard(path, hashed=False)])
    assert [problem.split(" (")[0] for _, problem in problems(tmp_path)] == ["l: its .png does not decode"]
    write_manifest(tmp_path, INDEXED, [index_shard(path, hashed=True)])
    assert problems(tmp_path) == [], "its bytes are those that were indexed"


def test_every_damaged_sample_is_named(tmp_path):
    shard = ours(tmp_path) / shard_name(1)
    rewrite(shard, b"caption 3", b"captain 3")
    rewrite(shard, b'{"n": 5}', b'{"n": 6}')
    damaged = "damaged: its sha256 is not that of the index"
    assert problems(tmp_path) == [(shard.name, f"s3.txt: {damaged}"), (shard.name, f"s5.json: {damaged}")]
    assert problems(tmp_path, quick=True) == [], "that reads no bytes of samples"


def test_damage_between_the_samples_is_found_by_the_shards_own_hash(tmp_path):
    shard = ours(tmp_path) / shard_name(0)
    data = bytearray(shard.read_bytes())
    data[-1] = 1
    shard.write_bytes(data)
    [(name, problem)] = problems(tmp_path)
    assert name == shard.name and problem.startswith("damaged between its members")


@pytest.mark.parametrize("quick", [True, False])
def test_files_that_are_missing_or_too_many_or_of_another_shard_are_told(tmp_path, quick):
    folder = ours(tmp_path / "raw")
    (folder / shard_name(0)).unlink()
    index_path(folder / shard_name(1)).unlink()
    index_path(folder / shard_name(2)).write_bytes(b"PAR1")
    write_tar(folder / "more.tar", sample("k"))
    rewrite(folder / MANIFEST, b'"num_samples": 7', b'"num_samples": 8')
    assert [(name, problem.split(" (")[0]) for name, problem in problems(folder, quick=quick)] == [
        ("raw", "manifest.json: says 8 samples, its shards have 7"),
        ("raw", "more.tar: not listed in manifest.json"),
        ("00000.tar", "listed in manifest.json, but missing"),
        ("00001.tar", "its index 00001.index.parquet is missing"),
        ("00002.tar", "its index is not readable"),
    ]


def test_an_index_of_another_tar_is_found_though_all_counts_agree(tmp_path):
    one, two = ours(tmp_path / "one"), tmp_path / "two"
    samples = [pack(f"t{n}", "png", picture(n), [f"caption {n}"], {"n": n}) for n in range(3)]
    write_shards(two, samples, 3)
    index_path(two / shard_name(0)).replace(index_path(one / shard_name(0)))
    assert problems(one, quick=True) == [("00000.tar", "its index is of another tar")]


def test_an_index_that_calls_the_members_otherwise_is_found(tmp_path):
    folders = [tmp_path / ext for ext in ("png", "pnm")]
    for folder in folders:
        sample = pack("s", folder.name, picture(0), ["caption"], {})
        write_manifest(folder, "raw", write_shards(folder, [sample], 1))
    index_path(folders[1] / shard_name(0)).replace(index_path(folders[0] / shard_name(0)))
    assert problems(folders[0], quick=True) == [("00000.tar", "its index is of another tar")]


def test_a_truncated_shard_is_told_with_the_byte_and_its_whole_samples(tmp_path):
    shard = ours(tmp_path) / shard_name(0)
    shard.write_bytes(shard.read_bytes()[:5700])
    [(name, problem)] = problems(tmp_path)
    assert name == shard.name and problem.startswith("truncated at byte 5700 ")
    assert problem.endswith("whole samples before that: 1")


def test_a_whole_tar_of_other_samples_is_not_what_the_manifest_lists(tmp_path):
    shard = ours(tmp_path) / shard_name(0)
    write_shard(shard, [pack("t", "png", picture(0), ["caption" * 2000], {})])
    size = json.loads((tmp_path / MANIFEST).read_text())["shards"][0]["num_bytes"]
    assert problems(tmp_path, quick=True) == [
        (shard.name, f"{shard.stat().st_size} bytes long, {size} by manifest.json"),
        (shard.name, "number of samples: 1, 3 by manifest.json"),
    ]


def test_samples_of_others_that_nobody_can_train_on_are_named_with_the_reason(tmp_path):
    good, text = picture(0), ("txt", b"caption")
    broken = {
        "no-picture": [text],
        "two": [("png", good), ("jpg", good), text],
        "no-caption": [("png", good)],
        "empty": [("png", good), ("txt", b" \n ")],
        "empty-json": [("png", good), ("json", b'{"caption": null}')],
        "damaged": [("png", good[:40]), text],
        "html": [("jpg", b"<html>"), text],
        "bad-json": [("png", good), text, ("json", b"{")],
        "no-object": [("png", good), text, ("json", b"[]")],
        "latin": [("png", good), ("txt", "ä".encode("latin-1"))],
    }
    fine = [("fine.png", good), ("fine.json", b'{"text": "a caption"}')]
    write_tar(tmp_path / "a.tar", [(f"{k}.{ext}", data) for k, fields in broken.items() for ext, data in fields] + fine)
    found = dict(problem.split(": ", 1) for _, problem in problems(tmp_path))
    expected = {
        "no-picture": "no picture",
        "two": "2 pictures (.png, .jpg) instead of one",
        "no-caption": "no caption: neither .txt nor .json",
        "empty": "its caption is empty",
        "empty-json": "its caption is empty",
        "damaged": "its .png does not decode (",
        "html": "its .jpg does not decode (cannot identify image file)",
        "bad-json": "its .txt or .json is not readable (",
        "no-object": "its .txt or .json is not readable (its .json is no JSON object)",
        "latin": "its .txt or .json is not readable (",
    }
    assert found.keys() == expected.keys()
    assert [key for key, start in expected.items() if not found[key].startswith(start)] == []
    by_names = {problem.split(": ", 1)[0] for _, problem in problems(tmp_path, quick=True)}
    assert by_names == {"no-picture", "two", "no-caption"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"txt": b"one\n\n two "}, ["one", " two "]),
        ({"txt": b"one", "json": b'{"caption": "other"}'}, ["one"]),
        ({"json": b'{"text": "two", "caption": "one"}'}, ["one"]),
        ({"json": b'{"text": ["one", "", "two"]}'}, ["one", "two"]),
        ({"json": b'{"title": "one"}'}, []),
        ({}, []),
    ],
)
def test_captions_are_found_where_others_keep_them(fields: dict[str, bytes], expected: list[str]):
    assert captions(Sample("k", fields)) == expected


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "turned", "clear", "deep"])
def test_pictures_are_seen_as_the_stages_see_them(kind):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))
    if kind == "clear":
        image.putalpha(100)
    if kind == "deep":
        image = Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000)
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    out = io.BytesIO()
    image.save(out, kind if kind.isupper() else "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(out.getvalue())), images.decode(out.getvalue()))
    assert decode(out.getvalue()).size == ((6, 8) if kind == "turned" else (8, 6))


def test_a_decompression_bomb_is_no_picture(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # of twice as many Pillow only warns
    with pytest.raises(ValueError, match="decompression bomb"):
        decode(picture(0, 8, 6))


def test_shards_are_found_below_a_path_whoever_made_them(tmp_path):
    folder = ours(tmp_path / "data" / "raw")
    foreign = write_tar(tmp_path / "data" / "web" / "a.tar", sample("k"))
    (tmp_path / "data" / "scores").mkdir()
    (tmp_path / "data" / "scores" / MANIFEST).write_text(json.dumps({"kind": "scores", "tables": []}))
    raw, web = find_shards([tmp_path / "data"])
    assert (raw.folder, raw.manifest and raw.manifest["kind"], len(raw.shards)) == (folder, "raw", 3)
    assert web == (foreign.parent, [foreign], None)
    assert find_shards([foreign, folder]) == [web, raw]


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["raw", "raw/00000.tar"], [3]),
        (["raw/00000.tar", "raw"], [3]),
        (["raw/00001.tar", "raw/00001.tar", "other/../raw/00001.tar"], [1]),
        (["raw", "other/../raw", "."], [3]),
        (["raw/more.tar", "raw/00000.tar", "raw"], [1, 3]),
    ],
)
def test_shards_are_found_once_however_often_they_are_named(tmp_path, names, places):
    folder = ours(tmp_path / "raw")
    (tmp_path / "other").mkdir()
    write_tar(folder / "more.tar", sample("k"))
    found = find_shards(tmp_path / name for name in names)
    assert [len(place.shards) for place in found] == [len(place.entries) for place in found] == places


@pytest.mark.parametrize("entry", [{"file": "a.tar"}, {}, "a.tar"])
def test_an_incomplete_manifest_is_named_wherever_it_lies_and_that_of_other_things_passed_over(tmp_path, entry):
    ours(tmp_path / "raw")
    for name, facts in (("cards", {"manifest_version": 3}), ("scores", {"kind": 1, "num_samples": 0, "shards": None})):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text(json.dumps(facts))
    assert len(find_shards([tmp_path])) == 1
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / MANIFEST).write_text(json.dumps({"kind": INDEXED, "num_samples": 1, "shards": [entry]}))
    with pytest.raises(
        DataError, match=r"web/manifest\.json: incomplete: entry 0 of its shards .*num_bytes.*remove it"
    ):
        find_shards([tmp_path])


def test_paths_without_shards_say_what_is_looked_for(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no shards: neither manifest\.json nor a file \*\.tar in it or"):
        find_shards([tmp_path / "empty"])
    with pytest.raises(DataError, match="nowhere: no such file or folder$"):
        find_shards([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no such file or folder; it has to be a local one"):
        find_shards([Path("s3://bucket/shards")])
    write_tar(tmp_path / "a.tar", sample("k"))
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: not readable"):
        find_shards([tmp_path])
