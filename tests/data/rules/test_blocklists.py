from __future__ import annotations

import hashlib

import pytest

from stylegan_t.data.rules.blocklists import read_blocklist
from stylegan_t.data.rules.columns import some_true
from stylegan_t.errors import DataError
from tests.data.rules.tables import pixels, score_table


def hits(tmp_path, kind, text, *rows):
    path = tmp_path / "list.txt"
    path.write_text(text)
    return read_blocklist(kind, path).hits(score_table(*rows)).tolist()


def test_keys_and_urls_are_compared_whole(tmp_path):
    rows = [
        {"key": "cat", "url": "http://x.org/cat.jpg"},
        {"key": "cats", "url": "http://x.org/cats.jpg"},
        {"url": None},
    ]
    assert hits(tmp_path, "keys", "cat\n\ndog\n", *rows) == [True, False, False]
    assert hits(tmp_path, "urls", "http://x.org/cats.jpg\nhttp://x.org", *rows) == [False, True, False]


@pytest.mark.parametrize(
    ("url", "hit"),
    [
        ("https://example.com/a.jpg", True),
        ("http://EXAMPLE.com:8080", True),
        ("https://cdn.images.example.com/a.jpg?x=1", True),
        ("https://user:secret@example.com/a.jpg", True),
        ("https://example.com./a.jpg", True),
        ("https://myexample.com/a.jpg", False),
        ("https://example.com.evil.org/a.jpg", False),
        ("https://other.org/example.com/a.jpg", False),
        ("https://other.org/?from=@example.com/", False),
        ("no url", False),
        (None, False),
    ],
)
def test_a_domain_covers_those_below_it_and_no_other(tmp_path, url, hit):
    assert hits(tmp_path, "domains", "# ours\nExample.com.\n", {"url": url}) == [hit]


@pytest.mark.parametrize(
    ("caption", "hit"),
    [
        ("a BADWORD here", True),
        ("badword", True),
        ("(badword),", True),
        ("badwords are many", False),
        ("abadword", False),
        ("some very-bad Thing today", True),
        ("some very bad things", False),
        ("ÄRGER im Paradies", True),
        ("a dog", False),
    ],
)
def test_words_are_found_whole_in_either_case_and_phrases_across_punctuation(tmp_path, caption, hit):
    assert hits(tmp_path, "words", "badword\nVery bad, thing\närger\n!!\n", {"caption": caption}) == [hit]


def test_one_bad_caption_speaks_for_the_picture(tmp_path):
    rows = [{"captions": ["a dog", "a badword"]}, {"captions": ["a cat", "a dog"]}]
    assert hits(tmp_path, "words", "badword", *rows) == [True, False]


def test_many_phrases_are_all_found(tmp_path):
    phrases = [f"phrase number{n}" for n in range(250)]
    rows = [{"caption": f"it says {phrase} today"} for phrase in phrases]
    assert hits(tmp_path, "words", "\n".join(phrases), *rows, {"caption": "phrase number"}) == [True] * 250 + [False]


def test_pictures_are_known_by_the_hash_of_their_pixels(tmp_path):
    assert hits(tmp_path, "pixels", pixels("bad").hex().upper(), {"picture": "bad"}, {"picture": "good"}) == [
        True,
        False,
    ]
    with pytest.raises(DataError, match=r"list\.txt: 'abc' is no hash of pixels; they have 64"):
        hits(tmp_path, "pixels", "abc", {})


def test_an_empty_list_names_nothing(tmp_path):
    for kind in ("keys", "urls", "domains", "words", "pixels"):
        assert hits(tmp_path, kind, "# nothing\n\n", {"url": "http://x.org"}) == [False]


def test_a_list_tells_the_hash_of_its_file(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a\n")
    assert read_blocklist("keys", path).sha256 == hashlib.sha256(b"a\n").hexdigest()


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: no such file; filter\.blocklists"):
        read_blocklist("keys", tmp_path / "gone.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"b\.txt: not UTF-8"):
        read_blocklist("keys", tmp_path / "b.txt")


def test_a_list_is_true_if_any_of_its_values_is():
    import numpy as np

    values = np.array([False, True, False, False, True])
    assert some_true(values, np.array([0, 2, 2, 4, 5])).tolist() == [True, False, False, True]
