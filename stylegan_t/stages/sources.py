"""The source that the settings of ``download`` describe.

A kind is imported where it is asked for: who downloads a list draws no shapes, and needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from stylegan_t.data.sources.base import Source
from stylegan_t.settings.download import Fetching, Stored
from stylegan_t.settings.sources import (
    EmojiSource,
    FolderSource,
    HuggingFaceSource,
    MixtureSource,
    ShapePairsSource,
    ShapesSource,
    SourceSettings,
    UrlsSource,
    WebdatasetSource,
)  # fmt: skip


def open_source(
    spec: SourceSettings, fetching: Fetching, stored: Stored, per_part: int, seed: int, root: Path
) -> Source:
    """The source; relative paths start at ``root``.

    Raises:
        DataError: It is not there, or no such source.
        SettingsError: What it needs is not installed.
    """
    match spec:
        case ShapesSource():
            from stylegan_t.data.sources.drawn import Shapes

            source = Shapes(spec.num_images, spec.image_px, spec.heldout_combinations, seed, per_part)
        case ShapePairsSource():
            from stylegan_t.data.sources.drawn import ShapePairs

            source = ShapePairs(spec.num_images, spec.image_px, spec.heldout_combinations, seed, per_part)
        case EmojiSource():
            from stylegan_t.data.sources.emoji import EmojiFont

            font = None if spec.font is None else root / Path(spec.font).expanduser()
            source = EmojiFont(font, spec.image_px, spec.skin_tones, per_part)
        case FolderSource():
            from stylegan_t.data.sources.folder import Folder

            source = Folder(root / Path(spec.path).expanduser(), spec.caption_columns, per_part)
        case UrlsSource():
            source = _urls(spec, fetching, stored, per_part, root)
        case WebdatasetSource():
            from stylegan_t.data.sources.webdataset import Webdataset

            source = Webdataset(spec.shards, spec.caption_columns, spec.key_column, spec.metadata_columns, root)
        case HuggingFaceSource():
            from stylegan_t.data.sources.huggingface import HuggingFace

            source = HuggingFace(
                spec.dataset, spec.config, spec.split, spec.revision, spec.image_column, spec.caption_columns,
                spec.key_column, root,
            )  # fmt: skip
        case MixtureSource():
            from stylegan_t.data.sources.mixture import Mixture

            sources = {
                name: open_source(one, fetching, stored, per_part, seed, root) for name, one in spec.datasets.items()
            }
            source = Mixture(sources)
        case _:
            raise AssertionError(spec)
    return source


def _urls(spec: UrlsSource, fetching: Fetching, stored: Stored, per_part: int, root: Path) -> Source:
    from stylegan_t.data.download.fetch import Limits
    from stylegan_t.data.download.pictures import Storage
    from stylegan_t.data.sources.lists import Layout
    from stylegan_t.data.sources.urls import Columns, Urls

    return Urls(
        spec.paths,
        Layout(spec.format, tuple(spec.columns) if spec.columns else None, spec.records),
        Columns(spec.url_column, tuple(spec.caption_columns), spec.key_column, spec.sha256_column),
        Limits(**dict(fetching)),
        Storage(**dict(stored)),
        per_part,
        root,
    )
