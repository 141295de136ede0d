"""The prompts of the sample grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylegan_t.data import shapes
from stylegan_t.errors import SettingsError
from stylegan_t.prompts import read_prompts
from stylegan_t.settings.sources import ShapesSource, SourceSettings


def sample_prompts(
    prompt_set: str,
    count: int,
    *,
    captions: Sequence[str],
    source: SourceSettings,
    seed: int,
    root: Path,
) -> list[str]:
    """At most ``count`` different prompts for the sample grids.

    Args:
        prompt_set: ``heldout`` (captions in the order of their keys), ``shapes`` (seen and never drawn
            combinations in turn), or a text file with a prompt a line.
        root: Where a relative file name starts.

    Raises:
        SettingsError: There is no such set or file, or it holds no prompt.
    """
    if prompt_set == "heldout":
        return list(dict.fromkeys(captions))[:count]
    if prompt_set == "shapes" and isinstance(source, ShapesSource):
        heldout = shapes.heldout_combinations(seed, source.heldout_combinations)
        seen, unseen = (
            shapes.random_prompts(split, count, seed=seed, heldout=heldout) for split in ("seen", "heldout")
        )
        return list(dict.fromkeys(p.caption for pair in zip(seen, unseen, strict=True) for p in pair))[:count]
    path = root / prompt_set
    if not path.is_file():
        allowed = [
            "heldout",
            *(["shapes"] if isinstance(source, ShapesSource) else []),
            "or the path of a text file",
        ]
        raise SettingsError(
            f"evaluate.prompt_set = {prompt_set!r}: no such prompt set or file; use {', '.join(allowed)}"
        )
    return read_prompts(path)[:count]
