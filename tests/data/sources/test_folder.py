from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stylegan_t.data.images import encode
from stylegan_t.data.shards import Skipped
from stylegan_t.data.sources.folder import Folder
from stylegan_t.errors import DataError
from tests.sources import all_of, lines, parts_of, put

PICTURE = encode(np.zeros((8, 8, 3), np.uint8))


def folder(path: Path, files: dict[str, bytes | str] | None = None, rows_per_part: int = 100) -> Folder:
    return Folder(put(path, files or {}), ["text", "caption"], rows_per_part)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def captions(source: Folder, work: Path) -> dict[str, list[str]]:
    return {sample.key: sample.captions for sample in all_of(source, work)[0]}


def test_metadata_gives_captions_and_keeps_further_columns(place, work):
    rows = [
        {"file_name": "a.png", "text": " a  cat\n", "tags": ["x", "ä"]},
        {"file_name": "sub/b.c.PNG", "text": "dog"},
    ]
    files = {"a.png": PICTURE, "sub/b.c.PNG": PICTURE, "metadata.jsonl": lines(*rows)}
    (first, second), skipped = all_of(folder(place, files), work)
    assert (first.key, first.captions) == ("a", ["a cat"])
    assert first.metadata == {"file_name": "a.png", "tags": ["x", "ä"]}
    assert (second.key, second.caption, second.fields["png"]) == ("sub_b_c", "dog", PICTURE)
    assert second.metadata == {"file_name": "sub/b.c.PNG", "original_key": "sub/b.c"}
    assert not skipped


def test_a_picture_may_have_several_captions(place, work):
    row = {"file_name": "a.png", "text": ["one", " ", "two"], "caption": "three\nlines"}
    source = folder(place, {"a.png": PICTURE, "metadata.jsonl": lines(row)})
    assert captions(source, work) == {"a": ["one", "two", "three lines"]}


def test_a_text_file_beside_each_picture_gives_its_caption(place, work):
    files = {"b/2.webp": b"x", "b/2.txt": "\ufefftwo\r\n", "1.jpg": b"y", "1.txt": "one", ".hidden.png": PICTURE}
    samples, skipped = all_of(folder(place, files), work)
    assert {s.key: s.captions for s in samples} == {"1": ["one"], "b_2": ["two"]} and not skipped
    assert samples[0].fields["jpg"] == b"y", "pictures are stored as they are"
    assert samples[1].metadata == {"file_name": "b/2.webp", "original_key": "b/2"}


def test_a_json_beside_a_picture_gives_captions_and_is_kept_and_a_text_goes_before_its_captions(place, work):
    files = {
        "a.jpg": b"x", "a.json": '{"caption": ["one", "two"], "score": 0.5}',
        "sub/b.jpg": b"y", "sub/b.json": '{"caption": "told twice", "score": 1}', "sub/b.txt": "from the text",
    }  # fmt: skip
    (a, b), _ = all_of(folder(place, files), work)
    assert (a.captions, a.metadata) == (["one", "two"], {"file_name": "a.jpg", "score": 0.5})
    told = {"file_name": "sub/b.jpg", "score": 1, "original_key": "sub/b"}
    assert (b.captions, b.metadata) == (["from the text"], told)


def test_metadata_in_sub_folders_name_pictures_from_where_they_lie(place, work):
    rows = {"": "top.png", "train/": "a.png", "train/deep/": "../b.png", "test/": "more/c.png"}
    files = {f"{below}metadata.jsonl": lines({"file_name": name, "text": below + name}) for below, name in rows.items()}
    pictures = dict.fromkeys(["top.png", "train/a.png", "train/deep/lone.png", "test/more/c.png"], PICTURE)
    with pytest.raises(DataError, match=r"train/deep/metadata\.jsonl, line 1: file_name '\.\./b\.png' lies outside"):
        folder(place, files | pictures).plan(work)
    put(place, {"train/deep/metadata.jsonl": lines({"file_name": "b.png", "text": "no picture"})})
    samples, skipped = all_of(folder(place), work)
    assert {s.key: (s.caption, s.metadata["file_name"]) for s in samples} == {
        "top": ("top.png", "top.png"),
        "train_a": ("train/a.png", "train/a.png"),
        "test_more_c": ("test/more/c.png", "test/more/c.png"),
    }
    assert skipped == {"train_deep_b": "missing_image", "train_deep_lone": "missing_caption"}


@pytest.mark.parametrize("listed", [True, False])
def test_pictures_of_kinds_that_nobody_reads_are_counted_and_other_files_are_not(place, work, listed):
    files = {
        "a.heic": b"x",
        "b.HEIF": b"x",
        "b.txt": "b",
        "c.jfif": PICTURE,
        "d.jfif": PICTURE,
        "LICENCE": "",
        "e.csv": "",
    }
    files |= {"d.txt": "d", **({"metadata.jsonl": ""} if listed else {})}
    samples, skipped = all_of(folder(place, files), work)
    assert [s.key for s in samples] == ([] if listed else ["d"])
    expected = {"a": "missing_image", "b": "missing_image", "c": "missing_caption"}
    assert skipped == (dict.fromkeys("abcd", "missing_caption") if listed else expected)


def test_a_value_may_be_called_captions_and_hold_anything(place, work):
    rows = [{"file_name": f"{name}.png", "captions": 3} for name in "ab"] + [{"file_name": "c.png", "text": ["t", "u"]}]
    rows[0]["text"] = "one"
    source = folder(place, {"a.png": PICTURE, "b.png": PICTURE, "metadata.jsonl": lines(*rows)})
    ((a, b, c),) = parts_of(source, work)
    assert a.metadata == {"file_name": "a.png", "captions": 3}
    assert b == Skipped("b", "missing_caption", {"file_name": "b.png", "captions": 3})
    assert c == Skipped("c", "missing_image", {"file_name": "c.png"}, ["t", "u"])


def test_what_lacks_a_picture_or_a_caption_is_told_and_loses_nothing_else(place, work):
    rows = [
        {"file_name": "good.png", "text": "good"},
        {"file_name": "gone.png", "text": "no picture"},
        {"file_name": "empty.png", "text": "  "},
        {"file_name": "null.png", "text": None},
        {"file_name": "silent.png"},
    ]
    pictures = {f"{name}.png": PICTURE for name in ("good", "empty", "null", "silent", "unlisted")}
    samples, skipped = all_of(folder(place, {**pictures, "metadata.jsonl": lines(*rows) + "\n"}), work)
    assert [s.key for s in samples] == ["good"]
    assert skipped.pop("gone") == "missing_image"
    assert skipped == dict.fromkeys(["empty", "null", "silent", "unlisted"], "missing_caption")


def test_the_same_is_told_with_text_files(place, work):
    files = {"good.png": PICTURE, "good.txt": "good", "silent.png": PICTURE, "empty.png": PICTURE, "empty.txt": " "}
    samples, skipped = all_of(folder(place, {**files, "lost.txt": "no picture"}), work)
    assert [s.key for s in samples] == ["good"]
    assert skipped == {"silent": "missing_caption", "empty": "missing_caption", "lost": "missing_image"}


def test_keys_stay_apart_where_names_collide(place, work):
    names = ["a/b.png", "a_b.png", "a_b.jpg", "a.b.png"]
    rows = [{"file_name": name, "text": name} for name in names]
    source = folder(place, {**dict.fromkeys(names, PICTURE), "metadata.jsonl": lines(*rows)})
    found = captions(source, work)
    assert list(found.values()) == [[name] for name in names]
    assert all("." not in key and "/" not in key for key in found) and len(found) == 4


def test_two_lines_of_one_picture_are_two_samples(place, work):
    rows = [{"file_name": "a.png", "text": text} for text in ("one", "two")]
    source = folder(place, {"a.png": PICTURE, "metadata.jsonl": lines(*rows)})
    assert captions(source, work) == {"a": ["one"], "a-2": ["two"]}


@pytest.mark.parametrize("listed", [True, False])
def test_a_name_that_is_no_unicode_is_no_reason_to_lose_its_picture(place, work, listed):
    name = os.fsdecode(b"caf\xe9")
    (place / f"{name}.png").write_bytes(PICTURE)
    if listed:
        put(place, {"metadata.jsonl": ""})
        assert all_of(folder(place), work)[1] == {"caf_": "missing_caption"}
    else:
        (place / f"{name}.txt").write_text("coffee")
        (sample,), _ = all_of(folder(place), work)
        assert (sample.key, sample.metadata) == ("caf_", {"file_name": "caf?.png", "original_key": "caf?"})


def test_parts_are_runs_of_all_candidates_in_the_order_of_their_names(place, work):
    files = {f"{folder}/{n}.{ext}": "x" for folder in ("b", "a") for n in range(3) for ext in ("png", "txt")}
    parts = parts_of(folder(place, files, rows_per_part=4), work)
    assert [[pair.key for pair in part] for part in parts] == [["a_0", "a_1", "a_2", "b_0"], ["b_1", "b_2"]]


def test_the_fingerprint_follows_captions_and_pictures(place):
    put(place, {"a.png": PICTURE, "a.txt": "one"})
    before = folder(place).fingerprint()
    assert before == folder(place).fingerprint()
    put(place, {"a.txt": "two"})
    changed = folder(place).fingerprint()
    put(place, {"a.png": PICTURE + b"0"})
    again = folder(place).fingerprint()
    other_captions = Folder(place, ["text"], 100).fingerprint()
    assert len({before, changed, again, other_captions}) == 4


def test_the_manifest_says_the_same_of_a_copy_and_something_else_of_other_captions(tmp_path):
    facts = []
    for name, caption in (("one", "a cat"), ("copy", "a cat"), ("other", "a dog")):
        source = folder(tmp_path / name, {"a.png": PICTURE, "a.txt": caption})
        source.plan(tmp_path / f"work-{name}")
        facts.append(source.facts(tmp_path / f"work-{name}"))
    assert facts[0] == facts[1] != facts[2]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{not json", "not JSON"),
        ("[]", "no file_name"),
        ('{"text": "a cat"}', "no file_name"),
        ('{"file_name": "a.png", "text": {}}', r"text is \{\}, not a text, a number or a list of them"),
        ('{"file_name": "a.png", "text": ["a", []]}', r"text is \['a', \[\]\], not a text"),
        ('{"file_name": "a.png", "text": "\\ud83d"}', "half of a surrogate pair"),
        ('{"file_name": "../a.png", "text": "a"}', "outside the folder"),
        ('{"file_name": "/etc/hosts", "text": "a"}', "outside the folder"),
        (b'{"file_name": "a.png", "text": "caf\xe9"}', r"not UTF-8 text \(byte 35\)"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(place, work, line, match):
    good = lines({"file_name": "a.png", "text": "a"}).encode()
    line = line if isinstance(line, bytes) else line.encode()
    put(place, {"a.png": PICTURE, "metadata.jsonl": good + line + b"\n"})
    with pytest.raises(DataError, match=rf"metadata\.jsonl, line 2: .*{match}.*expected e\.g\."):
        folder(place).plan(work)


@pytest.mark.parametrize(
    ("text", "match"), [("{", "not JSON"), ("[]", "no JSON object"), ('{"text": {}}', "text is {}")]
)
def test_a_wrong_json_beside_a_picture_is_named(place, work, text, match):
    with pytest.raises(DataError, match=rf"a\.json: {match}"):
        folder(place, {"a.png": PICTURE, "a.json": text}).plan(work)


def test_text_that_is_not_utf8_is_named(place, work):
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8 text \(byte 3\)"):
        folder(place, {"a.png": PICTURE, "a.txt": b"caf\xe9"}).plan(work)


def test_a_picture_that_went_away_meanwhile_is_named(place, work):
    source = folder(place, {"a.png": PICTURE, "a.txt": "a"})
    source.plan(work)
    (place / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: cannot be read"):
        list(source.pairs(0, work))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder .download.source.path."):
        Folder(tmp_path / "nowhere", ["text"], 1)
