from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylegan_t.data.sources.base import hash_key
from stylegan_t.data.sources.huggingface import HuggingFace, own_file
from stylegan_t.errors import DataError, SettingsError, Unreachable
from tests.sources import all_of, parts_of, put, serve

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of its caches


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    yield


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(folder: Path, *files: list[dict[str, Any]], split: str = "train") -> Path:
    """A data set as the Hub keeps it: parquet files, whose metadata says which column holds images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(files):
        table = pa.Table.from_pylist(rows)
        features = {"image": {"_type": "Image"}} if isinstance(rows[0].get("image"), dict) else {}
        features |= {
            name: {"dtype": str(kind), "_type": "Value"}
            for name, kind in zip(table.schema.names, table.schema.types, strict=True)
            if name not in features and not pa.types.is_nested(kind)
        }
        whole = len(features) == len(table.schema.names)
        info = {"huggingface": json.dumps({"info": {"features": features}})} if whole else {}
        pq.write_table(
            table.replace_schema_metadata(info), folder / f"{split}-{number:05d}-of-{len(files):05d}.parquet"
        )
    return folder


def rows(*values: int) -> list[dict[str, Any]]:
    return [{"image": {"bytes": png(v), "path": f"{v}.png"}, "text": f"picture {v}", "score": v / 2} for v in values]


def source(path: Path | str, *captions: str, **changes: Any) -> HuggingFace:
    settings: dict[str, Any] = {"config": None, "split": "train", "revision": None, "image_column": "image"}
    settings |= {"key_column": None, "root": Path("/nowhere"), **changes}
    return HuggingFace(str(path), caption_columns=captions or ("text",), **settings)


def test_a_file_is_a_part_and_pictures_stay_as_they_are(tmp_path):
    path = write(tmp_path / "set", rows(0, 1), rows(2), rows(3, 4, 5))
    parts = parts_of(source(path), tmp_path / "work")
    assert [[pair.metadata["score"] for pair in part] for part in parts] == [[0, 0.5], [1.0], [1.5, 2, 2.5]]
    first = parts[0][1]
    assert first.fields["png"] == png(1) and first.captions == ["picture 1"]
    assert first.metadata == {"score": 0.5} and first.key == hash_key(png(1))


def test_a_relative_folder_starts_at_the_root(tmp_path):
    write(tmp_path / "set", rows(0))
    assert len(all_of(source("set", root=tmp_path), tmp_path / "work")[0]) == 1


def test_bytes_without_a_name_are_pictures_too(tmp_path):
    path = write(tmp_path / "set", [{"image": png(1), "text": "a"}])
    (found,), _ = all_of(source(path), tmp_path / "work")
    assert found.fields["png"] == png(1)


def naming(folder: Path, *paths: str) -> HuggingFace:
    """A data set whose rows name files instead of holding pictures."""
    return source(write(folder, [{"image": {"bytes": None, "path": path}, "text": path} for path in paths]))


def test_a_row_may_name_a_file_of_the_data_set(tmp_path):
    put(tmp_path / "set", {"more/x.png": png(7)})
    with zipfile.ZipFile(tmp_path / "set" / "a.zip", "w") as archive:
        archive.writestr("y.png", png(8))
    names = ["more/x.png", str(tmp_path / "set" / "more" / "x.png"), "zip://y.png::a.zip"]
    samples, skipped = all_of(naming(tmp_path / "set", *names), tmp_path / "work")
    assert [s.fields["png"] for s in samples] == [png(7), png(7), png(8)] and not skipped


def test_a_row_that_names_anything_else_reads_nothing(tmp_path):
    put(tmp_path, {"secret.png": png(9), "set-2/x.png": png(9), "set/x.png": png(1)})
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("y.png", png(9))
    shutil.copy(tmp_path / "b.zip", tmp_path / "set" / "own.zip")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set" / "loop.png").symlink_to("loop.png")
    with serve(lambda _: png(9)) as (address, asked):
        names = [
            "/etc/passwd", str(tmp_path / "secret.png"), "../secret.png", "../set-2/x.png", "link.png", "loop.png",
            f"file://{tmp_path}/secret.png", f"{address}/x.png", f"zip://y.png::{tmp_path}/b.zip",
            f"zip://y.png::{address}/b.zip", f"simplecache::{address}/x.png", "simplecache::x.png",
            f"zip://y.png::simplecache::{address}/b.zip", "none.png", ".", "a\0b", "x" * 9999, "zip://y.png::x.png", "zip://none.png::own.zip",
        ]  # fmt: skip
        samples, skipped = all_of(naming(tmp_path / "set", *names), tmp_path / "work")
        assert not samples and set(skipped.values()) == {"missing_image"} and len(skipped) == len(names)
        assert not asked


def test_of_the_hub_only_files_of_the_same_commit_are_read():
    home = "hf://datasets/owner/name@abc"
    assert own_file(home, "a/x.png") == own_file(home, f"{home}/a/x.png") == f"{home}/a/x.png"
    assert own_file(home, f"zip://x.png::{home}/a.zip") == f"zip://x.png::{home}/a.zip"
    for path in ("hf://datasets/owner/name@abcd/x.png", "hf://datasets/other/x/x.png", f"{home}/../name@d/x.png", "/x"):
        assert own_file(home, path) is None


def test_folders_archives_and_copies_of_the_hub_s_cache_are_read(tmp_path):
    put(tmp_path / "plain", {"x.png": png(1), "metadata.jsonl": '{"file_name": "x.png", "text": "a"}\n'})
    put(tmp_path / "datasets--a--b", {"blobs/0123": png(1)})
    cached = put(
        tmp_path / "datasets--a--b" / "snapshots" / "abc", {"metadata.jsonl": '{"file_name": "x.png", "text": "a"}\n'}
    )
    (cached / "x.png").symlink_to("../../blobs/0123")
    for folder in (tmp_path / "plain", cached):
        (found,), _ = all_of(source(folder), tmp_path / "work" / folder.name)
        assert found.fields["png"] == png(1)


def test_several_captions_and_keys_from_columns(tmp_path):
    values = [
        {"image": png(1), "text": ["one", "two"], "alt": "three", "id": "a/b"},
        {"image": png(2), "text": [], "alt": None, "id": "c"},
        {"image": None, "text": ["no picture"], "alt": None, "id": "d"},
        {"image": png(3), "text": ["x"], "alt": None, "id": None},
        {"image": png(3), "text": ["y"], "alt": None, "id": None},
    ]
    path = write(tmp_path / "set", values)
    samples, skipped = all_of(source(path, "text", "alt", key_column="id"), tmp_path / "work")
    assert [(s.key, s.captions) for s in samples] == [
        ("a_b", ["one", "two", "three"]), (hash_key(png(3)), ["x"]), (f"{hash_key(png(3))}-2", ["y"]),
    ]  # fmt: skip
    assert skipped == {"c": "missing_caption", "d": "missing_image"}


def test_what_was_saved_to_disk_is_read_too(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    saved = datasets.Dataset.from_dict({"image": [png(1)], "text": ["a"]}, features=features)
    saved.save_to_disk(tmp_path / "saved")
    (found,), _ = all_of(source(tmp_path / "saved"), tmp_path / "work")
    assert found.fields["png"] == png(1)


def test_it_travels_to_workers_who_need_not_look_for_it_again(tmp_path, monkeypatch):
    before = source(write(tmp_path / "set", rows(0, 1)))
    before.plan(tmp_path / "work")
    after = pickle.loads(pickle.dumps(before))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: 1 / 0)
    assert list(after.pairs(0, tmp_path / "work")) == list(before.pairs(0, tmp_path / "work"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"split": "test"}, "Bad split: test. Available splits: .'train'"),
        ({"config": "large"}, "BuilderConfig 'large' not found. Available: .'default'"),
        ({"image_column": "img"}, "no column img; there are image, text, score"),
        ({"key_column": "id"}, "no column id; there are image, text, score"),
        ({"image_column": "text"}, "column text holds .*string.*, no pictures; a list of addresses is .* kind urls"),
    ],
)
def test_what_the_data_set_does_not_have_is_named_with_what_it_has(tmp_path, changes, match):
    path = write(tmp_path / "set", rows(0))
    with pytest.raises(DataError, match=match):
        source(path, **changes).plan(tmp_path / "work")


def test_a_data_set_that_cannot_be_reached_is_another_matter_than_none(tmp_path):
    with pytest.raises(Unreachable, match="someone/something: cannot be read"):
        source("someone/something").plan(tmp_path / "work")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: .*no data files|empty: .*[Dd]oesn't contain any data files"):
        source(tmp_path / "empty").plan(tmp_path / "work")


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "set", rows(0), rows(1))
    found = source(path)
    found.plan(tmp_path / "work")
    (path / "train-00001-of-00002.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="set: .*[Pp]arquet"):
        list(found.pairs(1, tmp_path / "work"))


def test_the_missing_package_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        SettingsError, match=r"huggingface needs a package more: pip install 'stylegan-t\[huggingface\]'"
    ):
        source(tmp_path).fingerprint()


def test_the_fingerprint_follows_files_and_settings_and_the_manifest_tells_no_dates(tmp_path):
    path = write(tmp_path / "set", rows(0))
    found = [source(path).fingerprint(), source(path).fingerprint(), source(path, "score").fingerprint()]
    before = source(path).facts(tmp_path)
    write(tmp_path / "set", rows(1))
    found.append(source(path).fingerprint())
    assert found[0] == found[1] and len(set(found)) == 3
    assert before == source(path).facts(tmp_path)
    assert before == {"kind": "huggingface", "dataset": str(path), "config": None, "split": "train", "commits": []}
