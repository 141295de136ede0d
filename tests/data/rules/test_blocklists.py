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


@pytest.mark.parametrize("entry", ["müller.de", "MÜLLER.de", "mu\u0308ller.de", "xn--mller-kva.de", "XN--MLLER-KVA.de"])
@pytest.mark.parametrize("host", ["müller.de", "www.Müller.de", "shop.xn--mller-kva.DE"])
def test_a_domain_is_the_same_in_all_its_spellings(tmp_path, entry, host):
    rows = [{"url": f"https://{host}/a.jpg"}, {"url": "https://muller.de"}, {"url": None}, {"url": "https://ü|.de"}]
    assert hits(tmp_path, "domains", entry, *rows) == [True, False, False, False]


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("localhost", "http://localhost/a.jpg"),
        (".example.com", "http://cdn.example.com/a.jpg"),
        ("my_bucket.example.com", "http://my_bucket.example.com"),
        ("192.168.0.1", "http://192.168.0.1:80"),
        ("[2001:DB8::1]", "http://[2001:db8::1]:80/a.jpg"),
    ],
)
def test_whatever_can_be_a_host_can_be_a_domain(tmp_path, entry, url):
    assert hits(tmp_path, "domains", entry, {"url": url}, {"url": "http://other.org"}) == [True, False]


@pytest.mark.parametrize(
    "entry",
    ["https://example.com", "*.example.com", "example.com/", "example.com:80", "me@example.com", "a b.com", "a..b",
     ".", "!!", "2001:db8::1", "0.0.0.0 example.com", "بيت-.com"],
)  # fmt: skip
def test_what_is_no_host_is_refused_with_its_place_and_what_is_allowed(tmp_path, entry):
    with pytest.raises(DataError) as error:
        hits(tmp_path, "domains", f"# ours\n\nexample.com\n{entry}\n", {})
    assert str(error.value).startswith(f"{tmp_path / 'list.txt'}, line 4: {entry!r} is no host; use example.com")


@pytest.mark.parametrize(
    ("kind", "entry", "row"),
    [
        ("domains", "example.com", {"url": "http://example.com"}),
        ("words", "badword", {"caption": "a badword"}),
        ("pixels", pixels("bad").hex(), {"picture": "bad"}),
    ],
)
def test_a_comment_may_stand_behind_an_entry_that_holds_no_such_sign(tmp_path, kind, entry, row):
    assert hits(tmp_path, kind, f"{entry} # as asked for #12\n", row) == [True]


def test_keys_and_urls_may_hold_the_sign_of_comments(tmp_path):
    assert hits(tmp_path, "keys", "cat #1", {"key": "cat #1"}, {"key": "cat"}) == [True, False]
    assert hits(tmp_path, "urls", "http://x.org/#1", {"url": "http://x.org/#1"}) == [True]


@pytest.mark.parametrize(
    ("kind", "row"), [("keys", {"key": "cat"}), ("domains", {"url": "http://cat"}), ("words", {"caption": "a cat"})]
)
def test_a_byte_order_mark_is_no_part_of_the_first_entry(tmp_path, kind, row):
    assert hits(tmp_path, kind, "\ufeffcat\n", row) == [True]


@pytest.mark.parametrize(
    ("entry", "means"),
    [("c++", "'c'"), ("c#", "'c'"), (".net", "'net'"), ("$ex", "'ex'"), ("a+b", "'a b'"), ("b*d", "'b d'"),
     ("@user", "'user'"), ("***", "nothing"), ("🔞", "nothing"), ("!!", "nothing")],
)  # fmt: skip
def test_a_word_that_would_mean_another_one_without_its_signs_is_refused(tmp_path, entry, means):
    with pytest.raises(DataError) as error:
        hits(tmp_path, "words", f"badword\n{entry}\n", {})
    place = f"{tmp_path / 'list.txt'}, line 2: {entry!r} would stand for {means}"
    assert str(error.value).startswith(place) and "letters and digits" in str(error.value)


@pytest.mark.parametrize(
    "entry", ["very-bad", "rock 'n' roll", "don't", "u.s.a", "می\u200cخواهم", "नमस्ते", "18", "col·lecció"]
)
def test_signs_may_stand_within_a_phrase(tmp_path, entry):
    assert hits(tmp_path, "words", entry, {"caption": f"so {entry}, he said"}, {"caption": "a dog"}) == [True, False]


@pytest.mark.parametrize(
    ("entry", "caption", "hit"),
    [
        ("坏词", "这是坏词吗", True),
        ("坏词", "坏的词", False),
        ("わるい", "とてもわるい犬です", True),
        ("สุนัข", "ฉันรักสุนัขมาก", True),
        ("坏 dog", "a 坏dog", True),
        ("나쁜", "나쁜말", False),
    ],
)
def test_words_of_scripts_without_spaces_are_found_wherever_they_stand(tmp_path, entry, caption, hit):
    assert hits(tmp_path, "words", entry, {"caption": caption}) == [hit]


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
    assert hits(tmp_path, "words", "badword\nVery bad, thing\närger\n", {"caption": caption}) == [hit]


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
    with pytest.raises(DataError, match=r"list\.txt, line 1: 'abc' is no hash of pixels; they have 64"):
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
