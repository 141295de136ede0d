"""Sets of pictures: which there are, in which order, with which captions; and which captions are painted."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, Shards, write_manifest, write_shards
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.evaluation.pictures import (
    FolderPictures,
    ShardPictures,
    Some,
    captions_sha256,
    choose_captions,
    fitted,
    open_pictures,
)
from stylegan_t.evaluation.reals import first_captions
from tests.evaluation.judged import random_pictures, write_pictures
from tests.evaluation.world import heldout_samples, write_prepared


def pixels(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


def test_a_folder_gives_its_pictures_in_the_order_of_their_names_at_any_depth(tmp_path):
    drawn = random_pictures(3)
    for name, picture in zip(("b.png", "c/a.WEBP", "a.png"), drawn, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / name, lossless=True)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "d.png").mkdir()
    found = FolderPictures(tmp_path)
    assert found.count == 3
    for expected, picture in zip((drawn[2], drawn[0], drawn[1]), found.read(range(3)), strict=True):
        assert torch.equal(picture, pixels(expected))


def test_hidden_files_are_no_pictures(tmp_path):
    write_pictures(tmp_path, random_pictures(2))
    (tmp_path / "._00000.png").write_bytes(b"half of a picture, as some systems leave it")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "a.png").write_bytes(b"")
    assert FolderPictures(tmp_path).count == 2


def test_a_folder_below_a_hidden_one_counts(tmp_path):
    assert FolderPictures(write_pictures(tmp_path / ".cache" / "fakes", random_pictures(2))).count == 2


def test_a_damaged_picture_is_named(tmp_path):
    write_pictures(tmp_path, random_pictures(3))
    (tmp_path / "00001.png").write_bytes((tmp_path / "00001.png").read_bytes()[:100])
    with pytest.raises(DataError, match=r"00001\.png: not a readable picture"):
        FolderPictures(tmp_path).read(range(3))


def test_a_damaged_picture_of_a_shard_is_named_by_its_key(tmp_path):
    samples = heldout_samples(2)
    samples[1] = Sample("broken", samples[1].fields | {"png": b"no picture"})
    write_prepared(tmp_path, samples)
    with pytest.raises(DataError, match="sample broken"):
        open_pictures(tmp_path).read([0, 1])


def test_no_folder_and_a_folder_without_pictures_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_pictures(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no picture in it \(\.bmp, .*\.webp\)"):
        open_pictures(tmp_path)


def test_captions_of_a_folder_are_those_beside_it_and_none_is_no_error(tmp_path):
    with_captions = write_pictures(tmp_path / "a", random_pictures(2), ["a cat", "a dog"])
    assert FolderPictures(with_captions).captions() == [["a cat"], ["a dog"]]
    without = FolderPictures(write_pictures(tmp_path / "b", random_pictures(2)))
    assert without.captions() == [[], []]
    assert first_captions(without) == f"{tmp_path / 'b'}: the pictures have no captions"


def test_a_picture_without_a_caption_among_others_is_counted(tmp_path):
    folder = write_pictures(tmp_path, random_pictures(3), ["a cat", "", "a dog"])
    assert first_captions(FolderPictures(folder)) == f"{tmp_path}: 1 of 3 pictures have no caption"


def test_shards_and_a_folder_of_the_same_pictures_read_the_same(tmp_path):
    drawn = random_pictures(4)
    samples = [Sample(f"{i}", {"png": encode(p), "txt": b"a", "json": b"{}"}) for i, p in enumerate(drawn)]
    write_manifest(tmp_path / "shards", "raw", write_shards(tmp_path / "shards", samples, 3))
    shards, folder = open_pictures(tmp_path / "shards"), open_pictures(write_pictures(tmp_path / "folder", drawn))
    assert isinstance(shards, ShardPictures)
    assert isinstance(folder, FolderPictures)
    for one, other in zip(shards.read(range(4)), folder.read(range(4)), strict=True):
        assert torch.equal(one, other)
    assert shards.captions() == [["a"]] * 4


def test_other_pixels_or_names_are_another_identity_and_the_place_is_none(tmp_path):
    drawn = random_pictures(3)
    first, moved = (FolderPictures(write_pictures(tmp_path / name, drawn)).identity for name in ("a", "b"))
    fewer = FolderPictures(write_pictures(tmp_path / "c", drawn[:2])).identity
    drawn[1] = drawn[1] ^ 1
    other = FolderPictures(write_pictures(tmp_path / "d", drawn)).identity
    assert first == moved
    assert len({first, fewer, other}) == 3


def test_some_pictures_are_those_of_their_numbers(tmp_path):
    write_prepared(tmp_path, heldout_samples(6))
    every = ShardPictures(Shards(tmp_path))
    some = Some(every, [4, 1])
    assert some.count == 2
    assert torch.equal(some.read([1])[0], every.read([1])[0])
    assert some.captions() == [every.captions()[4], every.captions()[1]]
    assert (some.key(0), some.caption(1)) == ("000004", every.captions()[1][0])
    assert some.identity != Some(every, [1, 4]).identity


def test_smaller_pictures_are_means_of_their_blocks_and_the_centre_is_kept():
    wide = torch.randint(0, 256, (3, 8, 14), dtype=torch.uint8)
    found = fitted([wide], 4)[0]
    blocks = wide[:, :, 3:11].double().unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4))
    assert (found.double() - blocks).abs().max() <= 1  # Pillow rounds rows, and then columns


def test_pictures_of_the_wanted_side_or_of_none_are_left_alone():
    picture = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    wide = torch.randint(0, 256, (3, 8, 14), dtype=torch.uint8)
    assert fitted([picture], 8)[0] is picture
    assert fitted([wide], None)[0] is wide
    assert torch.equal(fitted([wide], 8)[0], wide[:, :, 3:11])
    assert torch.equal(fitted([torch.full((3, 4, 4), 77, dtype=torch.uint8)], 9)[0].unique(), torch.tensor([77]))


def seconds_to_open(folder: Path, count: int) -> float:
    """Of the processor, for so many names and captions."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").touch()
    lines = [f'{{"file_name": "{number}.png", "text": "picture {number}"}}\n' for number in range(count)]
    (folder / "metadata.jsonl").write_text("".join(lines))
    start = time.process_time()
    pictures = FolderPictures(folder)
    said = pictures.captions()
    seconds = time.process_time() - start
    assert all([f"picture {file.stem}"] == captions for file, captions in zip(pictures.files, said, strict=True))
    return seconds


def test_eight_times_as_many_pictures_are_opened_in_about_eight_times_the_time(tmp_path):
    few, many = (seconds_to_open(tmp_path / str(count), count) for count in (400, 3200))
    assert many / few < 24, "a list searched for each name would take 64 times the time"


# ---- which captions are painted -------------------------------------------------------------------------------------

SAID = [[f"picture {i}, caption {j}" for j in range(i % 4)] for i in range(40)]
"""Every fourth picture has none."""


def pictures_of(captions: list[str]) -> list[str]:
    return [caption.partition(",")[0] for caption in captions]


def test_one_caption_of_each_picture_that_has_one():
    chosen = choose_captions(SAID, "one_per_image", None, seed=0)
    assert sorted(pictures_of(chosen)) == sorted(f"picture {i}" for i in range(40) if i % 4)
    last = [caption for caption in chosen if caption.endswith("2")]
    assert 0 < len(last) < 10, "which of a picture's captions is drawn"


def test_fewer_than_there_are_come_from_different_pictures_at_random():
    chosen = choose_captions(SAID, "one_per_image", 12, seed=0)
    assert len(set(pictures_of(chosen))) == len(chosen) == 12
    assert chosen == choose_captions(SAID, "one_per_image", None, seed=0)[:12]
    assert set(pictures_of(chosen)) != {f"picture {i}" for i in range(16) if i % 4}


def test_all_captions_come_once():
    assert sorted(choose_captions(SAID, "all", None, seed=0)) == sorted(c for each in SAID for c in each)


def test_where_more_are_wanted_each_round_has_all_in_another_order():
    chosen = choose_captions(SAID, "one_per_image", 75, seed=0)
    first, second, rest = chosen[:30], chosen[30:60], chosen[60:]
    assert Counter(first) == Counter(second)
    assert first != second
    assert len(rest) == len(set(rest)) == 15


def test_the_seed_alone_decides():
    random.seed(1)
    first = choose_captions(SAID, "all", 20, seed=0)
    random.seed(2)
    assert first == choose_captions(SAID, "all", 20, seed=0)
    assert first != choose_captions(SAID, "all", 20, seed=1)


def test_pictures_without_captions_cannot_be_painted_and_the_cure_is_told():
    with pytest.raises(SettingsError, match=r"no captions to paint; give --captions FILE"):
        choose_captions([[], []], "all", 3, seed=0)


def test_another_order_of_captions_is_another_list():
    assert captions_sha256(["a", "b"]) != captions_sha256(["b", "a"])
    assert captions_sha256(["a", "b"]) == captions_sha256(["a", "b"])


@pytest.mark.parametrize("how", ["one_per_image", "all"])
def test_the_captions_do_not_depend_on_how_the_pictures_lie_on_disk(how):
    said = [[f"{i} a", f"{i} b"] for i in range(9)]
    elsewhere = [list(reversed(captions)) for captions in reversed(said)]
    assert choose_captions(said, how, 7, seed=3) == choose_captions(elsewhere, how, 7, seed=3)
