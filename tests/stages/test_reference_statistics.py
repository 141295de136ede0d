"""The real images' statistics against what the judges say of each picture."""

import json
from shutil import rmtree

import numpy as np
import pytest
import torch
import yaml

from stylegan_t.data.images import decode_batch, to_signed
from stylegan_t.data.shards import Shards
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.evaluation import sets
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.reference import load_statistics
from stylegan_t.metrics.moments import Moments, frechet_distance
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.models.judges import load_judge
from stylegan_t.records import Evaluation
from stylegan_t.stages import reference_statistics
from tests import inceptions
from tests.evaluation.world import ABSENT, PROTOCOL, few, heldout_samples, make_world, micro_config, write_prepared

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_world(tmp_path_factory.mktemp("world"))
    reference_statistics.run(micro_config(), workspace, "cpu")
    return workspace


def facts(workspace):
    return json.loads((workspace.artifacts("reference_statistics") / "statistics.json").read_text())


def stored(workspace, sizes, names=("small_clip", "player"), origin=None):
    found, _ = load_statistics(workspace.artifacts("reference_statistics"), origin or {}, list(names), sizes, CPU)
    return found


def images_of(workspace):
    return to_signed(decode_batch([sample.image for sample in Shards(workspace.prepared / "heldout")]))


def features_of(workspace, judge="small_clip"):
    return load_clip(workspace.judges / judge).encode_image(images_of(workspace)).numpy()


@pytest.mark.parametrize("judge", ["small_clip", "player"])
def test_the_moments_are_those_of_each_judges_features_of_all_held_out_images(workspace, judge):
    reference, features = stored(workspace, [32])[32][judge], features_of(workspace, judge)
    assert reference.moments.count == len(features) == 60
    np.testing.assert_allclose(reference.moments.mean, features.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(reference.moments.covariance, np.cov(features, rowvar=False), atol=1e-6)
    np.testing.assert_allclose(reference.features, features, atol=1e-5)


def test_at_a_smaller_side_the_judges_see_the_mean_of_the_area_that_each_pixel_covers(workspace):
    small = images_of(workspace).unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean(dim=(3, 5))
    seen = load_clip(workspace.judges / "small_clip").encode_image(small)
    found = stored(workspace, [16])[16]["small_clip"].features
    assert torch.nn.functional.cosine_similarity(found, seen).min() > 0.999, "but for rounding to whole values"
    assert not torch.allclose(found, stored(workspace, [32])[32]["small_clip"].features, atol=1e-2)


def test_models_larger_than_the_protocols_side_are_measured_at_it(workspace, tmp_path):
    (workspace.root / "at16.yaml").write_text((workspace.root / "few.yaml").read_text().replace("px: null", "px: 16"))
    reference_statistics.run(micro_config(protocol="at16.yaml"), workspace, "cpu")
    assert [each["px"] for each in facts(workspace)["reals"]] == [16]
    reference_statistics.run(micro_config(), workspace, "cpu")
    assert [each["px"] for each in facts(workspace)["reals"]] == [16, 32]


def test_two_runs_write_the_same_bytes_and_leave_no_parts(workspace):
    folder = workspace.artifacts("reference_statistics")
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    reference_statistics.run(micro_config(), workspace, "cpu")
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
    assert not workspace.state("reference_statistics", "sets").exists()


def test_a_killed_run_does_not_look_again_at_what_it_has_seen(workspace, monkeypatch):
    folder = workspace.artifacts("reference_statistics")
    monkeypatch.setattr(sets, "PART", 20)
    reference_statistics.run(micro_config(), workspace, "cpu")
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    seen, look = [], Panel.look

    def dies_at_the_third_part(self, pictures, batch_size):
        seen.append(len(pictures))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return look(self, pictures, batch_size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Panel, "look", dies_at_the_third_part)
        reference_statistics.run(micro_config(), workspace, "cpu")
    again = []
    monkeypatch.setattr(Panel, "look", lambda *a: (again.append(len(a[1])), look(*a))[1])
    reference_statistics.run(micro_config(), workspace, "cpu")
    assert again == [20] * 4, "of two sides, three parts each, four are left"
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before


def test_two_processes_share_the_pictures_and_write_the_bytes_of_one(workspace, monkeypatch):
    folder, looked, look = workspace.artifacts("reference_statistics"), [], Panel.look
    monkeypatch.setattr(sets, "PART", 20)
    reference_statistics.run(micro_config(), workspace, "cpu")
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    rmtree(folder)
    monkeypatch.setattr(sets.Share, "wait_for_all", lambda share: None)  # one after the other here
    monkeypatch.setattr(Panel, "look", lambda *a: (looked.append(len(a[1])), look(*a))[1])
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, pictures in ((1, 20), (0, 40)):
        monkeypatch.setenv("RANK", str(rank))
        reference_statistics.run(micro_config(), workspace, "cpu")
        assert folder.exists() == (rank == 0)
        assert sum(looked) == 2 * pictures, "of three parts at each of two sides the second; then the others"
        looked.clear()
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before


def test_the_reals_own_figures_are_those_of_every_second_picture_against_the_others(workspace):
    for number, px in enumerate((16, 32)):
        record = Evaluation.model_validate(facts(workspace)["reals"][number])
        assert (record.px, record.count, record.reference_count) == (px, 30, 30)
        value = {m.name: m.value for m in record.measurements if not m.absent}
        features = stored(workspace, [px])[px]["small_clip"].features
        halves = frechet_distance(Moments.of(features[1::2]), Moments.of(features[::2]))
        assert value[f"fd_small_clip_30_shapes{px}"] == pytest.approx(halves, rel=1e-4)
        captions = [sample.caption for sample in Shards(workspace.prepared / "heldout")]
        texts = load_clip(workspace.judges / "small_clip").encode_text(captions)
        score = torch.nn.functional.cosine_similarity(features, texts).mean().item()
        assert value[f"clip_score_cosine_small_clip_60_shapes{px}"] == pytest.approx(score, abs=1e-5)
        assert value[f"clip_score_of_wrong_captions_cosine_small_clip_60_shapes{px}"] != pytest.approx(score, abs=1e-5)


def test_an_absent_judge_is_noted_with_its_reason(workspace):
    assert facts(workspace)["absent"] == {"inception_clean": ABSENT}
    reals = Evaluation.model_validate(facts(workspace)["reals"][1]).measurements
    assert [(m.name, m.value) for m in reals if m.absent == ABSENT] == [
        ("fid30_shapes32_clean", None), ("kid30_shapes32_clean", None)
    ]  # fmt: skip


def test_a_judge_that_is_there_at_last_is_measured_by(tmp_path):
    workspace = make_world(tmp_path)
    write_prepared(workspace.prepared / "heldout", heldout_samples(12))
    kernel = [{"judge": "inception", "resize": "clean", "metrics": ["kernel"]}]
    (workspace.root / PROTOCOL).write_text(yaml.safe_dump(few(measures=kernel)))
    folder = workspace.judges / "inception"
    inceptions.save_small(folder / "inception-2015-12-05.pt")
    (folder / "config.json").write_text('{"kind": "inception"}')
    reference_statistics.run(micro_config(), workspace, "cpu")
    assert facts(workspace)["absent"] == {}
    (measurement,) = facts(workspace)["reals"][1]["measurements"]
    assert (measurement["name"], measurement["absent"]) == ("kid6_shapes32_clean", None)
    found = stored(workspace, [32], ["inception_clean"])[32]["inception_clean"].features
    judge = load_judge(folder, "clean")
    torch.testing.assert_close(found, judge(judge.prepare(images_of(workspace))))


@pytest.mark.parametrize("name", ["reals", "judge small_clip"])
def test_statistics_of_other_data_or_judges_are_refused_by_name(workspace, name):
    origin = facts(workspace)["origin"]
    assert set(origin) == {"reals", "judge small_clip", "judge player"}
    stored(workspace, [32], origin=origin)
    with pytest.raises(DataError, match=f"made from another {name}; run `dvc repro"):
        stored(workspace, [32], origin=origin | {name: "0" * 64})


def test_a_side_or_a_judge_that_was_not_measured_is_named(workspace):
    with pytest.raises(DataError, match="nothing of small_clip at 64 px"):
        stored(workspace, [64])
    with pytest.raises(DataError, match="nothing of dinov2 at 32 px"):
        stored(workspace, [32], ["dinov2"])


def test_a_truncated_file_is_named_as_damaged(workspace, tmp_path):
    for file in workspace.artifacts("reference_statistics").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:100] if file.suffix != ".json" else file.read_bytes())
    with pytest.raises(DataError, match="damaged"):
        load_statistics(tmp_path, {}, ["small_clip"], [32], CPU)
    with pytest.raises(DataError, match=r"nowhere.*missing"):
        load_statistics(tmp_path / "nowhere", {}, ["small_clip"], [32], CPU)


def test_too_few_real_images_are_refused_with_the_cure(tmp_path):
    workspace = make_world(tmp_path)
    write_prepared(workspace.prepared / "heldout", heldout_samples(3))
    with pytest.raises(DataError, match=r"3 real images; measuring needs at least 8: .*filter\.p_heldout"):
        reference_statistics.run(micro_config(), workspace, "cpu")


def test_a_protocol_that_does_not_exist_is_refused(workspace):
    with pytest.raises(SettingsError, match="protocol 'coco': unknown; use coco256, coco64, quick, shapes, or the"):
        reference_statistics.run(micro_config(protocol="coco"), workspace, "cpu")


def test_few_images_are_pointed_out_with_what_to_read_instead(tmp_path, caplog):
    workspace = make_world(tmp_path)
    write_prepared(workspace.prepared / "heldout", heldout_samples(10))
    reference_statistics.run(micro_config(), workspace, "cpu")
    assert "10 real images are few for Fréchet distances: read the kernel distance or CMMD" in caplog.text
