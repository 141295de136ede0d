"""Stored text embeddings: made once, file by file, and found by sample and caption whatever the order."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from stylegan_t.data import embeddings
from stylegan_t.data.embeddings import StoredEmbeddings, store_embeddings
from stylegan_t.data.loader import batches
from tests.data.prepared import put, sample

NUM, PER_FILE = 23, 5
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def num_captions(number: int) -> int:
    return 1 + number % 3


CAPTIONS = [(number, which) for number in range(NUM) for which in range(num_captions(number))]
TEXTS = [f"{number}.{which}" if which else f"{number}" for number, which in CAPTIONS]
VALUES = [float(text) for text in TEXTS]


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
    return put(tmp_path_factory.mktemp("prepared"), (sample(n, num_captions(n)) for n in range(NUM)))


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(embeddings, "SAMPLES_PER_FILE", PER_FILE)


def all_values(folder: Path) -> list[float]:
    """The first number of each caption's row."""
    return StoredEmbeddings(folder).rows(*zip(*CAPTIONS, strict=True))[:, 0].tolist()


def test_every_caption_is_read_once_and_found_by_its_sample_and_its_place(shards, tmp_path):
    encoder = Encoder()
    store_embeddings(tmp_path, shards, encoder)
    assert encoder.asked == TEXTS
    assert all_values(tmp_path) == pytest.approx(VALUES, rel=1e-3)
    rows = StoredEmbeddings(tmp_path).rows([22, 0, 7, 8], [1, 0, 1, 2])
    assert rows.dtype == torch.float32
    assert rows.flatten().tolist() == pytest.approx([22.1, 0.1, 0, 0.1, 7.1, 0.1, 8.2, 0.1], rel=1e-3)


def test_files_that_are_there_are_not_made_again(shards, tmp_path):
    store_embeddings(tmp_path, shards, Encoder())
    again = Encoder()
    store_embeddings(tmp_path, shards, again)
    assert again.asked == []


def test_work_that_was_interrupted_goes_on_with_the_next_file(shards, tmp_path):
    before = sum(num_captions(number) for number in range(2 * PER_FILE))
    with pytest.raises(KeyboardInterrupt):
        store_embeddings(tmp_path, shards, Encoder(fail_after=before))
    rest = Encoder()
    store_embeddings(tmp_path, shards, rest)
    assert rest.asked == TEXTS[before:]
    assert all_values(tmp_path) == pytest.approx(VALUES, rel=1e-3)


@pytest.mark.parametrize("whole", [0, 1, 3])
def test_a_file_cut_while_it_was_written_is_never_read(shards, tmp_path, monkeypatch, whole):
    save, saved = embeddings.np.save, []

    def save_half(file, array):
        saved.append(file)
        if len(saved) <= whole:
            save(file, array)
        else:
            file.write(b"\x93NUMPY")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embeddings.np, "save", save_half)
        with pytest.raises(KeyboardInterrupt):
            store_embeddings(tmp_path, shards, Encoder())
    store_embeddings(tmp_path, shards, Encoder())
    assert all_values(tmp_path) == pytest.approx(VALUES, rel=1e-3)


def test_several_processes_share_the_work_without_overlap(shards, tmp_path):
    encoders, counted = [Encoder(), Encoder()], []
    for rank, encoder in enumerate(encoders):
        store_embeddings(tmp_path, shards, encoder, mine=slice(rank, None, 2), done=counted.append)
    assert all(encoder.asked for encoder in encoders)
    assert sorted(caption for encoder in encoders for caption in encoder.asked) == sorted(TEXTS)
    assert sum(counted) == NUM
    assert all_values(tmp_path) == pytest.approx(VALUES, rel=1e-3)


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
        assert batch.generator_c[:, 0].tolist() == pytest.approx([float(caption) for caption in batch.captions], 1e-3)
        assert batch.c.shape[1] == 4, "the original encoder's embeddings come beside them"


def test_without_stored_ones_a_batch_has_the_shards_embeddings_alone(shards):
    assert next(batches(shards, batch_size=8, start_nimg=0, seed=0, num_workers=0)).generator_c is None
