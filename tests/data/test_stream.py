"""Shards read from front to back: from files, pipes, a web server and an object store."""

from __future__ import annotations

import json
import logging
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import fsspec
import pytest
import torch

from stylegan_t.data import stream
from stylegan_t.data.batch import Batch
from stylegan_t.data.order import caption_number, is_mirrored
from stylegan_t.data.shards import MANIFEST, shard_name, write_shard
from stylegan_t.data.sources.remote import File
from stylegan_t.data.stream import StreamedShard, find_stream, read_shard, some_streamed_captions, stream_batches
from stylegan_t.errors import DataError, SettingsError, Unreachable
from tests.data.bucket import bucket_of
from tests.data.prepared import put, sample
from tests.sources import serve

NUM, PER_SHARD = 42, 7
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = (sample(number, captions=1 + number % 2) for number in range(NUM))
    return put(tmp_path_factory.mktemp("prepared"), made, PER_SHARD)


@pytest.fixture(scope="module")
def server(folder) -> Iterator[str]:
    def answer(path: str) -> bytes | int:
        file = folder / path.strip("/")
        return file.read_bytes() if file.is_file() else 404

    with serve(answer) as (address, _):
        yield address


@pytest.fixture(scope="module")  # fsspec keeps its clients, and so the address that they began with
def s3(folder) -> Iterator[str]:
    pytest.importorskip("s3fs")
    with bucket_of(folder) as address, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "anything")
        yield "s3://bucket"


@pytest.fixture
def store(folder) -> Iterator[str]:
    """An object store that fsspec knows and webdataset does not."""
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


def shown(shards, count: int = 80, workers: int = 0, **how) -> list[Batch]:
    how = {"batch_size": 8, "start_nimg": 0, "seed": 0, "shuffle_buffer": 10} | how
    return list(islice(stream_batches(shards, num_workers=workers, **how), count // 8))


def numbers(batches: list[Batch]) -> list[int]:
    return [int(caption.partition(".")[0]) for batch in batches for caption in batch.captions]


@pytest.mark.parametrize(
    "patterns",
    [
        ["{folder}/*.tar"],
        ["{folder}/{{00000..00005}}.tar"],
        ["{folder}/{{00000..00002}}.tar", "{folder}/0000[345].tar"],
        ["{server}/{{00000..00005}}.tar"],
        ["{store}/*.tar"],
        [f"pipe:cat {{folder}}/0000{number}.tar" for number in range(6)],
    ],
    ids=["glob", "braces", "several", "http", "object store", "commands"],
)
def test_all_shards_are_found_and_read_wherever_they_are(folder, server, store, patterns):
    named = str(folder / MANIFEST) if patterns[0].startswith("pipe:") else None
    patterns = [each.format(folder=folder, server=server, store=store) for each in patterns]
    found = find_stream(patterns, named, Path())
    assert len(found.shards) == 6
    assert [manifest["num_samples"] for manifest in found.manifests.values()] == [NUM]
    read = [each for shard in found.shards for each in read_shard(shard)]
    assert read == [sample(number, captions=1 + number % 2) for number in range(NUM)]
    assert set(numbers(shown(found.shards, 480, workers=2))) == set(range(NUM)), "and all are shown"


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["*.tar", "{00000..00005}.tar"])
def test_shards_in_s3_are_found_and_read(s3, pattern):
    found = find_stream([f"{s3}/{pattern}"], None, Path())
    assert [str(shard.file) for shard in found.shards] == [f"{s3}/{shard_name(number)}" for number in range(6)]
    assert set(numbers(shown(found.shards, 480, workers=2))) == set(range(NUM))


def test_relative_paths_start_at_the_root(folder):
    found = find_stream([f"{folder.name}/*1.tar"], f"{folder.name}/{MANIFEST}", folder.parent)
    assert [(str(shard.file), shard.num_samples) for shard in found.shards] == [(f"{folder}/00001.tar", PER_SHARD)]
    assert list(found.manifests) == [f"{folder}/{MANIFEST}"]


def test_shards_of_several_folders_have_their_own_manifests(folder, tmp_path):
    other = put(tmp_path, map(sample, range(3)))
    found = find_stream([f"{folder}/*.tar", f"{other}/*.tar"], None, Path())
    assert [shard.num_samples for shard in found.shards] == [7] * 6 + [3]
    assert len(found.manifests) == 2


def test_no_shards_are_an_error_that_says_where_none_were(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/no/\*.tar: no file"):
        find_stream(["no/*.tar"], None, tmp_path)


@pytest.mark.parametrize("pattern", ["pipe:cat {folder}/00000.tar", "simplecache::memory://bucket/00000.tar"])
def test_the_manifest_of_what_has_no_folder_must_be_named(folder, pattern):
    with pytest.raises(
        SettingsError, match=r"it is not known which folder has its manifest.json; name it in reader.man"
    ):
        find_stream([pattern.format(folder=folder)], None, Path())


@pytest.mark.parametrize("content", [None, "{", "[]", '{"kind": "prepared", "shards": []}'])
def test_shards_whose_encoder_nobody_knows_are_refused(tmp_path, content):
    put(tmp_path, map(sample, range(3)))
    (tmp_path / MANIFEST).unlink()
    if content:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=r"manifest.json: not readable .*encoder .* unknown.*reader.manifest"):
        find_stream([f"{tmp_path}/*.tar"], None, Path())


def test_a_manifest_setting_that_names_several_is_refused(folder, tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text((folder / MANIFEST).read_text())
    with pytest.raises(SettingsError, match=rf"reader\.manifest = \*\.json: 2 files \({tmp_path}/a.json, .*; name one"):
        find_stream([f"{folder}/*.tar"], "*.json", tmp_path)


def test_a_manifest_that_does_not_name_its_shards_is_refused(folder, tmp_path):
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["shards"][2]["file"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json: not readable \(entry 2 of its shards lacks file\)"):
        find_stream([f"{folder}/*.tar"], MANIFEST, tmp_path)


def shards_of(folder: Path) -> list[StreamedShard]:
    return find_stream([f"{folder}/*.tar"], None, Path()).shards


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_start_shows_the_same_and_any_other_something_else(folder, workers):
    shards = shards_of(folder)
    first = numbers(shown(shards, workers=workers))
    assert numbers(shown(shards, workers=workers)) == first
    others = [{"start_nimg": 8}, {"seed": 1}, {"share": range(8, 16), "batch_size": 16}]
    assert all(numbers(shown(shards, workers=workers, **other)) != first for other in others)


def test_each_worker_shows_samples_of_its_own(folder):
    batches = shown(shards_of(folder), 320, workers=2)
    assert numbers(batches[0::2]) != numbers(batches[1::2])
    assert numbers(batches[0::2]) == numbers(shown(shards_of(folder), 160)), "the first as it would alone"


def test_all_samples_are_shown_about_equally_often(folder):
    counts = Counter(numbers(shown(shards_of(folder), 1680)))
    assert set(counts) == set(range(NUM))
    assert max(counts.values()) < 2 * 1680 / NUM and min(counts.values()) > 1680 / NUM / 2


def test_samples_of_several_shards_are_mixed(folder):
    def neighbours(shuffle_buffer: int) -> float:
        row = numbers(shown(shards_of(folder), 400, shuffle_buffer=shuffle_buffer))
        return sum(second == first + 1 for first, second in zip(row, row[1:], strict=False)) / len(row)

    assert neighbours(1) > 0.7
    assert neighbours(40) < 0.2


@pytest.mark.parametrize("workers", [0, 2])
def test_what_belongs_to_an_image_s_place_is_drawn_as_by_the_indexed_reader(folder, workers):
    how = {"start_nimg": 32, "batch_size": 16, "share": range(8, 16), "seed": 4, "workers": workers}
    plain = shown(shards_of(folder), 160, **how)
    mirrored = shown(shards_of(folder), 160, horizontal_flip=True, **how)
    for nimg, one, other in zip(range(32, 10**6, 16), plain, mirrored, strict=False):
        for place, caption, c, picture, seen in zip(
            range(nimg + 8, nimg + 16), one.captions, one.c, one.images, other.images, strict=True
        ):
            number, _, which = caption.partition(".")
            assert int(which or 0) == caption_number(4, place, 1 + int(number) % 2)
            assert c[:2].tolist() == [int(number), int(which or 0)]
            assert torch.equal(seen, picture.flip(-1) if is_mirrored(4, place) else picture)


@pytest.mark.parametrize("workers", [0, 3])
def test_jpegs_come_at_the_size_that_is_trained(tmp_path, workers):
    put(tmp_path, (sample(number, image_format="jpeg", px=32) for number in range(9)))
    grow = lambda nimg: 8 if nimg < 24 else 32
    found = shown(shards_of(tmp_path), 48, workers=workers, image_px=grow)
    assert [batch.images.shape[-1] for batch in found] == [8, 8, 8, 32, 32, 32]


def test_a_stream_says_that_it_cannot_be_repeated(folder, caplog):
    caplog.set_level(logging.INFO)
    shown(shards_of(folder), 8)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "a stream of 6 shards, drawn at random" in said and "reader.kind = indexed" in said
    caplog.clear()
    shown(shards_of(folder), 8, batch_size=16, share=range(8, 16))
    assert not caplog.records, "one process says it for all"


def test_some_captions_come_from_all_over_the_shards(folder, monkeypatch):
    monkeypatch.setattr(stream, "CAPTION_SHARDS", 3)
    captions, c = some_streamed_captions(shards_of(folder), 6)
    assert [int(caption.partition(".")[0]) for caption in captions] == [0, 1, 14, 15, 35, 36]
    assert c[:, 0].tolist() == [0, 1, 14, 15, 35, 36]
    assert len(some_streamed_captions(shards_of(folder), 10**6)[0]) == 3 * PER_SHARD


def damage(folder: Path, how: str) -> None:
    shard = folder / shard_name(0)
    data = bytearray(shard.read_bytes())
    if how == "truncated":
        shard.write_bytes(data[: len(data) // 2])
    elif how == "header":
        start = data.index(b"s003.json")
        data[start : start + 100] = b"\xff" * 100
        shard.write_bytes(data)
    elif how == "no tar":
        shard.write_bytes(b"<html>not found</html>" * 100)
    elif how == "gone":
        shard.unlink()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", ["truncated", "header", "no tar", "gone"])
def test_a_damaged_shard_ends_the_training_in_one_line_that_names_it(tmp_path, how, workers):
    shards = shards_of(put(tmp_path, map(sample, range(6))))
    damage(tmp_path, how)
    with pytest.raises(DataError, match=r"00000\.tar: not a readable shard \(.*\); replace it") as raised:
        shown(shards, 800, workers=workers)
    assert len(str(raised.value).splitlines()) == 1


def empty_shards(folder: Path, count: int) -> list[StreamedShard]:
    for number in range(count):
        write_shard(folder / shard_name(number), [])
    return [at(str(folder / shard_name(number))) for number in range(count)]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_of_nothing_ends_in_an_error(tmp_path, workers):
    shards = empty_shards(tmp_path, 3)
    with pytest.raises(DataError, match=r"0000\d\.tar: holds no samples, like the other 2 .*; loosen .* filter"):
        shown(shards, 8, workers=workers)
    with pytest.raises(DataError, match=r"00000\.tar: holds no samples, like the other 2 "):
        some_streamed_captions(shards, 4)


def test_empty_shards_among_others_are_passed_over(folder, tmp_path):
    shards = [*empty_shards(tmp_path, 5), *shards_of(folder)]
    assert set(numbers(shown(shards, 800))) == set(range(NUM))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_in_a_stream_is_named(tmp_path, workers):
    made = [sample(number) for number in range(6)]
    made[2].fields["png"] = made[2].fields["png"][:50]
    with pytest.raises(DataError, match="sample s002: a stored picture is damaged"):
        shown(shards_of(put(tmp_path, made)), 800, workers=workers)


def at(address: str, num_samples: int | None = None) -> StreamedShard:
    return StreamedShard(File(address, address), num_samples)


def test_elsewhere_another_shard_takes_the_place_of_one_that_fails(server, caplog):
    shards = [*[at(f"{server}/00000.tar", PER_SHARD)] * 9, at(f"{server}/gone.tar")]
    assert set(numbers(shown(shards, 800))) == set(range(PER_SHARD))
    why = "not a readable shard (the command that reads it ended with status 22); going on with another"
    assert {record.getMessage() for record in caplog.records} == {f"{server}/gone.tar: {why}"}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("address", ["{server}/gone.tar", "{store}/gone.tar", "pipe:exit 3"])
def test_but_not_for_ever(server, store, address, workers):
    with pytest.raises(Unreachable, match=r"not a readable shard \(.*\); when it can be read, the same") as raised:
        shown([at(address.format(server=server, store=store))], 8, workers=workers)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("end", ["exit 3", "exec >&-; sleep 0.1; exit 3"], ids=["at once", "after its output"])
def test_a_command_that_fails_at_its_end_is_noticed(folder, end):
    with pytest.raises(OSError, match="the command that reads it ended with status 3"):
        list(read_shard(at(f"pipe:cat {folder}/00000.tar; {end}", PER_SHARD)))


def test_a_reader_that_stops_half_way_leaves_no_command_behind(folder):
    samples = read_shard(at(f"pipe:cat {folder}/00000.tar; head -c 1000000 /dev/zero; exit 3"))
    assert next(samples).key == "s000"
    samples.close()


def test_files_that_are_no_part_of_a_sample_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name in ("__meta__", "folder/a.txt", "folder/a.JPG", "README"):
            (tmp_path / "file").write_text(json.dumps(name))
            tar.add(tmp_path / "file", name)
    (read,) = read_shard(at(str(tmp_path / "00000.tar"), 1))
    assert read.key == "folder/a" and read.fields.keys() == {"txt", "jpg"}
