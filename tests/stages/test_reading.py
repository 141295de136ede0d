"""Where the training stages read from: the prepared shards here, or a stream of them."""

from __future__ import annotations

import io
import json
import logging
import shutil
from typing import Any

import pytest
import torch
from PIL import Image

from stylegan_t.data.shards import MANIFEST, Sample, Shards, write_manifest, write_shards
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.models.bundle import load_bundle
from stylegan_t.sampling import embed
from stylegan_t.stages import finetune_text_encoder, train_generator, train_super_resolution
from stylegan_t.stages.adversarial import TrainingStage
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training import loop
from stylegan_t.training.distributed import World
from tests.stages.training_world import IMAGE_PX, NUM_TRAIN, config, make_world, put_bundle

STREAM = {"kind": "stream", "shards": ["elsewhere/*.tar"], "manifest": None, "shuffle_buffer": 8}
ALONE = World(torch.device("cpu"))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Workspace:
    """Prepared JPEGs, and their copy elsewhere."""
    workspace = make_world(tmp_path_factory.mktemp("reading"))
    folder = workspace.prepared / "train"
    manifest, samples = json.loads((folder / MANIFEST).read_text()), [as_jpeg(each) for each in Shards(folder)]
    shutil.rmtree(folder)
    write_manifest(
        folder, "prepared", write_shards(folder, samples, 16), encoder=manifest["encoder"], image_px=IMAGE_PX
    )
    shutil.copytree(folder, workspace.root / "elsewhere")
    put_bundle(workspace, workspace.artifacts("train_generator"), 16)
    put_bundle(workspace, workspace.root / "bundle", 16)
    return workspace


def as_jpeg(sample: Sample) -> Sample:
    out = io.BytesIO()
    Image.open(io.BytesIO(sample.image)).save(out, "JPEG")
    return Sample(sample.key, {"jpg": out.getvalue(), **{k: v for k, v in sample.fields.items() if k != "png"}})


@pytest.fixture(autouse=True)
def fresh(world):
    shutil.rmtree(world.root / ".state", ignore_errors=True)


@pytest.fixture
def steps(monkeypatch) -> list[Any]:
    """Side of the pictures as they came, side that was trained, and the batch, of each step."""
    found: list[Any] = []
    step = loop.training_step

    def noting(players, batch, at, wrong):
        found.append((batch.images.shape[-1], players.generator.resolution, batch))
        return step(players, batch, at, wrong)

    monkeypatch.setattr(loop, "training_step", noting)
    return found


READERS = pytest.mark.parametrize("reader", [{"kind": "indexed"}, STREAM], ids=["indexed", "stream"])


@READERS
def test_pictures_come_at_the_resolution_that_is_trained_while_it_grows_and_after_a_resume(world, steps, reader):
    how = {"resolutions": [8, 16], "grow_at_kimg": [0.008], "reader": reader}
    train_generator.run(config("train_generator", **how, total_kimg=0.016), world, "cpu")
    train_generator.run(config("train_generator", **how, total_kimg=0.024), world, "cpu")
    assert [sides[:2] for sides in steps] == [(8, 8), (16, 16), (16, 16)]


def test_stage_two_reads_at_the_resolution_of_the_generator_that_it_starts_from(world, steps):
    finetune_text_encoder.run(config("finetune_text_encoder"), world, "cpu")
    assert [sides[:2] for sides in steps] == [(16, 16)] * 2


@READERS
def test_super_resolution_feeds_the_generator_by_the_tuned_encoder(world, steps, reader):
    train_super_resolution.run(config("train_super_resolution", reader=reader, start_from="bundle"), world, "cpu")
    tuned = load_bundle(world.root / "bundle").text_encoder
    for _, _, batch in steps:
        torch.testing.assert_close(batch.generator_c, embed(tuned, batch.captions), atol=1e-3, rtol=0)
        assert not torch.allclose(batch.generator_c, batch.c, atol=0.05)
    stored = list((world.root / ".state").rglob("generator_c"))
    assert len(stored) == (reader["kind"] == "indexed"), "a stream's samples have no numbers to store them by"


def test_a_stream_trains_without_the_prepared_shards_and_says_that_it_is_one(world, steps, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    away = tmp_path / "away"
    shutil.move(world.prepared / "train", away)
    try:
        deviations = config().train_generator.deviations.model_dump() | {"wrong_caption_weight": 0.5}
        how = {"reader": STREAM, "resolutions": [8], "grow_at_kimg": [], "deviations": deviations}
        train_generator.run(config("train_generator", **how), world, "cpu")
    finally:
        shutil.move(away, world.prepared / "train")
    assert any("a stream of 3 shards, drawn at random" in record.getMessage() for record in caplog.records)
    assert f"{NUM_TRAIN} pictures" in (world.artifacts("train_generator") / "config.json").read_text()


def stage(world: Workspace, **changes: Any) -> TrainingStage:
    return TrainingStage("train_generator", config("train_generator", **changes), world, ALONE, None)


def test_what_is_streamed_is_a_part_of_the_run_s_identity(world):
    before, manifest = stage(world, reader=STREAM).digest, world.root / "elsewhere" / MANIFEST
    text = manifest.read_text()
    try:
        manifest.write_text(text + "\n")
        assert stage(world, reader=STREAM).digest == before
        manifest.write_text(json.dumps(json.loads(text) | {"image_px": 64}))
        assert stage(world, reader=STREAM).digest != before
    finally:
        manifest.write_text(text)
    digests = {stage(world, reader={**STREAM, "shuffle_buffer": 9}).digest, stage(world).digest, before}
    named = {**STREAM, "manifest": "elsewhere/manifest.json"}
    assert len({stage(world, reader=named).digest, *digests}) == 4


@READERS
def test_embeddings_of_another_encoder_are_refused_before_anything_is_loaded(world, reader):
    place = world.root / "elsewhere" if reader["kind"] == "stream" else world.prepared / "train"
    text = (place / MANIFEST).read_text()
    (place / MANIFEST).write_text(json.dumps(json.loads(text) | {"encoder": "0" * 64}))
    try:
        with pytest.raises(DataError, match=f"{place}.*: its text embeddings are of another encoder"):
            stage(world, reader=reader)
    finally:
        (place / MANIFEST).write_text(text)


def test_a_mixture_that_does_not_fit_the_data_is_refused_before_anything_is_loaded(world):
    with pytest.raises(SettingsError, match="mixture: cc3m: the shards of .* are of one source"):
        stage(world, mixture={"cc3m": 1.0})


def test_a_mixture_of_a_stream_is_no_setting():
    with pytest.raises(SettingsError, match="train_generator: mixture needs reader.kind = indexed"):
        config("train_generator", reader=STREAM, mixture={"a": 1.0})


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_of_a_mixture_is_positive(weight):
    with pytest.raises(SettingsError, match=rf"mixture.cc3m = {weight}: .*greater than 0"):
        config("train_generator", mixture={"cc3m": weight})
