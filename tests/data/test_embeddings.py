"""Stored text embeddings: made once, file by file, and found by the sample's number whatever the order."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_t.data import embeddings
from stylegan_t.data.embeddings import StoredEmbeddings, store_embeddings
from stylegan_t.data.images import encode
from stylegan_t.data.loader import batches
from stylegan_t.data.shards import Sample, write_manifest, write_shards

NUM, PER_FILE = 23, 5
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def sample(number: int) -> Sample:
    vector = io.BytesIO()
    np.save(vector, np.full(2, -1, np.float16))
    picture = encode(np.full((8, 8, 3), number, np.uint8))
    fields = {"png": picture, "txt": str(number).encode(), "json": b"{}", "npy": vector.getvalue()}
    return Sample(f"s{number:03d}", fields)


class Encoder:
    """Embeds a caption, which is a number, as that number; counts what it is asked for."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.fail_after = fail_after

    def __call__(self, captions):
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise KeyboardInterrupt
        self.asked += captions
        return torch.tensor([[float(caption), 0.1] for caption in captions])


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("prepared")
    write_manifest(path, "prepared", write_shards(path, map(sample, range(NUM)), 7), encoder="a" * 64, image_px=8)
    return path


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(embeddings, "SAMPLES_PER_FILE", PER_FILE)


def all_rows(folder: Path) -> torch.Tensor:
    return StoredEmbeddings(folder).rows(range(NUM))


def test_every_caption_is_read_once_and_found_by_its_sample_s_number(shards, tmp_path):
    encoder = Encoder()
    store_embeddings(tmp_path, shards, encoder)
    assert encoder.asked == [str(number) for number in range(NUM)]
    expected = torch.tensor([[float(number), 0.1] for number in range(NUM)])
    torch.testing.assert_close(all_rows(tmp_path), expected, atol=1e-4, rtol=0)
    assert StoredEmbeddings(tmp_path).rows([22, 0, 7, 7])[:, 0].tolist() == [22, 0, 7, 7]
    assert all_rows(tmp_path).dtype == torch.float32


def test_files_that_are_there_are_not_made_again(shards, tmp_path):
    store_embeddings(tmp_path, shards, Encoder())
    again = Encoder()
    store_embeddings(tmp_path, shards, again)
    assert again.asked == []


def test_work_that_was_interrupted_goes_on_with_the_next_file(shards, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        store_embeddings(tmp_path, shards, Encoder(fail_after=2 * PER_FILE))
    rest = Encoder()
    store_embeddings(tmp_path, shards, rest)
    assert rest.asked == [str(number) for number in range(2 * PER_FILE, NUM)]
    assert all_rows(tmp_path)[:, 0].tolist() == list(range(NUM))


def test_a_file_cut_while_it_was_written_is_never_read(shards, tmp_path, monkeypatch):
    def save_half(file, array):
        file.write(b"\x93NUMPY")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embeddings.np, "save", save_half)
        with pytest.raises(KeyboardInterrupt):
            store_embeddings(tmp_path, shards, Encoder())
    store_embeddings(tmp_path, shards, Encoder())
    assert all_rows(tmp_path)[:, 0].tolist() == list(range(NUM))


def test_several_processes_share_the_work_without_overlap(shards, tmp_path):
    encoders, counted = [Encoder(), Encoder()], []
    for rank, encoder in enumerate(encoders):
        store_embeddings(tmp_path, shards, encoder, mine=slice(rank, None, 2), done=counted.append)
    assert all(encoder.asked for encoder in encoders)
    assert sorted(int(caption) for encoder in encoders for caption in encoder.asked) == list(range(NUM))
    assert sum(counted) == NUM
    assert all_rows(tmp_path)[:, 0].tolist() == list(range(NUM))


@pytest.mark.parametrize(
    ("start_nimg", "seed", "share", "workers"),
    [(0, 0, None, 0), (0, 0, range(4, 8), 0), (40, 1, range(4), 0), (7, 2, None, 2)],
)
def test_rows_stay_with_their_captions_in_any_order_and_share(shards, tmp_path, start_nimg, seed, share, workers):
    store_embeddings(tmp_path, shards, Encoder())
    stream = batches(
        shards, batch_size=8, start_nimg=start_nimg, seed=seed, num_workers=workers, share=share,
        generator_c=StoredEmbeddings(tmp_path),
    )  # fmt: skip
    for batch in islice(stream, 7):
        assert batch.generator_c is not None
        assert len(batch.captions) == (8 if share is None else 4)
        assert batch.generator_c[:, 0].tolist() == [float(caption) for caption in batch.captions]
        assert (batch.c == -1).all(), "the original encoder's embeddings come beside them"


def test_without_stored_ones_a_batch_has_the_shards_embeddings_alone(shards):
    assert next(batches(shards, batch_size=8, start_nimg=0, seed=0, num_workers=0)).generator_c is None
