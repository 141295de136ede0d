from __future__ import annotations

import io
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from stylegan_t.data import loader
from stylegan_t.data.images import encode
from stylegan_t.data.loader import Batch, batches, check_encoder, epoch_order, some_captions
from stylegan_t.data.shards import Sample, Shards, index_path, shard_name, write_manifest, write_shards
from stylegan_t.errors import DataError
from tests.imports import ROOT

NUM = 23
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def sample(number: int) -> Sample:
    """A picture, a caption and an embedding that all tell the sample's number."""
    vector = io.BytesIO()
    np.save(vector, np.full(4, number, np.float16))
    picture = encode(np.full((8, 8, 3), number, np.uint8))
    return Sample(
        f"s{number:03d}",
        {"png": picture, "txt": str(number).encode(), "json": b"{}", "npy": vector.getvalue()},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared")
    write_manifest(path, "prepared", write_shards(path, map(sample, range(NUM)), 7), encoder="a" * 64, image_px=8)
    return path


def shown(
    folder: Path, count: int, *, start_nimg: int = 0, seed: int = 0, batch_size: int = 4, workers: int = 0
) -> list[int]:
    """Numbers of the first ``count`` samples shown."""
    stream = batches(folder, batch_size=batch_size, start_nimg=start_nimg, seed=seed, num_workers=workers)
    numbers = []
    for batch in islice(stream, -(-count // batch_size)):
        numbers += [int(caption) for caption in batch.captions]
    return numbers[:count]


def test_picture_embedding_and_caption_of_a_sample_stay_together(folder):
    batch = next(batches(folder, batch_size=8, start_nimg=0, seed=0, num_workers=0))
    assert isinstance(batch, Batch) and batch.images.dtype == torch.uint8 and batch.c.dtype == torch.float32
    numbers = torch.tensor([int(caption) for caption in batch.captions])
    assert torch.equal(batch.images, numbers.to(torch.uint8).view(8, 1, 1, 1).expand(8, 3, 8, 8))
    assert torch.equal(batch.c, numbers.float()[:, None].expand(8, 4))


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


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_batch(folder, workers):
    assert shown(folder, 70, start_nimg=5, workers=workers) == shown(folder, 70, start_nimg=5)


def test_an_epoch_of_many_blocks_is_a_permutation_that_mixes_within_windows_of_blocks(monkeypatch):
    monkeypatch.setattr(loader, "BLOCK", 10)
    monkeypatch.setattr(loader, "BLOCKS_PER_WINDOW", 5)
    order = epoch_order(1003, seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(1003))
    windows = [set((order[start : start + 50] // 10).tolist()) for start in range(0, 1003, 50)]
    assert max(len(blocks) for blocks in windows) <= 6, "a window reads few runs of neighbours"
    assert len({n // 100 for n in order[:50].tolist()}) > 2, "from all over the data"
    assert (order != epoch_order(1003, seed=0, epoch=1)).any() and (order != epoch_order(1003, seed=1, epoch=0)).any()


def test_some_captions_are_spread_over_all_samples(folder):
    assert some_captions(folder, 3)[1][:, 0].tolist() == [0, 11, 22]
    assert some_captions(folder, 1000)[1][:, 0].tolist() == list(range(NUM))


def test_shards_of_another_encoder_are_refused(folder):
    check_encoder(folder, "a" * 64)
    with pytest.raises(DataError, match="another encoder .aaaaaaaaaaaa….*bbbbbbbbbbbb….*dvc repro filter"):
        check_encoder(folder, "b" * 64)


def test_no_samples_are_an_error_not_an_endless_wait(tmp_path):
    write_manifest(tmp_path, "prepared", [])
    with pytest.raises(DataError, match="holds no samples"):
        batches(tmp_path, batch_size=4, start_nimg=0, seed=0, num_workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_damaged_on_disk_is_a_data_error(tmp_path, workers):
    write_manifest(tmp_path, "prepared", write_shards(tmp_path, map(sample, range(4)), 4))
    shard, shards = tmp_path / shard_name(0), Shards(tmp_path)
    data = shard.read_bytes()
    shard.write_bytes(data.replace(shards[2].image, b"\0" * len(shards[2].image)))
    assert index_path(shard).is_file()
    with pytest.raises(DataError, match="a stored picture is damaged"):
        next(batches(tmp_path, batch_size=4, start_nimg=0, seed=0, num_workers=workers))


@pytest.mark.parametrize("share", [range(4), range(4, 8)], ids=["first", "second"])
def test_a_share_is_its_part_of_the_same_global_order(folder, share):
    whole = batches(folder, batch_size=8, start_nimg=5, seed=3, num_workers=0)
    part = batches(folder, batch_size=8, start_nimg=5, seed=3, num_workers=0, share=share)
    for _ in range(6):
        assert next(part).captions == next(whole).captions[share.start : share.stop]


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_is_told_in_one_line_from_a_worker_too(folder, monkeypatch, workers):
    def damaged(samples, numbers):
        raise DataError("shard 3: damaged; run `dvc repro -f filter`")

    monkeypatch.setattr(loader._Samples, "__getitems__", damaged)
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
