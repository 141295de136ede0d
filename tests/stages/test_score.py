from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from stylegan_t.data.images import decode, encode, square, to_signed
from stylegan_t.data.shards import Shards, shard_name
from stylegan_t.errors import DataError
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.stages import download, score
from stylegan_t.stages.workspace import Workspace
from tests.stages.data_world import config, contents, folder_source, put_clip

SETTINGS = config(download={"samples_per_shard": 5}, score={"batch_size": 3})


@pytest.fixture
def workspace(tmp_path):
    """Eight pairs of several sizes, of which number 3 does not decode and number 6 shows the pixels of number 5."""
    workspace, rng = Workspace(tmp_path), np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        data = encode(rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8))
        (pictures / f"{number}.png").write_bytes(data if number != 3 else data[:100])
        (pictures / f"{number}.txt").write_text("ä" * number + " cat")
    (pictures / "6.png").write_bytes(encode(decode((pictures / "5.png").read_bytes()), "webp"))
    put_clip(workspace)
    download.run(config(download=folder_source(pictures, per_shard=5)), workspace, "cpu")
    return workspace


def rows(workspace):
    return [row for path in sorted(workspace.scores.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_pair_has_a_row_with_what_a_direct_measurement_gives(workspace):
    score.run(SETTINGS, workspace, "cpu")
    raw, clip = Shards(workspace.raw), load_clip(workspace.players / "clip")
    measured = rows(workspace)
    assert [row["key"] for row in measured] == raw.keys
    for number, (row, sample) in enumerate(zip(measured, raw, strict=True)):
        assert row["caption_chars"] == len(sample.caption)
        text = clip.encode_text([sample.caption])[0]
        np.testing.assert_allclose(row["text_embedding"], text, atol=1e-3)
        if number == 3:
            continue
        picture = decode(sample.image)
        assert (row["width"], row["height"], row["decodable"]) == (30, picture.shape[0], True)
        image = clip.encode_image(to_signed(torch.from_numpy(square(picture, 16)).permute(2, 0, 1)[None]))[0]
        np.testing.assert_allclose(row["image_embedding"], image, atol=1e-3)
        assert row["clip_score"] == pytest.approx(float(image @ text), abs=1e-5)


def test_a_picture_that_does_not_decode_is_a_row_not_a_crash(workspace):
    score.run(SETTINGS, workspace, "cpu")
    row = rows(workspace)[3]
    assert (row["decodable"], row["width"], row["height"], row["pixel_sha256"]) == (False, 0, 0, "")
    assert np.isnan(row["clip_score"]) and not any(row["image_embedding"])


def test_the_hash_is_of_pixels_not_of_files(workspace):
    score.run(SETTINGS, workspace, "cpu")
    hashes = [row["pixel_sha256"] for row in rows(workspace)]
    assert hashes[5] == hashes[6] and len(set(hashes)) == 7
    flat = np.zeros((4, 8, 3), np.uint8)
    assert score.pixel_hash(flat) != score.pixel_hash(flat.reshape(8, 4, 3)), "the size counts"


def test_a_killed_run_goes_on_after_its_last_whole_table_with_the_same_result(workspace, monkeypatch):
    score.run(SETTINGS, workspace, "cpu")
    unbroken = contents(workspace.scores)
    measure, calls = score.measure, []

    def killed_in_the_second_table(samples, clip):
        calls.append([sample.key for sample in samples])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(samples, clip)

    monkeypatch.setattr(score, "measure", killed_in_the_second_table)
    with pytest.raises(KeyboardInterrupt):
        score.run(SETTINGS, workspace, "cpu")
    score.run(SETTINGS, workspace, "cpu")
    assert calls[3:] == [["5", "6", "7"]]
    assert contents(workspace.scores) == unbroken


def test_a_truncated_shard_is_named(workspace):
    shard = workspace.raw / shard_name(1)
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"00001\.tar: damaged.*stylegan-t run download"):
        score.run(SETTINGS, workspace, "cpu")


def test_without_raw_shards_it_says_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json: missing; `dvc repro`"):
        score.run(SETTINGS, Workspace(tmp_path), "cpu")
