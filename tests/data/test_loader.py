from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch

from stylegan_t.data import embeddings, loader
from stylegan_t.data.embeddings import StoredEmbeddings, store_embeddings
from stylegan_t.data.loader import Batch, batches, check_encoder, some_captions
from stylegan_t.data.order import caption_number, is_mirrored
from stylegan_t.data.shards import Shards, read_manifest, shard_name, write_manifest
from stylegan_t.errors import DataError, SettingsError
from tests.data.prepared import C_DIM, put, sample
from tests.imports import ROOT

NUM = 23
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("prepared"), map(sample, range(NUM)))


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, one to three captions a picture."""
    made = (sample(number, captions=1 + number % 3) for number in range(NUM))
    return put(tmp_path_factory.mktemp("rich"), made, per_shard=5, datasets="ab")


def shown(
    folder: Path, count: int, *, start_nimg: int = 0, seed: int = 0, batch_size: int = 4, workers: int = 0, **how
) -> list[int]:
    """Numbers of the first ``count`` samples shown."""
    stream = batches(folder, batch_size=batch_size, start_nimg=start_nimg, seed=seed, num_workers=workers, **how)
    numbers: list[int] = []
    for batch in islice(stream, -(-count // batch_size)):
        numbers += [int(caption.partition(".")[0]) for caption in batch.captions]
    return numbers[:count]


def test_picture_embedding_and_caption_of_a_sample_stay_together(folder):
    batch = next(batches(folder, batch_size=8, start_nimg=0, seed=0, num_workers=0))
    assert isinstance(batch, Batch) and batch.images.dtype == torch.uint8 and batch.c.dtype == torch.float32
    numbers = torch.tensor([int(caption) for caption in batch.captions])
    assert torch.equal(batch.images[:, :, :, 4:], numbers.to(torch.uint8).view(8, 1, 1, 1).expand(8, 3, 8, 4))
    assert torch.equal(batch.c[:, 0], numbers.float()) and batch.c.shape == (8, C_DIM)


def test_every_epoch_shows_every_sample_once_in_another_order(folder):
    stream = shown(folder, 3 * NUM)
    epochs = [stream[start : start + NUM] for start in range(0, 3 * NUM, NUM)]
    assert all(sorted(epoch) == list(range(NUM)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("start_nimg", [1, 4, NUM - 1, NUM, NUM + 5, 100 * NUM + 3])
def test_a_resumed_run_shows_what_the_unbroken_one_would_have_shown(folder, start_nimg):
    whole = shown(folder, 101 * NUM + 20)
    assert shown(folder, 20, start_nimg=start_nimg) == whole[start_nimg : start_nimg + 20]


def test_the_order_follows_from_the_seed_and_not_from_the_batch_size(folder):
    assert shown(folder, 60, batch_size=4) == shown(folder, 60, batch_size=9) == shown(folder, 60, batch_size=50)
    assert shown(folder, 60, seed=1) != shown(folder, 60)


def joined(parts: list[Batch]) -> Batch:
    """The global batch of all processes' parts."""
    generator_c = torch.cat([part.generator_c for part in parts if part.generator_c is not None])
    images, c = torch.cat([part.images for part in parts]), torch.cat([part.c for part in parts])
    return Batch(images, c, [caption for part in parts for caption in part.captions], generator_c)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_neither_processes_nor_workers_change_anything_of_a_batch(rich, tmp_path, monkeypatch, ranks, workers):
    monkeypatch.setattr(embeddings, "SAMPLES_PER_FILE", 4)
    store_embeddings(tmp_path, rich, lambda texts: torch.tensor([[float(text), 0.5] for text in texts]))
    how = {"batch_size": 8, "start_nimg": 16, "seed": 3, "mixture": {"a": 1.0, "b": 2.0}, "horizontal_flip": True}
    how |= {"generator_c": StoredEmbeddings(tmp_path)}
    alone = batches(rich, num_workers=0, **how)
    shares = [range(rank * 8 // ranks, (rank + 1) * 8 // ranks) for rank in range(ranks)]
    processes = [batches(rich, num_workers=workers, share=share, **how) for share in shares]
    for _ in range(5):
        expected, found = next(alone), joined([next(process) for process in processes])
        assert found.captions == expected.captions
        assert all(
            torch.equal(mine, theirs)
            for mine, theirs in zip(found, expected, strict=True)
            if isinstance(mine, torch.Tensor)
        )
        assert found.generator_c is not None
        assert found.generator_c[:, 0].tolist() == pytest.approx([float(caption) for caption in found.captions], 1e-3)


def test_an_image_comes_with_the_caption_drawn_for_its_place_and_that_caption_s_embedding(rich):
    stream = batches(rich, batch_size=4, start_nimg=6, seed=5, num_workers=0)
    seen = set()
    for first in range(6, 406, 4):
        batch = next(stream)
        for place, caption, c in zip(range(first, first + 4), batch.captions, batch.c.tolist(), strict=True):
            number, _, which = caption.partition(".")
            assert c[:2] == [int(number), int(which or 0)]
            assert int(which or 0) == caption_number(5, place, 1 + int(number) % 3)
            seen.add(caption)
    assert len(seen) == sum(1 + number % 3 for number in range(NUM)), "all captions are shown in the long run"


def test_every_second_picture_is_mirrored_by_its_place_where_that_is_wanted(folder):
    plain, mirrored = (
        batches(folder, batch_size=8, start_nimg=24, seed=2, num_workers=0, horizontal_flip=flip)
        for flip in (False, True)
    )
    for first in range(24, 88, 8):
        as_stored, seen = next(plain), next(mirrored)
        assert seen.captions == as_stored.captions
        for place, one, other in zip(range(first, first + 8), as_stored.images, seen.images, strict=True):
            assert torch.equal(other, one.flip(-1) if is_mirrored(2, place) else one)


def test_a_mixture_shows_each_data_set_by_its_weight_and_all_of_it(rich):
    shards = Shards(rich)
    datasets: dict[str, set[int]] = {"a": set(), "b": set()}
    for shard, entry in enumerate(shards.manifest["shards"]):
        datasets[entry["dataset"]] |= set(shards.shard_range(shard))
    numbers = shown(rich, 4096, batch_size=256, mixture={"a": 1.0, "b": 7.0})
    assert sum(number in datasets["b"] for number in numbers) == 4096 * 7 // 8
    assert set(numbers) == datasets["a"] | datasets["b"]
    later = shown(rich, 100, start_nimg=1000, batch_size=25, mixture={"a": 1.0, "b": 7.0})
    assert later == numbers[1000:1100]


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            {"a": 1.0, "b": 1.0, "cc12m": 1.0},
            "mixture: cc12m: a weight for each data set and for no other; there are a, b",
        ),
        ({"a": 1.0}, "mixture: b: a weight for each data set and for no other; there are a, b"),
    ],
)
def test_a_mixture_names_the_data_sets_that_there_are(rich, mixture, message):
    with pytest.raises(SettingsError, match=message):
        batches(rich, batch_size=4, start_nimg=0, seed=0, num_workers=0, mixture=mixture)


def test_a_mixture_of_a_single_source_is_refused(folder):
    with pytest.raises(SettingsError, match=r"mixture: a: the shards of .* are of one source"):
        batches(folder, batch_size=4, start_nimg=0, seed=0, num_workers=0, mixture={"a": 1.0})


@pytest.mark.parametrize("workers", [0, 2])
def test_jpegs_come_at_the_size_that_is_trained_and_the_same_samples_at_the_same_places(tmp_path, workers):
    put(tmp_path, (sample(number, image_format="jpeg", px=64) for number in range(NUM)))
    grow = lambda nimg: 8 if nimg < 16 else 32 if nimg < 32 else 64
    stream = batches(tmp_path, batch_size=8, start_nimg=8, seed=0, num_workers=workers, image_px=grow)
    found = list(islice(stream, 5))
    assert [batch.images.shape[-1] for batch in found] == [8, 32, 32, 64, 64]
    as_stored = shown(tmp_path, 40, start_nimg=8, batch_size=8)
    assert [int(caption) for batch in found for caption in batch.captions] == as_stored


def test_pictures_that_are_no_jpegs_come_as_they_are_stored(folder):
    stream = batches(folder, batch_size=8, start_nimg=0, seed=0, num_workers=0, image_px=lambda nimg: 4)
    expected = batches(folder, batch_size=8, start_nimg=0, seed=0, num_workers=0)
    assert torch.equal(next(stream).images, next(expected).images)


@pytest.mark.parametrize("nimg", [0, 777_777, 5 * 10**9 + 3])
def test_the_first_batch_after_a_resume_comes_at_once(tmp_path, nimg):
    """Hundred shards of a thousand samples each; benchmarks/loader.py has the figures for more."""
    some = [sample(number, image_format="jpeg") for number in range(250)]
    put(tmp_path, (replace(some[number % 250], key=f"s{number}") for number in range(1000)), per_shard=1000)
    (entry,) = read_manifest(tmp_path)["shards"]
    for number in range(1, 100):
        for name in (entry["file"], entry["file"].replace(".tar", ".index.parquet")):
            (tmp_path / name.replace("00000", f"{number:05d}")).symlink_to(tmp_path / name)
    write_manifest(tmp_path, "prepared", [{**entry, "file": shard_name(number)} for number in range(100)])
    start = time.perf_counter()
    assert len(next(batches(tmp_path, batch_size=32, start_nimg=nimg, seed=0, num_workers=0)).captions) == 32
    assert time.perf_counter() - start < 0.5


def test_some_captions_are_spread_over_all_samples_and_take_turns_among_a_picture_s(folder, rich):
    assert some_captions(folder, 3)[1][:, 0].tolist() == [0, 11, 22]
    assert some_captions(folder, 1000)[1][:, 0].tolist() == list(range(NUM))
    captions, c = some_captions(rich, 1000)
    assert captions[:6] == ["0", "1.1", "2.2", "3", "4", "5.2"]
    assert c[:, :2].tolist() == [
        [float(each.partition(".")[0]), float(each.partition(".")[2] or 0)] for each in captions
    ]


def test_shards_of_another_encoder_are_refused(folder):
    manifest = read_manifest(folder)
    check_encoder("data/prepared/train", manifest, "a" * 64)
    with pytest.raises(DataError, match="another encoder .aaaaaaaaaaaa….*bbbbbbbbbbbb….*dvc repro filter"):
        check_encoder("data/prepared/train", manifest, "b" * 64)


def test_no_samples_are_an_error_not_an_endless_wait(tmp_path):
    write_manifest(tmp_path, "prepared", [])
    with pytest.raises(DataError, match="holds no samples"):
        batches(tmp_path, batch_size=4, start_nimg=0, seed=0, num_workers=0)


def overwrite(folder: Path, old: bytes, new: bytes) -> None:
    """Change bytes of the first shard, whose length stays."""
    shard, new = folder / shard_name(0), new.ljust(len(old), b"\0")
    data = shard.read_bytes()
    assert len(new) == len(old) and data.count(old) == 1
    shard.write_bytes(data.replace(old, new))


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_damaged_on_disk_is_a_data_error_that_names_it(tmp_path, image_format, workers):
    put(tmp_path, (sample(number, image_format=image_format) for number in range(4)))
    image = Shards(tmp_path)[2].image
    overwrite(tmp_path, image[20:], image[20 : len(image) // 2])
    with pytest.raises(DataError, match="sample s002: a stored picture is damaged") as raised:
        next(batches(tmp_path, batch_size=4, start_nimg=0, seed=0, num_workers=workers))
    assert len(str(raised.value).splitlines()) == 1 and str(raised.value).startswith(str(tmp_path))


def broken(number: int, how: str):
    made = sample(number, captions=2)
    if how == "shape":
        made.fields["txt"] = b"one caption"
    elif how == "header":
        made.fields["npy"] = b"\0" * 200
    else:
        del made.fields[how]
    return made


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("npy", "sample s001 has no .npy: it was not prepared"),
        ("txt", "sample s001 has no .txt: it was not prepared"),
        ("png", "sample s001 has no picture"),
        ("shape", r"sample s001: embeddings of shape \(2, 4\) for 1 captions"),
        ("header", "sample s001: its embeddings are damaged"),
    ],
)
def test_a_sample_without_what_training_needs_is_named(tmp_path, how, message):
    put(tmp_path, [sample(0, captions=2), broken(1, how)])
    with pytest.raises(DataError, match=message):
        next(batches(tmp_path, batch_size=2, start_nimg=0, seed=0, num_workers=0))


def test_pictures_of_several_sizes_are_no_batch(tmp_path):
    put(tmp_path, [sample(0), sample(1, px=16)])
    with pytest.raises(DataError, match="several sizes: .8, 8, 3., .16, 16, 3.; run `dvc repro -f filter`"):
        next(batches(tmp_path, batch_size=2, start_nimg=0, seed=0, num_workers=0))


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_is_told_in_one_line_from_a_worker_too(folder, monkeypatch, workers):
    def damaged(samples, request):
        raise DataError("shard 3: damaged; run `dvc repro -f filter`")

    monkeypatch.setattr(loader._Samples, "__getitem__", damaged)
    with pytest.raises(DataError) as raised:
        next(batches(folder, batch_size=4, start_nimg=0, seed=0, num_workers=workers))
    assert str(raised.value) == "shard 3: damaged; run `dvc repro -f filter`"


def test_an_error_beside_running_workers_ends_the_process(folder):
    code = (
        "import sys; from pathlib import Path; from stylegan_t.data.loader import batches\n"
        f"stream = batches(Path({str(folder)!r}), batch_size=4, start_nimg=0, seed=0, num_workers=1)\n"
        "for _ in range(4): next(stream)\n"
        "raise OSError('No space left on device')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"No space left" in done.stderr


def test_signals_to_the_whole_group_do_not_take_the_batches_away(folder):
    stream = batches(folder, batch_size=4, start_nimg=0, seed=0, num_workers=2)
    for _ in range(4):  # both workers have begun
        next(stream)
    workers = [child for child in psutil.Process().children() if "multiprocessing" not in " ".join(child.cmdline())]
    assert len(workers) >= 2
    for worker in workers:
        worker.send_signal(signal.SIGINT)
        worker.send_signal(signal.SIGTERM)
    assert len([next(stream) for _ in range(20)]) == 20
