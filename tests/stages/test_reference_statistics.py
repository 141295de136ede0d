"""The real images' statistics against what the judges say of each picture."""

import json

import numpy as np
import pytest
import torch

from stylegan_t.data.images import decode_batch, to_signed
from stylegan_t.data.shards import Shards
from stylegan_t.errors import DataError
from stylegan_t.evaluation.reference import load_statistics, reduced
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.stages import reference_statistics
from tests.evaluation.world import heldout_samples, make_world, micro_config, write_heldout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_world(tmp_path_factory.mktemp("world"))
    reference_statistics.run(micro_config(), workspace, "cpu")
    return workspace


def facts(workspace):
    return json.loads((workspace.artifacts("reference_statistics") / "statistics.json").read_text())


def test_the_moments_are_those_of_the_judges_features_of_all_held_out_images(workspace):
    references, _ = load_statistics(workspace.artifacts("reference_statistics"), {}, [16, 32])
    images = to_signed(decode_batch([sample.image for sample in Shards(workspace.prepared / "heldout")]))
    features = load_clip(workspace.judges / "clip").encode_image(images).numpy()
    assert references[32].moments.count == len(images) == 60
    np.testing.assert_allclose(references[32].moments.mean, features.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(references[32].moments.covariance, np.cov(features, rowvar=False), atol=1e-6)
    np.testing.assert_allclose(references[32].features, features, atol=1e-5)
    assert not torch.allclose(references[16].moments.mean, references[32].moments.mean)


def test_reals_are_reduced_by_the_mean_of_the_area_each_pixel_covers():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    means = images.double().unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean(dim=(3, 5))
    assert (reduced(images, 16).double() - means).abs().max() <= 0.5001


def test_two_runs_write_the_same_bytes(workspace, tmp_path):
    folder = workspace.artifacts("reference_statistics")
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    reference_statistics.run(micro_config(), workspace, "cpu")
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before


def test_the_reals_own_scores_and_the_distance_of_their_halves_are_recorded(workspace):
    assert facts(workspace)["num_images"] == 60
    for px in ("16", "32"):
        reals = facts(workspace)["reals"][px]
        assert -1 <= reals["clip_score"] <= 1
        assert reals["clip_score"] != reals["clip_score_shuffled"]
        assert 0 < reals["frechet_distance_of_halves"] < 1


@pytest.mark.parametrize("name", ["heldout", "judge_clip", "judge_features"])
def test_statistics_of_other_data_or_judges_are_refused_by_name(workspace, name):
    folder = workspace.artifacts("reference_statistics")
    origin = facts(workspace)["origin"]
    load_statistics(folder, origin, [32])
    with pytest.raises(DataError, match=f"made from another {name}; run `dvc repro reference_statistics`"):
        load_statistics(folder, origin | {name: "0" * 64}, [32])


def test_a_resolution_that_was_not_measured_is_named(workspace):
    with pytest.raises(DataError, match="nothing at 64 px"):
        load_statistics(workspace.artifacts("reference_statistics"), {}, [64])


def test_a_truncated_file_is_named_as_damaged(workspace, tmp_path):
    for file in workspace.artifacts("reference_statistics").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:100] if file.suffix != ".json" else file.read_bytes())
    with pytest.raises(DataError, match="damaged"):
        load_statistics(tmp_path, {}, [32])
    with pytest.raises(DataError, match=r"nowhere.*missing"):
        load_statistics(tmp_path / "nowhere", {}, [32])


def test_too_few_held_out_images_are_refused_with_the_cure(tmp_path):
    workspace = make_world(tmp_path)
    write_heldout(workspace, heldout_samples(3))
    with pytest.raises(DataError, match=r"3 held-out images.*filter\.p_heldout"):
        reference_statistics.run(micro_config(), workspace, "cpu")


def test_fewer_images_than_features_are_pointed_out(tmp_path, caplog):
    workspace = make_world(tmp_path)
    write_heldout(workspace, heldout_samples(6))
    reference_statistics.run(micro_config(), workspace, "cpu")
    assert "6 images for 8 features: the covariance is singular" in caplog.text
