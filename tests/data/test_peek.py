from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_t.data.found import ShardFolder, find_shards
from stylegan_t.data.peek import MARGIN_PX, TILE_PX, contact_sheet, peek
from stylegan_t.data.shards import pack, write_manifest, write_shards
from stylegan_t.errors import DataError
from tests.tars import picture, sample, write_tar


@pytest.fixture
def place(tmp_path) -> ShardFolder:
    samples = [pack(f"s{n}", "png", picture(20 * n, 8, 4), [f"caption {n}", "other"], {"n": n}) for n in range(7)]
    write_manifest(tmp_path, "raw", write_shards(tmp_path, samples, 3))
    return find_shards([tmp_path])[0]


@pytest.mark.parametrize(
    ("count", "start", "expected"), [(2, 0, "01"), (4, 1, "1234"), (1, 3, "3"), (9, 5, "56"), (1, 6, "6")]
)
def test_the_samples_from_a_number_on_are_shown_over_the_borders_of_shards(place, count, start, expected):
    assert [each.key for each in peek(place, count, start=start)] == [f"s{n}" for n in expected]


def test_the_samples_from_a_key_on_are_shown(place):
    assert [each.key for each in peek(place, 3, key="s4")] == ["s4", "s5", "s6"]


@pytest.mark.parametrize(
    ("where", "message"),
    [({"start": 7}, "no sample number 7 .the first is 0. in its 3 shards"), ({"key": "s"}, "no sample of the key 's'")],
)
def test_a_place_that_is_not_there_is_an_error(place, where, message):
    with pytest.raises(DataError, match=message):
        peek(place, 1, **where)


def test_the_text_tells_all_that_is_known_of_a_sample(place):
    assert peek(place, 1, start=4)[0].text.splitlines() == [
        f"s4  (00001.tar; 8 × 4 px; .json 8 bytes, .png {len(picture(80, 8, 4))} bytes, .txt 15 bytes)",
        "  “caption 4”",
        "  “other”",
        "  n: 4",
    ]


def test_tars_of_others_are_shown_with_what_is_wrong_with_a_sample(tmp_path):
    path = write_tar(tmp_path / "a.tar", [*sample("k"), ("l.png", b"x"), ("l.json", b"{"), ("m.txt", b"m")])
    good, bad, without = peek(find_shards([path])[0], 9)
    assert good.captions == ["a caption"] and good.metadata["value"] == 0 and good.problem is None
    assert bad.picture is None and (bad.problem or "").startswith("captions or metadata are not readable (")
    assert "no picture that decodes" in bad.text and bad.text.endswith(f"  {bad.problem}")
    assert (without.captions, without.picture) == (["m"], None)


def test_nothing_in_a_sample_commands_the_terminal(tmp_path):
    facts = rb'{"caption": "a \ud800", "of\u001b[2J": "\u202e"}'
    said = "\x1b]0;owned\x07 a\rb\u202e – ä 猫".encode()
    path = write_tar(tmp_path / "a.tar", [("k\x1b[2J.txt", said), ("k\x1b[2J.json", facts), ("l.json", facts)])
    first, second = (each.text for each in peek(find_shards([path])[0], 2))
    assert "\n".join([first, second]).replace("\n", "").isprintable()
    assert first.startswith("k\\x1b[2J  (a.tar; ") and "  of\\x1b[2J: \\u202e" in first
    assert "  “\\x1b]0;owned\\x07 a\\rb\\u202e – ä 猫”" in first
    assert "  “a \\ud800”" in second


def test_the_sheet_shows_each_picture_in_its_place(tmp_path):
    pictures: list[Image.Image | None] = [Image.new("RGB", (4, 4), (n, 0, 0)) for n in range(10)]
    pictures[3] = None
    found = peek(find_shards([one(tmp_path)])[0], 1) * 10
    found = [replace(each, picture=image) for each, image in zip(found, pictures, strict=True)]
    pixels = np.asarray(contact_sheet(found))
    centres = [
        pixels[
            MARGIN_PX + row * (pixels.shape[0] - MARGIN_PX) // 2 + TILE_PX // 2,
            MARGIN_PX + TILE_PX // 2 + column * (TILE_PX + MARGIN_PX),
        ]
        for row, column in (divmod(n, 8) for n in range(10))
    ]
    assert [pixel.tolist() for pixel in centres] == [[n, 0, 0] if n != 3 else [211, 211, 211] for n in range(10)]


def one(folder: Path) -> Path:
    return write_tar(folder / "a.tar", sample("k"))
