from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stylegan_t.data import shapes
from stylegan_t.data.images import decode, encode
from stylegan_t.data.sources import Folder, Shapes
from stylegan_t.errors import DataError

PICTURE = encode(np.zeros((8, 8, 3), np.uint8))


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def captions(source: Folder) -> dict[str, str]:
    return {s.key: s.caption for s in source.samples(0, source.num_samples)}


def test_any_run_of_drawn_samples_is_the_same_and_shows_its_metadata():
    source = Shapes(600, 32, 0.12, seed=0)
    samples = list(source.samples(0, 600))
    assert list(source.samples(240, 270)) == samples[240:270]
    assert [s.key for s in samples[:2]] == ["shapes-00000000", "shapes-00000001"]
    heldout = shapes.heldout_combinations(0, 0.125)
    for sample in samples[:50]:
        facts = sample.metadata
        combination = shapes.Combination(*(facts[name] for name in shapes.Combination._fields))
        assert combination not in heldout
        assert sample.caption == shapes.caption(combination, facts["template"])
        scene = shapes.Scene(combination, facts["x"], facts["y"], 0)
        np.testing.assert_array_equal(decode(sample.image), shapes.draw([scene], 32)[0])


def test_another_seed_or_size_is_another_source():
    fingerprints = {
        Shapes(n, px, f, s).fingerprint()
        for n, px, f, s in [
            (9, 32, 0.1, 0),
            (8, 32, 0.1, 0),
            (9, 16, 0.1, 0),
            (9, 32, 0.2, 0),
            (9, 32, 0.1, 1),
        ]
    }
    assert len(fingerprints) == 5


def test_metadata_gives_captions_and_keeps_further_columns(tmp_path):
    rows = [
        {"file_name": "a.png", "text": " a  cat\n", "tags": ["x", "ä"]},
        {"file_name": "sub/b.c.PNG", "text": "dog"},
    ]
    source = Folder(put(tmp_path, {"a.png": PICTURE, "sub/b.c.PNG": PICTURE, "metadata.jsonl": lines(*rows)}))
    first, second = source.samples(0, 2)
    assert (first.key, first.caption) == ("a", "a cat")
    assert first.metadata == {"file_name": "a.png", "tags": ["x", "ä"]}
    assert (second.key, second.caption, second.fields["png"]) == ("sub_b_c", "dog", PICTURE)
    assert not source.skipped


def test_a_text_file_beside_each_picture_gives_its_caption(tmp_path):
    source = Folder(put(tmp_path, {"b/2.webp": b"x", "b/2.txt": "\ufefftwo\r\n", "1.jpg": b"y", "1.txt": "one"}))
    assert captions(source) == {"1": "one", "b_2": "two"}
    assert next(source.samples(0, 1)).fields["jpg"] == b"y", "pictures are stored as they are"


def test_what_lacks_a_picture_or_a_caption_is_counted_and_loses_nothing_else(tmp_path):
    rows = [
        {"file_name": "good.png", "text": "good"},
        {"file_name": "gone.png", "text": "no picture"},
        {"file_name": "empty.png", "text": "  "},
        {"file_name": "null.png", "text": None},
        {"file_name": "silent.png"},
    ]
    pictures = {f"{name}.png": PICTURE for name in ("good", "empty", "null", "silent", "unlisted")}
    source = Folder(put(tmp_path, {**pictures, "metadata.jsonl": lines(*rows) + "\n"}))
    assert captions(source) == {"good": "good"}
    assert source.skipped == {"missing_image": 1, "missing_caption": 4}


def test_the_same_is_counted_with_text_files(tmp_path):
    files = {
        "good.png": PICTURE,
        "good.txt": "good",
        "silent.png": PICTURE,
        "empty.png": PICTURE,
        "empty.txt": " ",
    }
    source = Folder(put(tmp_path, {**files, "lost.txt": "no picture", ".hidden.png": PICTURE}))
    assert captions(source) == {"good": "good"}
    assert source.skipped == {"missing_caption": 2, "missing_image": 1}


def test_keys_stay_apart_where_names_collide(tmp_path):
    names = ["a/b.png", "a_b.png", "a_b.jpg", "a.b.png"]
    rows = [{"file_name": name, "text": name} for name in names]
    source = Folder(put(tmp_path, {**dict.fromkeys(names, PICTURE), "metadata.jsonl": lines(*rows)}))
    assert list(captions(source).values()) == names
    assert all("." not in key and "/" not in key for key in captions(source)) and len(captions(source)) == 4


def test_two_captions_of_one_picture_are_two_samples(tmp_path):
    rows = [{"file_name": "a.png", "text": text} for text in ("one", "two")]
    source = Folder(put(tmp_path, {"a.png": PICTURE, "metadata.jsonl": lines(*rows)}))
    assert captions(source) == {"a": "one", "a-2": "two"}


def test_the_fingerprint_follows_captions_and_pictures(tmp_path):
    put(tmp_path, {"a.png": PICTURE, "a.txt": "one"})
    before = Folder(tmp_path).fingerprint()
    assert before == Folder(tmp_path).fingerprint()
    put(tmp_path, {"a.txt": "two"})
    changed = Folder(tmp_path).fingerprint()
    put(tmp_path, {"a.png": PICTURE + b"0"})
    assert len({before, changed, Folder(tmp_path).fingerprint()}) == 3


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{not json", "not JSON"),
        ("[]", "no file_name"),
        ('{"text": "a cat"}', "no file_name"),
        ('{"file_name": "a.png", "text": 3}', "text is 3, not a string"),
        ('{"file_name": "a.png", "text": "\\ud83d"}', "half of a surrogate pair"),
        ('{"file_name": "../a.png", "text": "a"}', "outside the folder"),
        ('{"file_name": "/etc/hosts", "text": "a"}', "outside the folder"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(tmp_path, line, match):
    good = lines({"file_name": "a.png", "text": "a"})
    put(tmp_path, {"a.png": PICTURE, "metadata.jsonl": good + line + "\n"})
    with pytest.raises(DataError, match=rf"metadata\.jsonl, line 2: .*{match}.*expected e\.g\."):
        Folder(tmp_path)


def test_text_that_is_not_utf8_is_named(tmp_path):
    put(tmp_path, {"a.png": PICTURE, "a.txt": b"caf\xe9"})
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8 text \(byte 3\)"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "no picture with a caption .it is empty"),
        ({"a.png": PICTURE}, "1 missing_caption"),
        ({"metadata.jsonl": ""}, "it is empty"),
        ({"metadata.jsonl": lines({"file_name": "a.png", "text": "a"})}, "1 missing_image"),
    ],
)
def test_a_folder_with_nothing_usable_says_what_it_lacks(tmp_path, files, match):
    with pytest.raises(DataError, match=match):
        Folder(put(tmp_path, files))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder .download.source.path."):
        Folder(tmp_path / "nowhere")
