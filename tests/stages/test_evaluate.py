"""The evaluation stage on random networks: every figure is there, finite, repeatable, and what its name says."""

import csv
import json
import math
import shutil

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from stylegan_t.data.images import to_signed
from stylegan_t.data.shards import Shards
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.evaluation.reference import load_statistics
from stylegan_t.generate import generate
from stylegan_t.metrics import Moments, clip_score, frechet_distance
from stylegan_t.models.bundle import load_bundle
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.randomness import image_seeds
from stylegan_t.records import SampleSheet, read_record
from stylegan_t.sampling import embed, sample
from stylegan_t.stages import evaluate, reference_statistics
from tests.evaluation.world import folder_config, make_world, micro_config, save_tiny_clip

FD, CLIP = "frechet_distance_judge_clip_40", "clip_score_judge"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    workspace = make_world(tmp_path_factory.mktemp("world"))
    reference_statistics.run(micro_config(), workspace, "cpu")
    return workspace


@pytest.fixture(scope="module")
def evaluated(world):
    evaluate.run(micro_config(), world, "cpu")
    return world


def copy_of(world, folder):
    shutil.copytree(world.root, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("evaluate"))
    return type(world)(folder)


def metrics(workspace):
    return json.loads((workspace.artifacts("evaluate") / "metrics.json").read_text())


def table(workspace, name):
    with (workspace.artifacts("evaluate") / name).open() as file:
        return list(csv.DictReader(file))


def numbers(value):
    if isinstance(value, dict):
        return [n for each in value.values() for n in numbers(each)]
    return [value] if isinstance(value, int | float) else []


def outputs(workspace):
    folder = workspace.artifacts("evaluate")
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_the_headline_figures_are_what_their_names_say(evaluated):
    bundle = load_bundle(evaluated.artifacts("train_super_resolution"))
    captions = [s.caption for s in Shards(evaluated.prepared / "heldout")][:40]
    images = sample(bundle.generator, embed(bundle.text_encoder, captions), image_seeds(0, "evaluate 0", 0, 40))
    judge = load_clip(evaluated.judges / "clip")
    embeddings = judge.encode_image(to_signed(images))
    references, _ = load_statistics(evaluated.artifacts("reference_statistics"), {}, [32])
    expected = frechet_distance(Moments.of(embeddings), references[32].moments)
    assert metrics(evaluated)[FD] == pytest.approx(expected, rel=1e-3)
    assert metrics(evaluated)[CLIP] == pytest.approx(clip_score(embeddings, judge.encode_text(captions)), abs=1e-4)


def test_every_figure_is_finite(evaluated):
    found = numbers(metrics(evaluated))
    assert len(found) > 50
    assert all(map(math.isfinite, found))


def test_every_stage_has_its_row_at_its_own_resolution(evaluated):
    rows = table(evaluated, "stages.csv")
    assert [(row["stage"], row["resolution"]) for row in rows] == [
        ("train_generator", "16"), ("finetune_text_encoder", "16"), ("train_super_resolution", "32")
    ]  # fmt: skip
    assert float(rows[2]["clip_score"]) == pytest.approx(metrics(evaluated)[CLIP], abs=1e-4)
    assert {"oracle_shape", "oracle_heldout_shape", "none_rate", "position_spread_relative"} <= set(rows[0])


def test_two_stages_with_the_same_weights_get_the_same_figures(evaluated):
    first, second, _ = table(evaluated, "stages.csv")
    assert {k: v for k, v in first.items() if k != "stage"} == {k: v for k, v in second.items() if k != "stage"}
    assert metrics(evaluated)["stage_two_against_one"] == {
        "clip_score_gain": 0, "frechet_distance_ratio": 1, "mean_accuracy_gain": 0
    }  # fmt: skip


def test_the_sweep_has_a_row_per_psi_and_psi_matters(evaluated):
    rows = table(evaluated, "psi_sweep.csv")
    assert [(row["stage"], row["psi"], row["num_images"]) for row in rows] == [
        ("train_super_resolution", "1", "30"), ("train_super_resolution", "0.5", "30")
    ]  # fmt: skip
    assert rows[0]["frechet_distance"] != rows[1]["frechet_distance"]


def test_shuffled_captions_change_the_clip_score(evaluated):
    assert metrics(evaluated)[CLIP] != metrics(evaluated)[f"{CLIP}_shuffled_captions"]


def test_controls_and_the_protocol_are_recorded(evaluated):
    found = metrics(evaluated)
    assert found["untrained"]["frechet_distance_judge_clip_30"] > 0
    assert found["reals"]["32px"]["clip_score_judge"] != found[CLIP]
    protocol = found["protocol"]
    assert (protocol["num_images"], protocol["num_reals"], protocol["num_seeds"]) == (40, 60, 1)
    assert not protocol["covariance_is_singular"]


def test_another_run_writes_the_same_bytes_and_leaves_no_grid_of_an_earlier_one(evaluated):
    before = outputs(evaluated)
    assert {"metrics.json", "stages.csv", "psi_sweep.csv", "samples.json"} < set(before)
    (evaluated.artifacts("evaluate") / "samples" / "psi_0.33.webp").write_bytes(b"of settings since changed")
    evaluate.run(micro_config(), evaluated, "cpu")
    assert outputs(evaluated) == before


def test_speed_lies_beside_the_outputs(evaluated):
    speed = json.loads((evaluated.root / "artifacts" / "evaluate_speed.json").read_text())
    assert speed["train_super_resolution"]["images_per_second"] > 0
    assert speed["train_super_resolution"]["latency_seconds"] > 0


def test_a_tile_of_the_sample_grid_is_what_generate_paints(evaluated, tmp_path):
    folder = evaluated.artifacts("evaluate")
    sheet = read_record(folder / "samples.json", SampleSheet)
    assert [g.file for g in sheet.grids] == ["samples/psi_0.50.webp", "samples/psi_1.00.webp"]
    assert len(sheet.prompts) == 3
    model = evaluated.artifacts("train_super_resolution")
    row, column = 2, 5
    file, _ = generate(
        model, [sheet.prompts[row]], [sheet.seeds[column]], psi=1.0, out=tmp_path, device="cpu", batch_size=1
    )
    with Image.open(folder / sheet.grids[-1].file) as picture, Image.open(file) as tile:
        left, top = column * 64, row * 64
        enlarged = tile.resize((64, 64), Image.Resampling.NEAREST)
        pairs = zip(
            picture.convert("RGB").crop((left, top, left + 64, top + 64)).tobytes(),
            enlarged.tobytes(),
            strict=True,
        )
        assert max(abs(a - b) for a, b in pairs) <= 1


@pytest.mark.slow
def test_repetitions_are_summed_up_by_median_and_range(world, tmp_path):
    workspace = copy_of(world, tmp_path)
    evaluate.run(micro_config(num_seeds=3), workspace, "cpu")
    values = sorted(
        float(r["clip_score"]) for r in table(workspace, "stages.csv") if r["stage"] == "train_super_resolution"
    )
    assert len(set(values)) == 3
    assert metrics(workspace)[CLIP] == pytest.approx(values[1], abs=1e-4)
    assert metrics(workspace)["clip_score_range"] == pytest.approx(values[2] - values[0], abs=1e-4)


def test_a_folder_of_pictures_is_measured_without_the_oracle(world, tmp_path):
    workspace = copy_of(world, tmp_path)
    evaluate.run(folder_config(), workspace, "cpu")
    assert not [name for name in metrics(workspace) if "oracle" in name or "spread" in name]
    assert math.isfinite(metrics(workspace)[FD])


def test_a_judge_that_took_part_in_the_training_is_named_in_every_figure_it_gives(world, tmp_path):
    workspace = copy_of(world, tmp_path)
    shutil.rmtree(workspace.judges / "clip")
    shutil.copytree(workspace.players / "clip", workspace.judges / "clip")
    reference_statistics.run(micro_config(), workspace, "cpu")
    evaluate.run(micro_config(), workspace, "cpu")
    assert "clip_score_judge_seen_in_training" in metrics(workspace)
    assert "frechet_distance_judge_clip_seen_in_training_40" in metrics(workspace)
    assert CLIP not in metrics(workspace)


def test_an_unknown_prompt_set_stops_before_anything_is_written(world, tmp_path):
    workspace = copy_of(world, tmp_path)
    with pytest.raises(SettingsError, match=r"evaluate\.prompt_set = 'coco'"):
        evaluate.run(micro_config(prompt_set="coco"), workspace, "cpu")
    assert not workspace.artifacts("evaluate").exists()


def test_statistics_of_another_judge_are_refused(world, tmp_path):
    workspace = copy_of(world, tmp_path)
    save_tiny_clip(workspace.judges / "clip", seed=9)
    with pytest.raises(DataError, match="made from another judge_clip"):
        evaluate.run(micro_config(), workspace, "cpu")


def test_a_bundle_with_a_missing_tensor_is_named(world, tmp_path):
    workspace = copy_of(world, tmp_path)
    file = workspace.artifacts("finetune_text_encoder") / "generator.safetensors"
    weights = load_file(file)
    del weights["synthesis.input.weight"]
    save_file(weights, file)
    with pytest.raises(DataError, match=r"finetune_text_encoder.*synthesis\.input\.weight missing"):
        evaluate.run(micro_config(), workspace, "cpu")
