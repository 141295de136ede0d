from __future__ import annotations

import multiprocessing
import threading
import time
import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from stylegan_t.data import measures
from stylegan_t.data.images import decode, encode, pillow_warnings, square, to_signed
from stylegan_t.data.scores import open_scores
from stylegan_t.data.shards import Shards, pack, shard_name, write_manifest, write_shard
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.files import sha256
from stylegan_t.models.encoder_files import identity, load_clip
from stylegan_t.models.plugins import load_picture_classifier
from stylegan_t.stages import measure, score
from stylegan_t.stages.gpus import take_place
from stylegan_t.stages.measure import Measurer, Networks, squash
from stylegan_t.stages.parts import parse_parts
from stylegan_t.stages.passes import forward_passes
from stylegan_t.stages.workspace import Workspace
from tests.stages.data_world import config, contents, put_clip

SCORE = {"batch_size": 3, "sharpness_px": 24}
BROKEN, TWIN, ORIGINAL = 3, 6, 5
CAPTIONS = ["a cat", "two cats asleep on a red sofa", "une photo de deux chats qui dorment sur le canapé"]


def settings(**changes):
    return config(score={**SCORE, **changes})


@pytest.fixture
def workspace(tmp_path):
    """Eight samples of several sizes and one to three captions in two shards; one is broken, one another's twin."""
    workspace, rng = Workspace(tmp_path), np.random.default_rng(0)
    samples = []
    for n in range(8):
        data = encode(rng.integers(0, 256, (20 + n, 30, 3), dtype=np.uint8))
        metadata = {"url": f"http://example.com/{n}"} if n % 2 else {"url": None} if n else {"file_name": "0"}
        samples.append(pack(f"k{n}", "png", data if n != BROKEN else data[:100], CAPTIONS[: n % 3 + 1], metadata))
    twin = encode(decode(samples[ORIGINAL].image), "webp")
    samples[TWIN] = pack("twin", "webp", twin, ["the same pixels"], {})
    entries = [write_shard(workspace.raw / shard_name(n), samples[5 * n : 5 * n + 5]) for n in range(2)]
    write_manifest(workspace.raw, "raw", entries)
    put_clip(workspace)
    return workspace


def scores(workspace):
    return open_scores(workspace.scores, sha256(workspace.raw / "manifest.json"), identity(workspace.players / "clip"))


def rows(workspace):
    found = scores(workspace)
    names = [*measure_columns(), *(f"plugin_{name}" for name in found.plugins)]
    return found.read(names).to_pylist()


def measure_columns():
    from stylegan_t.data.scores import score_schema

    return score_schema(1, []).names


def test_every_sample_has_a_row_with_what_a_direct_measurement_gives(workspace):
    score.run(settings(), workspace, "cpu")
    raw, clip, languages = Shards(workspace.raw), load_clip(workspace.players / "clip"), measures.Languages(0.5)
    measured = rows(workspace)
    assert [row["key"] for row in measured] == list(raw.keys)
    for number, (row, sample) in enumerate(zip(measured, raw, strict=True)):
        text = clip.encode_text(sample.captions)
        assert (row["captions"], row["num_bytes"]) == (sample.captions, len(sample.image))
        assert row["url"] == sample.metadata.get("url")
        assert row["caption_words"] == [len(caption.split()) for caption in sample.captions]
        assert row["language"] == [languages(caption) for caption in sample.captions]
        np.testing.assert_allclose(row["text_embedding"], text, atol=1e-3)
        if number == BROKEN:
            continue
        picture = decode(sample.image)
        assert (row["width"], row["height"], row["decodable"]) == (30, picture.shape[0], True)
        assert row["pixel_sha256"] == measures.pixel_hash(picture)
        grey = measures.luminance(picture)
        assert row["perceptual_hash"] == measures.perceptual_hashes(measures.hash_input(grey)[None])[0]
        assert row["sharpness"] == pytest.approx(measures.sharpness(grey, 24), rel=1e-6)
        image = clip.encode_image(to_signed(torch.from_numpy(square(picture, 16)).permute(2, 0, 1)[None]))[0]
        np.testing.assert_allclose(row["image_embedding"], image, atol=1e-3)
        assert row["clip_score"] == pytest.approx((text @ image).tolist(), abs=1e-5)
    assert {language for row in measured for language in row["language"]} == {"en", "fr", "und"}


def test_a_picture_that_does_not_decode_is_a_row_not_a_crash(workspace):
    score.run(settings(), workspace, "cpu")
    row = rows(workspace)[BROKEN]
    assert (row["decodable"], row["width"], row["height"], row["perceptual_hash"]) == (False, 0, 0, 0)
    assert row["pixel_sha256"] == bytes(32) and np.isnan(row["sharpness"])
    assert np.isnan(row["clip_score"]).all() and not any(row["image_embedding"]) and np.any(row["text_embedding"])


def test_the_hash_is_of_pixels_not_of_files(workspace):
    score.run(settings(), workspace, "cpu")
    hashes = [row["pixel_sha256"] for row in rows(workspace)]
    assert hashes[ORIGINAL] == hashes[TWIN] and len(set(hashes)) == 7


def test_each_shard_has_its_table_and_the_manifest_says_whose_they_are(workspace):
    score.run(settings(), workspace, "cpu")
    assert sorted(contents(workspace.scores)) == ["00000.parquet", "00001.parquet", "manifest.json"]
    found = scores(workspace)
    assert [found.read(["key"], shard)["key"].to_pylist() for shard in (0, 1)] == [
        list(Shards(workspace.raw).keys)[a:b] for a, b in ((0, 5), (5, 8))
    ]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_number_of_threads_changes_no_byte(workspace, num_threads):
    score.run(settings(), workspace, "cpu")
    expected, before = contents(workspace.scores), torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        score.run(settings(), workspace, "cpu")
    finally:
        torch.set_num_threads(before)
    assert contents(workspace.scores) == expected


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(workspace):
    changes = {"plugins": [put_head(workspace)], "evaluation_sets": {"own": put_pictures(workspace)}}
    score.run(settings(**changes), workspace, "cpu")
    expected = contents(workspace.scores)
    score.run(settings(**changes, engine={"kind": "processes", "num_workers": 2}), workspace, "cpu")
    assert contents(workspace.scores) == expected


def test_parts_made_elsewhere_are_not_made_again(workspace, monkeypatch):
    score.run(settings(), workspace, "cpu")
    expected, batches = contents(workspace.scores), spied(monkeypatch)
    score.run(settings(), workspace, "cpu", parse_parts("1"))
    assert batches == [["k5", "twin", "k7"]]
    score.run(settings(), workspace, "cpu")
    assert batches[1:] == [["k0", "k1", "k2"], ["k3", "k4"]] and contents(workspace.scores) == expected


def spied(monkeypatch, stop_at: int | None = None) -> list[list[str]]:
    """The keys of each batch that is measured from now on; the batch of a number is where the process is killed."""
    batches, original = [], measure.measure

    def spy(batch, *rest):
        batches.append([sample.key for sample in batch.samples])
        if len(batches) == stop_at:
            raise KeyboardInterrupt
        return original(batch, *rest)

    monkeypatch.setattr(measure, "measure", spy)
    return batches


def test_a_killed_run_goes_on_after_its_last_whole_table_with_the_same_result(workspace, monkeypatch):
    score.run(settings(), workspace, "cpu")
    unbroken, batches = contents(workspace.scores), spied(monkeypatch, stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        score.run(settings(), workspace, "cpu")
    score.run(settings(), workspace, "cpu")
    assert batches[3:] == [["k5", "twin", "k7"]]
    assert contents(workspace.scores) == unbroken


@pytest.mark.parametrize(
    "change", [{"batch_size": 2}, {"sharpness_px": 16}, {"min_language_confidence": 0.9}], ids=lambda c: next(iter(c))
)
def test_what_changes_a_table_starts_anew(workspace, monkeypatch, change):
    batches = spied(monkeypatch, stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        score.run(settings(), workspace, "cpu")
    score.run(settings(**change), workspace, "cpu")
    assert batches[3][0] == "k0"


def test_settings_do_what_they_say(workspace):
    score.run(settings(), workspace, "cpu")
    usual = rows(workspace)
    score.run(settings(sharpness_px=12, min_language_confidence=0.0), workspace, "cpu")
    changed = rows(workspace)
    grey = measures.luminance(decode(Shards(workspace.raw)[0].image))
    assert changed[0]["sharpness"] == pytest.approx(measures.sharpness(grey, 12), rel=1e-6) != usual[0]["sharpness"]
    assert (usual[0]["language"], "und" in changed[0]["language"]) == (["und"], False)


def test_the_next_batch_is_read_while_the_networks_look_and_no_more_than_that(workspace, monkeypatch):
    raw, see, begun, reads = Shards(workspace.raw), measure.see, [], 0
    next_is_read = threading.Event()

    def samples():
        nonlocal reads
        for number in [*range(8)] * 2:
            reads += 1
            if number == 3:
                next_is_read.set()
            yield raw[number]

    def waits_for_the_next(*args):
        assert next_is_read.wait(timeout=20), "nobody reads ahead"
        time.sleep(0.02)
        begun.append(reads)
        return see(*args)

    monkeypatch.setattr(measure, "see", waits_for_the_next)
    networks, languages = Networks(load_clip(workspace.players / "clip")), measures.Languages(0.5)
    with pillow_warnings(), forward_passes(torch.device("cpu")) as forward:
        measurer = Measurer(networks, forward, batch_size=3, sharpness_px=16, languages=languages, num_threads=2)
        assert sum(len(table) for table in measurer.pairs(samples())) == 16
    assert all(read <= 3 * (batch + 2) for batch, read in enumerate(begun)), "memory would grow with the shard"


def test_a_decompression_bomb_is_undecodable_in_every_thread(workspace, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 30)  # Pillow warns of these, and raises for twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as where nobody makes errors of them
        for _ in range(5):
            score.run(settings(), workspace, "cpu")
            assert [row["decodable"] for row in rows(workspace)] == [n < 5 and n != BROKEN for n in range(8)]


def put_head(workspace, seed=0, width=8, **changes):
    torch.manual_seed(seed)
    linear = nn.Linear(width, 2)
    save_file(linear.state_dict(), workspace.root / "head.safetensors")
    return {
        "kind": "embedding_head", "name": "aesthetic", "weights": "head.safetensors", "sha256": None,
        "activation": "none", "output": "sigmoid", "index": 1, **changes,
    }  # fmt: skip


def put_classifier(workspace):
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=2)
    save_file(net.state_dict(), workspace.root / "watermark.safetensors")
    return {
        "kind": "timm_classifier", "name": "watermark", "weights": "watermark.safetensors", "sha256": None,
        "model": "test_resnet", "image_px": 40, "activation": "none", "output": "softmax", "index": 0,
    }  # fmt: skip


def test_plugins_give_columns_of_what_their_networks_say(workspace):
    score.run(settings(plugins=[put_head(workspace), put_classifier(workspace)]), workspace, "cpu")
    torch.manual_seed(0)
    head, clip = nn.Linear(8, 2), load_clip(workspace.players / "clip")
    watermark = load_picture_classifier(
        workspace.root / "watermark.safetensors",
        model="test_resnet", image_px=40, activation="none", output="softmax", index=0,
    )  # fmt: skip
    assert scores(workspace).plugins == ["aesthetic", "watermark"]
    for number, (row, sample) in enumerate(zip(rows(workspace), Shards(workspace.raw), strict=True)):
        if number == BROKEN:
            assert np.isnan(row["plugin_aesthetic"]) and np.isnan(row["plugin_watermark"])
            continue
        picture = decode(sample.image)
        signed = [
            to_signed(torch.from_numpy(seen).permute(2, 0, 1)[None])
            for seen in (square(picture, 16), squash(picture, 40))
        ]
        expected = torch.sigmoid(head(clip.encode_image(signed[0])))[0, 1].item()
        assert row["plugin_aesthetic"] == pytest.approx(expected, abs=1e-5)
        assert row["plugin_watermark"] == pytest.approx(watermark(signed[1]).item(), abs=1e-5)


def test_other_weights_of_a_plugin_score_anew_and_the_same_elsewhere_do_not(workspace, monkeypatch):
    plugin, file = put_head(workspace), workspace.root / "head.safetensors"
    batches = spied(monkeypatch, stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        score.run(settings(plugins=[plugin]), workspace, "cpu")
    moved = file.rename(workspace.root / "moved.safetensors")
    score.run(settings(plugins=[put_head(workspace, seed=1)]), workspace, "cpu")
    assert batches[3][0] == "k0"
    score.run(settings(plugins=[{**plugin, "weights": "moved.safetensors"}]), workspace, "cpu")
    assert batches[6:] == [["k5", "twin", "k7"]]
    assert scores(workspace).manifest["plugin_weights"] == {"aesthetic": sha256(moved)}


def test_a_plugin_without_its_weights_or_with_others_is_named_before_any_work(workspace, monkeypatch):
    monkeypatch.setattr(measure, "measure", None)
    plugin = put_head(workspace)
    with pytest.raises(DataError, match=r"gone\.safetensors: missing; give a safetensors file"):
        score.run(settings(plugins=[{**plugin, "weights": "gone.safetensors"}]), workspace, "cpu")
    with pytest.raises(DataError, match=r"head\.safetensors: its sha256 is .* that of plug-in aesthetic .* 000"):
        score.run(settings(plugins=[{**plugin, "sha256": "0" * 64}]), workspace, "cpu")


def test_a_plugin_with_the_hash_that_it_should_have_runs(workspace):
    plugin = put_head(workspace)
    score.run(settings(plugins=[{**plugin, "sha256": sha256(workspace.root / "head.safetensors")}]), workspace, "cpu")
    assert "plugin_aesthetic" in rows(workspace)[0]


def test_a_head_for_another_clip_is_an_error(workspace):
    with pytest.raises(DataError, match="reads embeddings of 768 numbers"):
        score.run(settings(plugins=[put_head(workspace, width=768)]), workspace, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "NSFW score"}, "should match pattern"),
        ({"index": -1}, "greater than or equal to 0"),
        ({"activation": "tanh"}, "'none', 'relu' or 'gelu'"),
        ({"sha256": "abc"}, "should match pattern"),
    ],
)
def test_wrong_settings_of_a_plugin_are_named(workspace, change, message):
    with pytest.raises(SettingsError, match=rf"score\.plugins.*{message}"):
        settings(plugins=[put_head(workspace, **change)])


def test_two_plugins_of_one_name_are_refused(workspace):
    with pytest.raises(SettingsError, match=r"score\.plugins.*given twice: aesthetic"):
        settings(plugins=[put_head(workspace), put_head(workspace)])


def put_pictures(workspace):
    """An evaluation set: two pictures of the raw ones, in other formats or sizes, and a file that is none."""
    folder = workspace.root / "coco"
    folder.mkdir()
    raw = Shards(workspace.raw)
    (folder / "a.webp").write_bytes(encode(decode(raw[0].image), "webp"))
    (folder / "b.png").write_bytes(encode(square(decode(raw[7].image), 16)))
    (folder / "captions.json").write_text("[]")
    return "coco"


def test_an_evaluation_set_has_a_table_to_compare_with(workspace):
    score.run(settings(evaluation_sets={"own": put_pictures(workspace)}), workspace, "cpu")
    found = scores(workspace)
    assert found.evaluation_sets == ["own"]
    held_out, raw = found.read_evaluation("own").to_pylist(), rows(workspace)
    assert [row["key"] for row in held_out] == ["a.webp", "b.png"]
    for name in ("pixel_sha256", "perceptual_hash", "image_embedding"):
        assert held_out[0][name] == raw[0][name]
    assert held_out[1]["pixel_sha256"] != raw[7]["pixel_sha256"]
    np.testing.assert_allclose(held_out[1]["image_embedding"], raw[7]["image_embedding"], atol=2e-3)


def test_another_picture_in_an_evaluation_set_scores_anew(workspace, monkeypatch):
    path, batches = put_pictures(workspace), spied(monkeypatch, stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        score.run(settings(evaluation_sets={"own": path}), workspace, "cpu")
    (workspace.root / "coco" / "b.png").unlink()
    score.run(settings(evaluation_sets={"own": path}), workspace, "cpu")
    assert batches[3][0] == "k0" and len(scores(workspace).read_evaluation("own")) == 1


def test_evaluation_sets_keep_their_names_when_their_order_changes_between_two_runs(workspace):
    (workspace.root / "other").mkdir()
    (workspace.root / "other" / "c.png").write_bytes(encode(np.zeros((9, 9, 3), np.uint8)))
    sets = {"own": put_pictures(workspace), "a": "other"}
    score.run(settings(evaluation_sets=sets), workspace, "cpu", parse_parts("2"))
    score.run(settings(evaluation_sets=dict(reversed(sets.items()))), workspace, "cpu")
    assert scores(workspace).read_evaluation("a")["key"].to_pylist() == ["c.png"]


def test_an_evaluation_set_without_a_picture_is_named(workspace):
    (workspace.root / "notes").mkdir()
    (workspace.root / "notes" / "read.me").write_text("no picture")
    with pytest.raises(DataError, match=r"notes: none of 1 files is a picture \(score\.evaluation_sets\)"):
        score.run(settings(evaluation_sets={"own": "notes"}), workspace, "cpu")


def test_networks_are_loaded_once_for_all_shards_and_sets(workspace, monkeypatch):
    loaded, load = [], score.load_clip
    monkeypatch.setattr(score, "load_clip", lambda folder: (loaded.append(folder), load(folder))[1])
    score.run(settings(evaluation_sets={"own": put_pictures(workspace)}), workspace, "cpu")
    assert len(loaded) == 1


def test_a_truncated_shard_is_named(workspace):
    shard = workspace.raw / shard_name(1)
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"00001\.tar: damaged.*stylegan-t run download"):
        score.run(settings(), workspace, "cpu")


def test_without_raw_shards_it_says_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json: missing; `dvc repro`"):
        score.run(settings(), Workspace(tmp_path), "cpu")


def test_processes_take_places_of_their_own_which_are_free_again_when_they_end(tmp_path):
    fork, places = multiprocessing.get_context("fork"), []

    def child(connection, leave):
        connection.send(take_place(tmp_path))
        leave.wait()

    def start():
        ours, theirs = fork.Pipe()
        leave = fork.Event()
        process = fork.Process(target=child, args=[theirs, leave])
        process.start()
        places.append(ours.recv())
        return process, leave

    first, second = start(), start()
    first[1].set()
    first[0].join()
    third = start()
    for process, leave in (second, third):
        leave.set()
        process.join()
    assert places == [0, 1, 0]
