"""The evaluation stage on random networks: every figure is there, finite, and what its name says."""

import json
import math

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image

from stylegan_t.data.images import decode_batch, to_signed
from stylegan_t.data.shards import Shards
from stylegan_t.evaluation.fakes import Painted
from stylegan_t.evaluation.pictures import captions_sha256, choose_captions
from stylegan_t.generate import generate
from stylegan_t.metrics.moments import Moments, frechet_distance
from stylegan_t.models.bundle import load_bundle
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.randomness import image_seeds
from stylegan_t.records import Neighbours, SampleSheet, read_record
from stylegan_t.sampling import embed, sample
from stylegan_t.stages import evaluate, reference_statistics
from tests.evaluation.outputs import copy_of, evaluations, metrics, output, table
from tests.evaluation.world import ABSENT, make_world, micro_config, small_exams

STAGES = ["train_generator", "finetune_text_encoder", "train_super_resolution"]
FD, CLIP = "fd_small_clip_40_shapes32", "clip_score_cosine_small_clip_40_shapes32"


@pytest.fixture(autouse=True, scope="module")
def quick():
    with small_exams():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    workspace = make_world(tmp_path_factory.mktemp("world"))
    reference_statistics.run(micro_config(), workspace, "cpu")
    return workspace


@pytest.fixture(scope="module")
def evaluated(world):
    evaluate.run(micro_config(), world, "cpu")
    return world


@pytest.fixture(scope="module")
def repeated(evaluated, tmp_path_factory):
    """The same under two sets of latents."""
    workspace = copy_of(evaluated, tmp_path_factory.mktemp("repeated"))
    evaluate.run(micro_config(num_seeds=2), workspace, "cpu")
    return workspace


def numbers(value):
    if isinstance(value, dict):
        return [n for each in value.values() for n in numbers(each)]
    return [value] if isinstance(value, int | float) else []


def real_images(workspace):
    return to_signed(decode_batch([sample.image for sample in Shards(workspace.prepared / "heldout")]))


# ---- what the figures are ----------------------------------------------------------------------------------------


def test_the_headline_figures_are_what_their_names_say(evaluated):
    record = next(e for e in evaluations(evaluated) if e.subject == STAGES[2] and e.count == 40)
    captions = choose_captions([[s.caption] for s in Shards(evaluated.prepared / "heldout")], "all", 40, seed=0)
    assert record.captions_sha256 == captions_sha256(captions)
    bundle = load_bundle(evaluated.artifacts(STAGES[2]))
    images = sample(bundle.generator, embed(bundle.text_encoder, captions), image_seeds(0, "evaluate 0", 0, 40))
    judge = load_clip(evaluated.judges / "small_clip")
    fakes, reals = judge.encode_image(to_signed(images)), judge.encode_image(real_images(evaluated))
    expected = frechet_distance(Moments.of(fakes), Moments.of(reals))
    assert metrics(evaluated)[FD] == pytest.approx(expected, rel=1e-3)
    cosines = F.cosine_similarity(fakes, judge.encode_text(captions))
    assert metrics(evaluated)[CLIP] == pytest.approx(cosines.mean().item(), abs=1e-4)


def test_every_figure_is_finite(evaluated):
    found = numbers(metrics(evaluated))
    assert len(found) > 100
    assert all(map(math.isfinite, found))


def test_every_record_says_what_was_measured_and_how(evaluated):
    found = evaluations(evaluated)
    assert len(found) == 3 + 3 * 2 + 1, "the stages, each over psi, and an untrained model"
    manifest = Shards(evaluated.prepared / "heldout").manifest
    for each in found:
        assert (each.protocol, each.reference, each.reference_count) == ("few.yaml", "shapes", manifest["num_samples"])
        assert each.weights == ("untrained" if each.subject == "untrained" else "ema")
        assert each.seeds == f"images 0 to {each.count - 1} of 'evaluate 0', seed 0"
        for m in each.measurements:
            assert m.absent or (len(m.weights_sha256) == 64 and m.resize == "area, to 32 px")
            few = m.metric == "frechet" and each.count < 40
            assert m.absent or few or m.low <= m.value <= m.high
            assert m.seconds is None, "differs from run to run"
    assert len({each.reference_sha256 for each in found}) == 1
    digests = {(each.subject, each.subject_sha256) for each in found}
    assert len(digests) == len({digest for _, digest in digests}) == 4, "one of each model, whatever psi"


def test_every_stage_has_its_row_at_its_own_resolution(evaluated):
    rows = table(evaluated, "stages.csv")
    assert [(row["stage"], row["resolution"]) for row in rows] == list(zip(STAGES, ("16", "16", "32"), strict=True))
    assert float(rows[2]["clip_score"]) == pytest.approx(metrics(evaluated)[CLIP], abs=1e-4)
    assert {"oracle_shape", "oracle_heldout_shape", "none_rate", "position_spread_relative"} <= set(rows[0])
    assert metrics(evaluated)["stages"][STAGES[0]]["fd_small_clip_40_shapes16"] == pytest.approx(
        float(rows[0]["frechet_distance"]), rel=1e-5
    )


def test_two_stages_with_the_same_weights_get_the_same_figures(evaluated):
    first, second, _ = table(evaluated, "stages.csv")
    assert {k: v for k, v in first.items() if k != "stage"} == {k: v for k, v in second.items() if k != "stage"}
    assert metrics(evaluated)["stage_two_against_one"] == {
        "clip_score_gain": 0, "frechet_distance_ratio": 1, "mean_accuracy_gain": 0
    }  # fmt: skip


def test_every_stage_is_swept_and_psi_matters(evaluated):
    rows = table(evaluated, "psi_sweep.csv")
    assert [(row["stage"], row["psi"], row["num_images"]) for row in rows] == [
        (stage, psi, "30") for stage in STAGES for psi in ("1", "0.5")
    ]
    for whole, truncated in zip(rows[::2], rows[1::2], strict=True):
        assert whole["frechet_distance"] != truncated["frechet_distance"]
    assert float(rows[5]["clip_score"]) == pytest.approx(
        metrics(evaluated)["psi"]["0.5"]["clip_score_cosine_small_clip_30_shapes32"], rel=1e-5
    )


def test_wrong_captions_change_the_clip_score_and_the_controls_are_recorded(evaluated):
    found = metrics(evaluated)
    assert found[CLIP] != found[CLIP.replace("clip_score", "clip_score_of_wrong_captions")]
    untrained, final = (found[k] for k in ("untrained", "psi"))
    ratio = final["1"]["fd_small_clip_30_shapes32"] / untrained["fd_small_clip_30_shapes32"]
    assert untrained["frechet_distance_of_final_relative"] == pytest.approx(ratio)
    assert found["reals"]["32px"]["clip_score_cosine_small_clip_60_shapes32"] != found[CLIP]
    assert found["protocol"] == {
        "name": "few.yaml", "num_images": 40, "num_psi_images": 30, "num_reals": 60, "num_seeds": 1
    }  # fmt: skip


def test_without_psi_1_in_the_sweep_the_control_is_still_compared_with_the_final_model(evaluated, tmp_path):
    workspace = copy_of(evaluated, tmp_path)
    evaluate.run(micro_config(psi=[0.5]), workspace, "cpu")
    assert metrics(workspace)["untrained"] == metrics(evaluated)["untrained"]
    assert list(metrics(workspace)["psi"]) == ["0.5"]


def test_the_best_of_several_pictures_is_no_worse_than_all_of_them(evaluated):
    found = metrics(evaluated)
    bundle = load_bundle(evaluated.artifacts(STAGES[2]))
    captions = choose_captions([[s.caption] for s in Shards(evaluated.prepared / "heldout")], "all", 40, seed=0)
    prompts = [caption for caption in captions[:4] for _ in range(2)]
    images = sample(bundle.generator, embed(bundle.text_encoder, prompts), image_seeds(0, "best of", 0, 8))
    judge = load_clip(evaluated.judges / "small_clip")
    pairs = F.cosine_similarity(judge.encode_image(to_signed(images)), judge.encode_text(prompts)).unflatten(0, (4, 2))
    best = found["clip_score_best_of_2_cosine_small_clip_4_shapes32"]
    assert best == pytest.approx(pairs.amax(dim=1).mean().item(), abs=1e-4)


def test_repetitions_are_summed_up_by_median_and_range(evaluated, repeated):
    values = [float(r["clip_score"]) for r in table(repeated, "stages.csv") if r["stage"] == STAGES[2]]
    assert [r["repetition"] for r in table(repeated, "stages.csv")] == ["0", "1"] * 3
    assert values[0] == pytest.approx(metrics(evaluated)[CLIP], abs=1e-5)
    assert metrics(repeated)[CLIP] == pytest.approx(sum(values) / 2, abs=1e-5)
    assert metrics(repeated)[f"{CLIP}_range"] == pytest.approx(abs(values[1] - values[0]), abs=2e-6) != 0
    said = {e.seeds for e in evaluations(repeated) if e.count == 40}
    assert said == {f"images 0 to 39 of 'evaluate {repetition}', seed 0" for repetition in (0, 1)}


# ---- judges ------------------------------------------------------------------------------------------------------


def test_an_absent_judge_leaves_measurements_with_its_reason_and_no_number(evaluated):
    for each in evaluations(evaluated):
        absent = [m for m in each.measurements if m.absent]
        at = f"{each.count}_shapes{each.px}_clean"
        assert [(m.name, m.value, m.absent) for m in absent] == [
            (f"fid{at}", None, ABSENT), (f"kid{at}", None, ABSENT)
        ]  # fmt: skip
    assert not [name for name in metrics(evaluated) if name.startswith(("fid", "kid"))]
    assert {row["frechet_inception_clean"] for row in table(evaluated, "psi_sweep.csv")} == {""}


def test_a_judge_that_took_part_in_the_training_is_named_in_every_figure_it_gives(evaluated):
    of_player = {name for name in metrics(evaluated) if "_player_" in name}
    assert of_player == {
        f"{name}_player_40_shapes32_seen_in_training"
        for name in ("fd", "clip_score_cosine", "clip_score_of_wrong_captions_cosine")
    }
    measured = [m for each in evaluations(evaluated) for m in each.measurements if not m.absent]
    assert {(m.extractor, m.in_training) for m in measured} == {("small_clip", False), ("player", True)}
    assert all(m.name.endswith("_seen_in_training") == bool(m.in_training) for m in measured)


# ---- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "stages"), [("quality_against_agreement", STAGES), ("text_encoder", STAGES[:2])])
def test_the_curves_hold_the_numbers_of_the_table(evaluated, name, stages):
    with Image.open(output(evaluated, f"plots/{name}.png")) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20, "something is drawn"
    chart = json.loads(output(evaluated, f"vega/{name}.json").read_text())
    axes = chart["layer"][0]["encoding"]
    assert axes["x"]["title"] == "CLIP score by small_clip", "not by the player"
    assert axes["y"]["title"] == "Fréchet distance by small_clip"
    drawn = chart["data"]["values"]
    rows = [row for row in table(evaluated, "psi_sweep.csv") if row["stage"] in stages]
    columns = ("psi", "clip_score", "frechet_distance")
    assert [[point[c] for c in columns] for point in drawn] == [
        [pytest.approx(float(row[c]), rel=1e-5) for c in columns] for row in rows
    ]
    assert len({point["stage"] for point in drawn}) == len(stages)


def test_a_tile_of_the_sample_grid_is_what_generate_paints(evaluated, tmp_path):
    sheet = read_record(output(evaluated, "samples.json"), SampleSheet)
    assert [g.file for g in sheet.grids] == ["samples/psi_0.50.webp", "samples/psi_1.00.webp"]
    assert len(sheet.prompts) == 3
    row, column = 2, 5
    file, _ = generate(
        evaluated.artifacts(STAGES[2]), [sheet.prompts[row]], [sheet.seeds[column]],
        psi=1.0, out=tmp_path, device="cpu", batch_size=1,
    )  # fmt: skip
    with Image.open(file) as tile:
        assert pixels_differ(tile_at(output(evaluated, sheet.grids[-1].file), column, row), tile) <= 1


def tile_at(file, column, row):
    with Image.open(file) as sheet:
        return sheet.convert("RGB").crop((column * 64, row * 64, column * 64 + 64, row * 64 + 64))


def pixels_differ(tile, picture):
    enlarged = picture.convert("RGB").resize(tile.size, Image.Resampling.NEAREST)
    return np.abs(np.asarray(tile).astype(int) - np.asarray(enlarged)).max()


def test_a_training_picture_among_the_samples_is_found_with_its_caption(evaluated, tmp_path, monkeypatch):
    workspace = copy_of(evaluated, tmp_path)
    train = Shards(workspace.prepared / "train")
    first, second = train[7], train[22]
    planted = dict(zip((3, 6), decode_batch([first.image, second.image]), strict=True))
    painted = Painted.read

    def two_are_copies(self, numbers):
        pictures = painted(self, numbers)
        if self.model.name != STAGES[2] or self.psi != 1:
            return pictures
        return [planted.get(number, picture) for number, picture in zip(numbers, pictures, strict=True)]

    monkeypatch.setattr(Painted, "read", two_are_copies)
    settings = {"num_samples": 10, "num_shown": 3, "num_neighbours": 2, "max_training_images": 40}
    evaluate.run(micro_config(copies=settings), workspace, "cpu")
    found = read_record(output(workspace, "nearest.json"), Neighbours)
    assert {(row[0].key, row[0].caption) for row in found.neighbours[:2]} == {
        (each.key, each.caption) for each in (first, second)
    }
    assert [row[0].cosine for row in found.neighbours[:2]] == pytest.approx([1, 1], abs=1e-5)
    assert found.neighbours[2][0].cosine < 0.999
    assert found.closer_than_heldout == 2 / 10
    assert (found.num_samples, found.num_training, found.extractor, found.in_training) == (10, 40, "small_clip", False)
    sheet = output(workspace, found.sheet)
    with Image.open(sheet) as picture:
        assert picture.size == (3 * found.tile_px, 3 * found.tile_px)
    assert pixels_differ(tile_at(sheet, 0, 0), tile_at(sheet, 1, 0)) == 0, "the sample and its nearest"


def test_a_model_that_copies_nothing_comes_no_nearer_than_held_out_pictures(evaluated):
    found = read_record(output(evaluated, "nearest.json"), Neighbours)
    judge = load_clip(evaluated.judges / "small_clip")
    train = Shards(evaluated.prepared / "train")
    numbers = np.linspace(0, 39, 30).round().astype(int).tolist()
    seen = judge.encode_image(to_signed(decode_batch([train[i].image for i in numbers])))
    nearest = (judge.encode_image(real_images(evaluated)) @ seen.T).amax(dim=1)
    assert found.median_of_heldout == pytest.approx(nearest.median().item(), abs=1e-5)
    assert found.median_of_samples < found.median_of_heldout
    assert found.closer_than_heldout == 0
    shown = [row[0].cosine for row in found.neighbours]
    assert shown == sorted(shown, reverse=True)
    assert all(neighbour.key in {train[i].key for i in numbers} for row in found.neighbours for neighbour in row)


def test_speed_lies_beside_the_outputs(evaluated):
    speed = json.loads((evaluated.root / "artifacts" / "evaluate_speed.json").read_text())
    for stage in STAGES:
        assert speed[stage]["images_per_second"] > 0
        assert 0 < speed[stage]["latency_p50_seconds"] <= speed[stage]["latency_p95_seconds"]
    assert "threads" in speed["device"]
    assert speed["seconds"]["painting and looking"] > 0
    latents = "of 'evaluate 0', seed 0"
    assert speed["seconds"][f"train_super_resolution, psi 1, images 0 to 39 {latents}, {FD}"] > 0
    assert speed["seconds"][f"train_super_resolution, psi 0.5, images 0 to 29 {latents}, {FD.replace('40', '30')}"] > 0
