from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from stylegan_t.data.images import decode
from stylegan_t.data.sources import emoji
from stylegan_t.data.sources.emoji import EmojiFont, all_emoji, draw, find_font, open_font
from stylegan_t.errors import DataError
from tests.sources import all_of, parts_of

try:
    FONT: Path | None = find_font()
except DataError:
    FONT = None
with_font = pytest.mark.skipif(FONT is None, reason="no colour-emoji font on this machine (fonts-noto-color-emoji)")
NAMES = {e.key: e.name for e in all_emoji()}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("1f600", "grinning face"),
        ("2600", "sun"),
        ("23-20e3", "keycap: #"),
        ("1f1e9-1f1ea", "flag: Germany"),
        ("1f3f4-e0067-e0062-e0073-e0063-e0074-e007f", "flag: Scotland"),
        ("1f468-200d-1f469-200d-1f466", "family: man, woman, boy"),
        ("1f44b-1f3fe", "waving hand: medium-dark skin tone"),
        ("1f469-1f3ff-200d-1f9b0", "woman: dark skin tone, red hair"),
        (
            "1f469-1f3fc-200d-2764-200d-1f468-1f3fb",
            "couple with heart: woman, man, medium-light skin tone, light skin tone",
        ),
    ],
)
def test_names_are_those_of_unicode(key, name):
    assert NAMES[key] == name


def test_every_emoji_has_a_key_and_a_name_of_its_own():
    assert len(NAMES) == len(all_emoji()) > 3700
    assert len(set(NAMES.values())) == len(NAMES)
    assert all(name == " ".join(name.split()) and ":" not in name[-1:] and "_" not in name for name in NAMES.values())


@with_font
def test_pictures_are_coloured_squares_on_white_with_names_for_captions(tmp_path, monkeypatch):
    wanted = {
        "1f34e": "red apple",
        "1f499": "blue heart",
        "1f1fa-1f1e6": "flag: Ukraine",
        "1f468-200d-1f373": "man cook",
    }
    listed = [e for e in all_emoji() if e.key in wanted]
    monkeypatch.setattr(emoji, "all_emoji", lambda: listed)
    samples, skipped = all_of(EmojiFont(None, 64, True, 10), tmp_path)
    assert {s.key: s.caption for s in samples} == wanted and not skipped
    pictures = {s.key: decode(s.image).astype(int) for s in samples}
    for picture in pictures.values():
        assert picture.shape == (64, 64, 3) and (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
        inked = np.argwhere(picture.min(axis=2) < 250)
        assert inked.min(axis=0).min() < 6 and inked.max(axis=0).max() > 57, "as large as fits"
    red, _, blue = pictures["1f34e"][32, 20]
    assert red > blue + 100
    red, _, blue = pictures["1f499"][30, 30]
    assert blue > red + 100
    assert samples[0].metadata["emoji"] == next(e.text for e in listed if e.key == samples[0].key)


@with_font
def test_what_the_font_lacks_is_told_alone_and_in_sequences():
    font = open_font(FONT or Path())
    assert draw(font, "\U0001f600", 32) is not None
    for lacking in ("\U0010fffe", "a", "\U0001f600\u200d\U0001f34e", "\U0001f600\U0001f3ff"):
        assert draw(font, lacking, 32) is None, lacking


@with_font
def test_almost_all_emoji_are_there_and_all_look_different(tmp_path, monkeypatch):
    monkeypatch.setattr(emoji, "all_emoji", lambda: all_emoji()[::9])
    samples, skipped = all_of(EmojiFont(FONT, 24, True, 10_000), tmp_path)
    assert set(skipped.values()) <= {"not_in_font"} and len(skipped) < 0.1 * len(samples)
    assert len(samples) > 380
    assert len({s.image for s in samples}) > 0.97 * len(samples)


@with_font
def test_skin_tones_are_a_setting_and_the_profiles_pattern_finds_them(tmp_path):
    import re

    without = {e.key for e in EmojiFont(FONT, 24, False, 100)._emoji}
    toned = NAMES.keys() - without
    assert len(toned) > 1900 and all("skin tone" in NAMES[key] for key in toned)
    assert not any("skin tone" in NAMES[key] for key in without)
    assert all(re.sub("-1f3f[b-f]", "", key) != key for key in toned)


@with_font
def test_parts_are_runs_and_come_out_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(emoji, "all_emoji", lambda: all_emoji()[:25])
    source = EmojiFont(FONT, 16, False, 10)
    parts = parts_of(source, tmp_path)
    assert [len(part) for part in parts] == [10, 10, 5] and source.num_candidates(tmp_path) == 25
    assert parts_of(EmojiFont(FONT, 16, False, 10), tmp_path) == parts


@with_font
def test_the_fingerprint_follows_font_and_settings(tmp_path):
    assert FONT is not None
    copy = shutil.copy(FONT, tmp_path / "copy.ttf")
    prints = [EmojiFont(*each, 10).fingerprint() for each in [(FONT, 24, False), (Path(copy), 24, False)]]
    assert prints[0] == prints[1], "the font's place does not matter"
    prints += [EmojiFont(*each, 10).fingerprint() for each in [(FONT, 25, False), (FONT, 24, True)]]
    assert len(set(prints)) == 3


def test_a_machine_without_a_font_is_told_how_to_get_one(monkeypatch):
    monkeypatch.setattr(emoji, "KNOWN_FONTS", ())
    monkeypatch.setattr(emoji.shutil, "which", lambda _: None)
    with pytest.raises(DataError, match="apt-get install fonts-noto-color-emoji.*download.source.font"):
        EmojiFont(None, 64, False, 10)


def test_a_font_without_colours_is_no_font_for_this(tmp_path):
    import matplotlib

    plain = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    assert ImageFont.truetype(str(plain), 20)
    with pytest.raises(DataError, match=r"DejaVuSans\.ttf: no font with coloured pictures"):
        EmojiFont(plain, 64, False, 10)
    with pytest.raises(DataError, match=r"none\.ttf: no such font"):
        EmojiFont(tmp_path / "none.ttf", 64, False, 10)
