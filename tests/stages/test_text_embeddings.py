"""Which text encoder runs when: none in stage one, the tuned one once per caption before super-resolution."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from stylegan_t.data import embeddings
from stylegan_t.data.embeddings import StoredEmbeddings
from stylegan_t.data.shards import Shards
from stylegan_t.models.bundle import load_bundle
from stylegan_t.models.encoders import TextEncoder
from stylegan_t.sampling import embed
from stylegan_t.stages import adversarial, reading, train_generator, train_super_resolution
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training import loop
from tests.stages.training_world import NUM_TRAIN, config, make_world, put_bundle

pytestmark = pytest.mark.usefixtures("fresh")
STAGE = "train_super_resolution"
SETTINGS = config(STAGE, total_kimg=0.008)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Workspace:
    workspace = make_world(tmp_path_factory.mktemp("texts"))
    put_bundle(workspace, workspace.artifacts("finetune_text_encoder"), 16)
    return workspace


@pytest.fixture
def fresh(world, monkeypatch):
    shutil.rmtree(world.root / ".state", ignore_errors=True)
    monkeypatch.setattr(embeddings, "SAMPLES_PER_FILE", 16)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """All captions that any text encoder is asked for, and "train" where training begins and ends."""
    found: list[str] = []
    tokenize, step = TextEncoder.tokenize, loop.training_step

    def keep(encoder, captions):
        found.extend(captions)
        return tokenize(encoder, captions)

    def stepping(*arguments):
        found.append("train")
        return step(*arguments)

    monkeypatch.setattr(TextEncoder, "tokenize", keep)
    monkeypatch.setattr(loop, "training_step", stepping)
    return found


def captions_of(world: Workspace) -> list[str]:
    return [sample.caption for sample in Shards(world.prepared / "train")]


def stored(world: Workspace) -> Path:
    (folder,) = (world.root / ".state" / STAGE).glob("*/generator_c")
    return folder


def test_stage_one_reads_no_text(world, asked):
    train_generator.run(config("train_generator", resolutions=[8], grow_at_kimg=[]), world, "cpu")
    assert asked == ["train", "train"]


def test_super_resolution_reads_each_caption_once_and_before_it_trains(world, asked):
    train_super_resolution.run(SETTINGS, world, "cpu")
    assert asked.count("train") == 1
    assert asked[-1] == "train", "no text is read while training"
    assert set(captions_of(world)) <= set(asked)
    asked.clear()
    train_super_resolution.run(config(STAGE), world, "cpu")
    assert asked.count("train") == 1
    assert len(asked) <= 1 + adversarial.SAMPLE_PROMPTS, "a second start reads its prompts, and no training caption"


def test_the_stored_embeddings_are_the_tuned_encoder_s_of_the_training_captions(world):
    train_super_resolution.run(SETTINGS, world, "cpu")
    tuned = load_bundle(world.artifacts("finetune_text_encoder")).text_encoder
    found = StoredEmbeddings(stored(world)).rows(range(NUM_TRAIN), [0] * NUM_TRAIN)
    torch.testing.assert_close(found, embed(tuned, captions_of(world)), atol=1e-3, rtol=0)
    original = torch.stack([torch.from_numpy(sample.c[0]).float() for sample in Shards(world.prepared / "train")])
    assert not torch.allclose(found, original, atol=0.05)


def test_embedding_that_was_killed_goes_on_with_what_is_missing(world, asked, monkeypatch):
    calls = []

    def embed_until_killed(encoder, captions):
        if len(captions) == 16:
            calls.append(captions)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(encoder, captions)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "embed", embed_until_killed)
        with pytest.raises(KeyboardInterrupt):
            train_super_resolution.run(SETTINGS, world, "cpu")
    assert sorted(path.name for path in stored(world).glob("*[0-9].npy")) == ["000000.npy"]
    captions, first = captions_of(world), stored(world) / "000000.npy"
    written = first.stat().st_mtime_ns
    asked.clear()
    train_super_resolution.run(SETTINGS, world, "cpu")
    assert first.stat().st_mtime_ns == written
    read = set(asked[: asked.index("train")])
    assert set(captions[16:]) <= read
    assert sorted(path.name for path in stored(world).glob("*[0-9].npy")) == ["000000.npy", "000001.npy", "000002.npy"]
