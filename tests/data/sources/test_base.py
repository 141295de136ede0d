from __future__ import annotations

import datetime
import decimal
import json
import math

import pytest
from PIL import Image

from stylegan_t.data.sources.base import (
    IMAGE_EXTENSIONS,
    DistinctKeys,
    captions_in,
    clean_key,
    extension,
    hash_key,
    plain,
)
from tests.imports import ROOT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 0.5), (math.nan, None), (-math.inf, None), (7, 7), (True, True), (None, None), ("ä", "ä"),
        ("\ud83d", "?"), (b"\x00\xff", "00ff"), (datetime.date(2020, 1, 2), "2020-01-02"),
        (datetime.datetime(2020, 1, 2, 3), "2020-01-02 03:00:00"), (decimal.Decimal("1.50"), "1.50"),
        ([1, (math.nan, b"a")], [1, [None, "61"]]), ({1: {"\ud83d": math.inf}}, {"1": {"?": None}}),
    ],
)  # fmt: skip
def test_any_value_of_a_table_becomes_one_that_json_and_utf8_can_hold(value, expected):
    found = plain(value)
    assert found == expected and type(found) is type(expected)
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


def test_captions_are_those_of_all_columns_that_hold_some():
    row = {"a": "one", "b": ["two", "", None, " one "], "c": None, "d": math.nan, "e": " \n"}
    assert captions_in(row, ["a", "b", "c", "d", "e", "missing"]) == ["one", "two"]
    assert captions_in(row, ["b", "a"]) == ["two", "one"]


@pytest.mark.parametrize(("value", "text"), [(3, "3"), (0, "0"), (0.5, "0.5"), (decimal.Decimal("1.50"), "1.50")])
def test_a_number_is_a_caption(value, text):
    assert captions_in({"a": value, "b": ["x", value]}, ["a", "b"]) == [text, "x"]


@pytest.mark.parametrize("value", [{"en": "a cat"}, [["a cat"]], True, b"a cat"])
def test_what_is_neither_text_nor_number_is_named_with_its_column(value):
    with pytest.raises(ValueError, match=r"^b is .*, not a text, a number or a list of them"):
        captions_in({"a": "one", "b": value}, ["a", "b"])


def test_keys_that_repeat_are_numbered_and_never_meet_one_that_has_such_a_number():
    distinct = DistinctKeys()
    assert [distinct(key, {})[0] for key in ["a", "b", "a", "a", "a-2", "a-4", "a"]] == [
        "a", "b", "a-2", "a-3", "a-2-2", "a-4", "a-5",
    ]  # fmt: skip
    many = DistinctKeys()
    assert len({many(key, {})[0] for key in ["a", "a-2", "a-2-2"] * 50}) == 150


def test_what_a_key_was_before_it_was_changed_is_kept():
    distinct = DistinctKeys()
    assert distinct("a", {"x": 1}) == ("a", {"x": 1})
    assert distinct("a", {"x": 1}) == ("a-2", {"x": 1, "original_key": "a"})
    assert distinct("d.ir/\ud83d", {}) == ("d_ir__", {"original_key": "d.ir/?"})
    assert distinct("b", {"original_key": "B"}) == ("b", {"original_key": "B"}), "as a shard of ours tells it"
    assert distinct("b", {"original_key": "B"}) == ("b-2", {"original_key": "b", "list_original_key": "B"})


def test_the_tail_of_a_long_key_becomes_a_hash():
    distinct = DistinctKeys()
    longest, longer, other = "ä" * 100, "ä" * 150 + "x", "ä" * 150 + "y"
    assert distinct(longest, {}) == (longest, {})
    keys = [distinct(wanted, {})[0] for wanted in (longer, other)]
    assert keys == [f"{'ä' * 89}-{hash_key(wanted)}" for wanted in (longer, other)]
    assert all(len(key.encode()) <= 200 for key in keys)


def test_a_key_has_nothing_that_a_tar_takes_apart():
    assert clean_key("a/b.c\\d\n\x00e ä") == "a_b_c_d__e ä"


def test_a_hashed_key_follows_from_the_content():
    assert hash_key("ä") == hash_key("ä".encode()) != hash_key("a")
    assert len(hash_key("")) == 20 and set(hash_key("x")) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("name", "image", "ext"),
    [
        ("a.JPG", b"whatever", "jpg"), ("a.jpeg", b"", "jpeg"), ("", b"\xff\xd8\xff\xe0", "jpg"),
        ("", b"\x89PNG\r\n", "png"), ("x.tmp", b"RIFF1234WEBPVP8 ", "webp"), ("", b"GIF89a", "gif"),
        ("a.heic", b"????", "heic"), ("a.txt", b"????", "bin"), ("a.json", b"", "bin"), ("", b"", "bin"),
        ("a.b-c", b"????", "bin"),
    ],
)  # fmt: skip
def test_an_extension_is_that_of_the_name_or_follows_from_the_first_bytes(name, image, ext):
    assert extension(name, image) == ext


def test_the_kinds_of_pictures_are_those_that_the_data_card_names_and_pillow_reads():
    Image.init()
    read = {ext[1:] for ext, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert {"jfif", "jpe", "tga", "ico", "tif", "bmp"} <= IMAGE_EXTENSIONS <= read
    card = (ROOT / "data" / "README.md").read_text()
    assert " ".join(f"`{ext}`" for ext in sorted(IMAGE_EXTENSIONS)) in " ".join(card.split())
