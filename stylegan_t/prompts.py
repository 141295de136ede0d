"""What a user asks for on the command line or in a file: prompts, seeds, truncation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from stylegan_t.errors import SettingsError

LARGEST_PSI = 1.5


def parse_seeds(text: str) -> list[int]:
    """Numbers and ranges, both ends included: ``0-7``, ``3``, ``1,5,10-12``.

    Raises:
        SettingsError: Anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise SettingsError(
                f"seeds {text!r}: {part.strip()!r} is no number or ascending range; write 3, 0-7 or 1,5,10-12"
            )
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return seeds


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        SettingsError: No such file, not text, or nothing in it.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise SettingsError(f"{path}: cannot read prompts: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8 text; write one prompt a line") from None
    if not any(lines):
        raise SettingsError(f"{path}: no prompts; write one a line")
    return [line for line in lines if line]


def check_prompts(prompts: Sequence[str]) -> list[str]:
    """The prompts without repetitions. Raises SettingsError where one is empty, or there is none."""
    stripped = [prompt.strip() for prompt in prompts]
    if not stripped:
        raise SettingsError('no prompt: give --prompt "…" (repeatable) or --prompts FILE with one a line')
    if not all(stripped):
        raise SettingsError("a prompt is empty: describe the picture in a few words")
    return list(dict.fromkeys(stripped))


def check_psi(psi: float) -> None:
    if not 0 <= psi <= LARGEST_PSI:
        raise SettingsError(
            f"psi {psi:g}: 0 (the mean of all latents) to {LARGEST_PSI:g} are allowed; 1 is what training saw"
        )
