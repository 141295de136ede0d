"""Colour emoji drawn with a font of this machine, named as Unicode names them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont, features

from stylegan_t.data.shards import Sample, Skipped, pack
from stylegan_t.data.sources.base import Done, Source, nothing
from stylegan_t.errors import DataError
from stylegan_t.files import sha256

KNOWN_FONTS = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",
    "/System/Library/Fonts/Apple Color Emoji.ttc",
)
CURE = "install one (Debian, Ubuntu: apt-get install fonts-noto-color-emoji) or name its file in download.source.font"
SIZES = (109, 160, 136, 128, 96, 64)
"""Pixels; bitmap fonts have one or a few of these sizes and refuse all others."""
GRIN, NO_CHARACTER = "\U0001f600", "\U0010fffe"
COLOURED_FORM, TONE = "\ufe0f", re.compile("[\U0001f3fb-\U0001f3ff]")
FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}|\U0001f3f4[\U000e0061-\U000e007a]+\U000e007f")
GROUP = re.compile("(couple with heart|kiss|family)((?: (?:person|man|woman|boy|girl|adult|child))+)(:.*)?")
TONE_NAME = re.compile(r"_((?:medium-)?(?:light|dark)|medium)_skin_tone")


class Emoji(NamedTuple):
    """An emoji of Unicode's list: its characters, its name, the version of the list that brought it."""

    text: str
    name: str
    since: float

    @property
    def key(self) -> str:
        """Code points in hex, but for those that only ask for colour; a skin tone is ``-1f3fb`` … ``-1f3ff``."""
        return "-".join(f"{ord(character):x}" for character in self.text if character != COLOURED_FORM)


class EmojiFont(Source):
    """A picture of each emoji on white, with its name as the caption; what the font lacks is skipped and counted.

    Args:
        font: File of a colour font whose pictures are bitmaps, e.g. Noto Color Emoji; None = find one here.
        image_px: Side of a picture.
        skin_tones: Also draw the variants of people in five skin tones.
        images_per_part: Emoji of one part.

    Raises:
        DataError: There is no such font here, or it cannot be used.
    """

    def __init__(self, font: Path | None, image_px: int, skin_tones: bool, images_per_part: int) -> None:
        self.font, self.image_px, self.skin_tones = font or find_font(), image_px, skin_tones
        self.images_per_part = images_per_part
        open_font(self.font)

    def fingerprint(self) -> str:
        return json.dumps([self.facts(Path()), self.image_px, self.skin_tones])

    def plan(self, work: Path) -> int:
        return -(-len(self._emoji) // self.images_per_part)

    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        font = open_font(self.font)
        for emoji in self._emoji[part * self.images_per_part : (part + 1) * self.images_per_part]:
            facts = {"emoji": emoji.text, "emoji_version": emoji.since}
            picture = draw(font, emoji.text, self.image_px)
            if picture is None:
                yield Skipped(emoji.key, "not_in_font", facts, [emoji.name])
            else:
                yield pack(emoji.key, "png", _png(picture), [emoji.name], facts)
            done(1)

    def facts(self, work: Path) -> dict[str, Any]:
        names = hashlib.sha256(json.dumps(self._emoji).encode()).hexdigest()
        return {
            "kind": "emoji",
            "font": open_font(self.font).getname()[0],
            "font_sha256": sha256(self.font),
            "names_sha256": names,
        }

    def num_candidates(self, work: Path) -> int:
        return len(self._emoji)

    @cached_property
    def _emoji(self) -> list[Emoji]:
        return [emoji for emoji in all_emoji() if self.skin_tones or not TONE.search(emoji.text)]


def all_emoji() -> list[Emoji]:
    """Unicode's emoji by code points, under the names of its Common Locale Data Repository."""
    from emoji import EMOJI_DATA, STATUS

    data = sorted(EMOJI_DATA.items())
    return [
        Emoji(text, _name(text, facts["en"]), float(facts["E"]))
        for text, facts in data
        if facts["status"] == STATUS["fully_qualified"]
    ]


def _name(text: str, short: str) -> str:
    """``:woman_dark_skin_tone_red_hair:`` as the repository writes it: woman: dark skin tone, red hair."""
    name = TONE_NAME.sub(r",_\1_skin_tone", short.strip(":")).replace("_", " ")
    name = re.sub(r"skin tone (?=\w)", "skin tone, ", name).replace(",", ":", 1).replace("keycap ", "keycap: ")
    if group := GROUP.fullmatch(name):
        name = f"{group[1]}: {', '.join(group[2].split())}{(group[3] or '').replace(':', ',')}"
    return f"flag: {name}" if FLAG.fullmatch(text) else name


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def find_font() -> Path:
    """A colour-emoji font of this machine: the one that fontconfig prefers, or one at a known place."""
    found = []
    if shutil.which("fc-match"):
        command = ["fc-match", "--format=%{file}", ":lang=und-zsye:color=true"]
        found.append(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    for path in map(Path, [*found, *KNOWN_FONTS]):
        if path.is_file() and _draws(path):
            return path
    raise DataError(f"no colour-emoji font was found; {CURE}")


def open_font(path: Path) -> ImageFont.FreeTypeFont:
    """The font in a size that it has, with the shaping that puts several characters into one picture."""
    if not features.check("raqm"):
        raise DataError("Pillow was built without raqm, which shapes emoji of several characters; install its wheel")
    if not path.is_file():
        raise DataError(f"{path}: no such font; {CURE}")
    if not _draws(path):
        raise DataError(f"{path}: no font with coloured pictures that FreeType can draw; {CURE}")
    return _open(path)


def draw(font: ImageFont.FreeTypeFont, text: str, image_px: int) -> Image.Image | None:
    """An emoji in the middle of a white square, as large as fits; None where the font has no picture of it."""
    drawn = _drawn(font, text)
    if drawn is None or drawn.width > 1.5 * font.getlength(GRIN):  # a picture of each part, beside each other
        return None
    scale = image_px / max(drawn.size)
    size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    square = Image.new("RGB", (image_px, image_px), "white")
    square.paste(drawn.resize(size, Image.Resampling.LANCZOS), ((image_px - size[0]) // 2, (image_px - size[1]) // 2))
    return square


def _drawn(font: ImageFont.FreeTypeFont, text: str) -> Image.Image | None:
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    if left == right or top == bottom:
        return None
    picture = Image.new("RGB", (right - left, bottom - top), "white")
    ImageDraw.Draw(picture).text((-left, -top), text, font=font, fill="black", embedded_color=True)
    return picture


def _draws(path: Path) -> bool:
    try:
        picture, none = (_drawn(_open(path), text) for text in (GRIN, NO_CHARACTER))
    except OSError:
        return False
    if picture is None or (none is not None and picture.tobytes() == none.tobytes()):
        return False
    _, saturation, _ = picture.convert("HSV").split()
    return saturation.getbbox() is not None  # some pixel is no grey


def _open(path: Path) -> ImageFont.FreeTypeFont:
    for size in SIZES:
        try:
            return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.RAQM)
        except OSError as error:
            if "pixel size" not in str(error):
                raise
    raise OSError("none of the sizes that bitmap fonts have")
