from __future__ import annotations

import os

import numpy as np
import pytest

from stylegan_t.data.evaluation_sets import EvaluationSet
from stylegan_t.data.images import encode
from stylegan_t.data.shards import pack, write_manifest, write_shard
from stylegan_t.errors import DataError


def picture(seed: int) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(["b.png", "a.png", "inner/c.jpg"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(seed))
    (tmp_path / "captions.json").write_text("{}")
    (tmp_path / ".hidden.png").write_bytes(picture(3))
    return tmp_path


def test_files_are_named_by_their_path_in_order_hidden_ones_left_out(folder):
    found = {sample.key: sample.image for sample in EvaluationSet(folder).samples()}
    assert list(found) == ["a.png", "b.png", "captions.json", "inner/c.jpg"]
    assert found["inner/c.jpg"] == picture(2) and len(EvaluationSet(folder)) == 4


def test_samples_of_shards_are_pictures_without_captions(tmp_path):
    samples = [pack(f"k{n}", "png", picture(n), ["a caption"], {"n": n}) for n in range(3)]
    write_manifest(tmp_path, "prepared", [write_shard(tmp_path / "00000.tar", samples)])
    found = list(EvaluationSet(tmp_path).samples())
    assert [(sample.key, sample.image) for sample in found] == [(s.key, s.image) for s in samples]
    assert [sample.captions for sample in found] == [[""]] * 3


@pytest.mark.parametrize("change", ["pixels", "name", "more", "less"])
def test_the_fingerprint_changes_with_the_pictures(folder, change):
    before = EvaluationSet(folder).fingerprint()
    if change == "pixels":
        size = (folder / "a.png").stat().st_size
        (folder / "a.png").write_bytes(picture(9)[:size].ljust(size))
    elif change == "name":
        (folder / "a.png").rename(folder / "aa.png")
    elif change == "more":
        (folder / "d.png").write_bytes(picture(4))
    else:
        (folder / "a.png").unlink()
    assert EvaluationSet(folder).fingerprint() != before


def test_the_fingerprint_does_not_change_with_dates_and_places(folder, tmp_path_factory):
    before = EvaluationSet(folder).fingerprint()
    os.utime(folder / "a.png", (0, 0))
    assert EvaluationSet(folder.rename(tmp_path_factory.mktemp("other") / "set")).fingerprint() == before


def test_the_fingerprint_of_shards_changes_with_their_bytes(tmp_path):
    def fingerprint(seed: int) -> str:
        write_manifest(
            tmp_path, "raw", [write_shard(tmp_path / "00000.tar", [pack("k", "png", picture(seed), ["a"], {})])]
        )
        return EvaluationSet(tmp_path).fingerprint()

    assert fingerprint(0) != fingerprint(1) and fingerprint(0) == fingerprint(0)


def test_no_folder_and_an_empty_one_are_named_with_their_setting(tmp_path):
    with pytest.raises(DataError, match=r"gone: no such folder \(score\.evaluation_sets"):
        EvaluationSet(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no file in it \(score\.evaluation_sets"):
        EvaluationSet(tmp_path)
