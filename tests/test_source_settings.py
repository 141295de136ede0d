"""Settings of sources: every one is used, a wrong one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stylegan_t.config import parse_config
from stylegan_t.data.sources.base import Source
from stylegan_t.errors import SettingsError
from stylegan_t.stages.sources import open_source
from tests.stages.data_world import config
from tests.tars import sample, write_tar

SHAPES = {"kind": "shapes", "num_images": 4, "image_px": 16, "heldout_combinations": 0.125}
SHAPE_PAIRS = SHAPES | {"kind": "shape_pairs"}
FOLDER = {"kind": "folder", "path": "pictures", "caption_columns": ["text"]}
URLS = {
    "kind": "urls", "paths": ["list.tsv"], "format": "tsv", "columns": ["url", "caption"], "records": None,
    "url_column": "url", "caption_columns": ["caption"], "key_column": None, "sha256_column": None,
}  # fmt: skip
WEBDATASET = {
    "kind": "webdataset", "shards": ["0.tar"], "caption_columns": ["txt"], "key_column": "key",
    "metadata_columns": None,
}  # fmt: skip
HUGGINGFACE = {
    "kind": "huggingface", "dataset": "data", "config": None, "split": "train", "revision": None,
    "image_column": "image", "caption_columns": ["text"], "key_column": None,
}  # fmt: skip


def settings(source: dict[str, Any]) -> Any:
    return config(download={"source": source}).download


def complaint(source: dict[str, Any]) -> str:
    values = config().model_dump()
    values["download"]["source"] = source
    with pytest.raises(SettingsError) as error:
        parse_config(values, "params.yaml")
    return str(error.value)


def opened(source: dict[str, Any], root: Path, per_part: int = 10) -> Source:
    download = settings(source)
    return open_source(download.source, download.fetching, download.stored, per_part, 0, root)


CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (SHAPES, {"num_images": 5}), (SHAPES, {"image_px": 32}), (SHAPES, {"heldout_combinations": 0.25}),
    (SHAPE_PAIRS, {"num_images": 5}), (SHAPE_PAIRS, {"image_px": 32}), (SHAPE_PAIRS, {"heldout_combinations": 0.25}),
    (SHAPES, {"kind": "shape_pairs"}),
    (FOLDER, {"path": "others"}), (FOLDER, {"caption_columns": ["text", "alt"]}),
    (URLS, {"paths": ["list.tsv", "list.tsv"]}), (URLS, {"format": "csv"}), (URLS, {"columns": ["caption", "url"]}),
    (URLS, {"columns": None}), (URLS, {"records": "rows"}), (URLS, {"url_column": "caption"}),
    (URLS, {"caption_columns": ["caption", "url"]}), (URLS, {"key_column": "caption"}),
    (URLS, {"sha256_column": "caption"}),
    (WEBDATASET, {"shards": ["{0..1}.tar"]}), (WEBDATASET, {"caption_columns": ["txt", "alt"]}),
    (WEBDATASET, {"key_column": "uid"}), (WEBDATASET, {"metadata_columns": []}),
]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    for name in ("pictures", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text(name)
    (tmp_path / "list.tsv").write_text("http://a/1\tone\n")
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", sample("a"))
    return tmp_path


@pytest.mark.parametrize(("source", "change"), CHANGES, ids=lambda value: next(iter(value)) if len(value) == 1 else "")
def test_another_value_is_another_source(root, source, change):
    assert opened(source, root).fingerprint() != opened(source | change, root).fingerprint()


def test_every_setting_of_a_data_set_of_the_hub_reaches_it(root):
    pytest.importorskip("datasets")
    before = opened(HUGGINGFACE, root).__dict__
    changes = {
        "dataset": "other", "config": "c", "split": "test", "revision": "r", "image_column": "img",
        "caption_columns": ["alt"], "key_column": "id",
    }  # fmt: skip
    for name, value in changes.items():
        after = opened(HUGGINGFACE | {name: value}, root).__dict__
        assert [key for key in after if after[key] != before[key]] == ["name" if name == "dataset" else name]


def test_samples_per_shard_is_the_length_of_a_part(root, tmp_path):
    for source in (SHAPES, SHAPE_PAIRS, FOLDER | {"path": "pictures"}, URLS):
        assert opened(source, root, 1).plan(tmp_path / f"{source['kind']}-1") == (4 if "num_images" in source else 1)
        assert opened(source, root, 3).plan(tmp_path / f"{source['kind']}-3") == (2 if "num_images" in source else 1)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (SHAPES, "drawn shapes"), (SHAPE_PAIRS, "drawn pairs of shapes"), (FOLDER, "pictures"),
        (URLS | {"paths": ["a.csv", "b.csv"]}, "a.csv, b.csv"),
        (WEBDATASET, "0.tar"), (HUGGINGFACE, "data (train)"),
        ({"kind": "emoji", "font": None, "image_px": 32, "skin_tones": True}, "emoji"),
        ({"kind": "mixture", "datasets": {"a": SHAPES, "b": FOLDER}}, "a: drawn shapes; b: pictures"),
    ],
)  # fmt: skip
def test_a_source_says_in_words_what_it_is(source, words):
    assert settings(source).source.in_words == words


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            SHAPE_PAIRS | {"heldout_combinations": 0.5},
            "download.source.heldout_combinations = 0.5: Input should be less than or equal to 0.4",
        ),
        (
            SHAPE_PAIRS | {"heldout_combinations": 0.0},
            "download.source.heldout_combinations = 0.0: Input should be greater than 0",
        ),
        (SHAPE_PAIRS | {"image_px": 24}, "download.source.image_px = 24: a resolution is a power of two"),
        (URLS | {"url_col": "u"}, "download.source.url_col: unknown key; did you mean url_column?"),
        ({**URLS, "paths": []}, "download.source.paths = []: List should have at least 1 item"),
        (URLS | {"format": "xml"}, "download.source.format = 'xml': Input should be 'parquet', 'csv', 'tsv'"),
        (
            {"kind": "url"},
            "did you mean urls? "
            "(allowed here: emoji, folder, huggingface, mixture, shape_pairs, shapes, urls, webdataset)",
        ),
        (
            {"kind": "mixture", "datasets": {"cc3m": URLS | {"url_col": "u"}}},
            "download.source.datasets.cc3m.url_col: unknown key; did you mean url_column?",
        ),
        (
            {"kind": "mixture", "datasets": {"urls": {"kind": "folder", "path": "p"}}},
            "download.source.datasets.urls.caption_columns: missing",
        ),
        ({"kind": "mixture", "datasets": {"CC-3M": SHAPES}}, "begins its samples' keys; use a-z, 0-9 and _"),
        ({"kind": "mixture", "datasets": {}}, "download.source.datasets"),
        (
            {"kind": "mixture", "datasets": {"a": {"kind": "mixture", "datasets": {}}}},
            "(allowed here: emoji, folder, huggingface, shape_pairs, shapes, urls, webdataset)",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(source, message):
    assert message in complaint(source)
