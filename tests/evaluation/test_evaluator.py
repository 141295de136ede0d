"""A set of pictures, measured: what the judges see, once; captions right and wrong; sets that cannot be measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan_t.data.images import to_signed
from stylegan_t.errors import DataError
from stylegan_t.evaluation.evaluator import Evaluator, agreement_of
from stylegan_t.evaluation.fakes import Model, Painted, model_sha256
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.pictures import FolderPictures
from stylegan_t.evaluation.reals import measure_reals
from stylegan_t.evaluation.sets import PART, Share, see
from stylegan_t.metrics.kernels import kernel_distance
from stylegan_t.metrics.pairs import cosines
from stylegan_t.models.bundle import load_bundle
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.settings.protocol import Measure
from tests.bundles import tiny_bundle
from tests.evaluation.judged import (
    CPU,
    a_protocol,
    an_evaluator,
    measure_of,
    random_pictures,
    save_two_judges,
    write_pictures,
)

CAPTIONS = [f"a picture of {number} things" for number in range(30)]


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    return save_two_judges(tmp_path_factory.mktemp("judges"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    reals = write_pictures(root / "reals", random_pictures(40, seed=1), [f"real {i}" for i in range(40)])
    return FolderPictures(write_pictures(root / "fakes", random_pictures(30))), FolderPictures(reals)


def evaluated(evaluator: Evaluator, folders, captions: list[str] | str = CAPTIONS, **changes):
    fakes, reals = folders
    return evaluator.evaluate(
        fakes, captions, None, evaluator.references(reals, None), reals.identity, **changes
    )  # fmt: skip


def test_values_are_those_of_what_the_judge_sees_by_itself(judges, folders, tmp_path):
    found = evaluated(an_evaluator(judges, tmp_path, a_protocol()), folders)
    clip = load_clip(judges / "small_clip")
    fakes, reals = (
        torch.cat([clip.encode_image(to_signed(picture[None])) for picture in each.read(range(each.count))])
        for each in folders
    )
    value = {m.metric: m.value for m in found.measurements}
    assert value["kernel"] == pytest.approx(kernel_distance(fakes, reals, seed=0), rel=1e-4, abs=1e-7)
    score = cosines(fakes, clip.encode_text(CAPTIONS)).mean().item()
    assert value["clip_score"] == pytest.approx(score, abs=1e-6)
    assert (found.count, found.reference_count, found.px, found.psi, found.weights) == (30, 40, None, None, "none")
    assert found.subject_sha256 == folders[0].identity
    assert found.reference_sha256 == folders[1].identity


def test_a_limit_measures_the_first_pictures_alone(judges, folders, tmp_path):
    first = FolderPictures(write_pictures(tmp_path / "first", random_pictures(30)[:20]))
    whole = an_evaluator(judges, tmp_path / "work", a_protocol())
    some = evaluated(whole, folders, limit=20)
    alone = evaluated(whole, (first, folders[1]), CAPTIONS[:20])
    assert [(m.name, m.value) for m in some.measurements] == [
        (m.name, pytest.approx(m.value, rel=1e-4, abs=1e-6)) for m in alone.measurements
    ]
    assert some.captions_sha256 == alone.captions_sha256


def test_what_was_seen_once_is_not_looked_at_again(judges, folders, tmp_path, monkeypatch):
    first = evaluated(an_evaluator(judges, tmp_path, a_protocol()), folders)
    monkeypatch.setattr(Panel, "look", None)
    monkeypatch.setattr(Panel, "read", None)
    again = evaluated(an_evaluator(judges, tmp_path, a_protocol()), folders)
    without_time = lambda e: [m.model_copy(update={"seconds": None}) for m in e.measurements]
    assert without_time(first) == without_time(again)


def test_another_judge_side_or_picture_is_looked_at_anew(judges, folders, tmp_path):
    fakes, reals = folders
    clip, both = a_protocol(), a_protocol(
        measures=[measure_of("small_clip", "kernel"), measure_of("inception", "kernel", resize="clean")]
    )  # fmt: skip
    seen = {
        an_evaluator(judges, tmp_path, protocol).see(pictures, px).folder
        for protocol, pictures, px in ((clip, fakes, None), (clip, fakes, 16), (clip, reals, None), (both, fakes, None))
    }
    assert len(seen) == 4


def test_repeated_captions_are_read_once_and_get_the_same_row(judges, monkeypatch):
    panel = Panel(judges, a_protocol().measures, CPU, None)
    clip = panel.extractors["small_clip"].features.clip
    read = []
    encode = type(clip).encode_text
    monkeypatch.setattr(type(clip), "encode_text", lambda self, texts: read.extend(texts) or encode(self, texts))
    rows = panel.read(["a", "b", "a", "c", "b"], batch_size=2)["small_clip"]
    assert read == ["a", "b", "c"]
    assert torch.equal(rows[0], rows[2])
    torch.testing.assert_close(rows[3], encode(clip, ["c"])[0])


# ---- judges that are there, absent or partial -----------------------------------------------------------------------


def panel_of(judges, *measures, players=None, elsewhere=None):
    return Panel(judges, [Measure.model_validate(each) for each in measures], CPU, players, elsewhere)


def test_a_judge_that_is_not_there_is_absent_with_the_reason_and_the_others_measure(judges, folders, tmp_path):
    protocol = a_protocol(measures=[measure_of("dinov2", "kernel"), measure_of("small_clip", "kernel")])
    found = evaluated(an_evaluator(judges, tmp_path, protocol), folders).measurements
    assert [(m.extractor, m.value is None) for m in found] == [("small_clip", False), ("dinov2", True)]
    assert found[1].absent == f"no judge 'dinov2' in {judges.name}/ (there: inception, small_clip)"


def test_who_cannot_read_captions_is_not_asked_to(judges):
    panel = panel_of(judges, measure_of("inception", "kernel", "clip_score", resize="clean"))
    assert panel.absent == {"inception_clean": "clip_score need a CLIP, and 'inception' is none"}


def test_a_judge_may_lie_elsewhere(judges, tmp_path):
    panel = panel_of(tmp_path, measure_of("other", "kernel"), elsewhere={"other": judges / "small_clip"})
    assert list(panel.extractors) == ["other"]


def test_weights_that_took_part_in_the_training_are_known_under_any_name(judges):
    own = panel_of(judges, measure_of("small_clip", "kernel")).extractors["small_clip"]
    assert own.in_training is None
    for players, expected in ((own.weights, True), (frozenset({"others"}), False)):
        panel = panel_of(judges, measure_of("small_clip", "kernel"), players=players)
        assert panel.extractors["small_clip"].in_training is expected


# ---- captions, right and wrong --------------------------------------------------------------------------------------


def agreement(tmp_path, captions: list[str], seed: int = 0):
    """Pictures that see their caption's number, and captions that are read as theirs, one axis for each."""
    number = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    axes = torch.eye(max(len(number), 2))
    look = lambda span: {"clip": axes[[number[captions[i]] for i in span]]}
    sets = [see(tmp_path / f"{name} {len(captions)}", len(captions), look, Share()) for name in ("seen", "texts")]
    return agreement_of(sets[0], sets[1], captions, "clip", seed)


@pytest.mark.parametrize("count", [5, 60, PART + 1, PART + 100])
def test_the_own_caption_is_right_and_every_wrong_one_is_wrong(tmp_path, count):
    found = agreement(tmp_path, [f"caption {i % 40}" for i in range(count)])
    assert found.own.tolist() == [1.0] * count
    assert found.wrong.shape == (count, min(count, 32) - 1)
    assert found.wrong.max() == 0


def test_more_different_captions_than_are_held_have_wrong_ones_too(tmp_path):
    found = agreement(tmp_path, [f"caption {i}" for i in range(PART + 200)])
    assert found.own.tolist() == [1.0] * (PART + 200)
    assert found.wrong.shape == (PART + 200, 31)
    assert found.wrong.max() == 0


def test_wrong_captions_differ_from_each_other_and_from_picture_to_picture(tmp_path):
    """A picture that agrees a little with one wrong caption only: it is counted once, for some pictures."""
    captions = [f"caption {i % 40}" for i in range(80)]
    rows = torch.eye(41)[[i % 40 for i in range(80)]]
    images = rows.clone()
    images[:, 7] += 0.25
    sets = [
        see(tmp_path / name, 80, lambda span, each=each: {"clip": each[span.start : span.stop]}, Share())
        for name, each in (("seen", images), ("texts", rows))
    ]
    hits = (agreement_of(sets[0], sets[1], captions, "clip", 0).wrong > 0).sum(dim=1)
    assert hits.max() == 1
    assert 0 < hits.sum() < 78


def test_no_wrong_captions_are_shown_to_many_pictures(tmp_path):
    """Pictures that are all the same tell by their cosines which captions they were shown."""
    captions, generator = [f"caption {i}" for i in range(PART + 200)], torch.Generator().manual_seed(0)
    axes, picture = torch.eye(len(captions)), torch.rand(len(captions), generator=generator)
    sets = [
        see(tmp_path / name, len(captions), lambda span, each=each: {"clip": each[span.start : span.stop]}, Share())
        for name, each in (("seen", picture.expand(len(captions), -1)), ("texts", axes))
    ]
    wrong = agreement_of(sets[0], sets[1], captions, "clip", 0).wrong
    assert torch.unique(wrong, dim=0, return_counts=True)[1].max() <= 3


def test_captions_that_are_all_the_same_have_no_wrong_one(tmp_path):
    found = agreement(tmp_path, ["a cat"] * 9)
    assert found.own.tolist() == [1.0] * 9
    assert found.wrong.shape == (9, 0)


def test_the_seed_decides_which_wrong_captions_are_shown(judges, folders, tmp_path):
    wrong = [
        {
            m.metric: m.value
            for m in evaluated(an_evaluator(judges, tmp_path, a_protocol(), seed=seed), folders).measurements
        }["clip_score_of_wrong_captions"]
        for seed in (0, 0, 1)
    ]
    assert wrong[0] == wrong[1] != wrong[2]


def test_pictures_without_captions_say_so_and_distances_are_measured(judges, folders, tmp_path):
    found = {
        m.metric: m for m in evaluated(an_evaluator(judges, tmp_path, a_protocol()), folders, "none there").measurements
    }
    assert found["clip_score"].absent == found["retrieval_1_of_32"].absent == "none there"
    assert found["kernel"].value is not None


# ---- models ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    folder = tiny_bundle(tmp_path / "model")
    return Model("a model", load_bundle(folder), model_sha256(folder), 8, CPU)


def test_a_model_that_has_not_painted_yet_has_a_speed(model):
    speed = model.speed()
    assert speed["images_per_second"] > 0, "as after a stop, when all pictures are on disk already"
    assert 0 < speed["latency_p50_seconds"] <= speed["latency_p95_seconds"]


def test_best_of_takes_the_best_of_each_prompts_pictures(judges, model, tmp_path):
    prompts = [caption for caption in CAPTIONS[:3] for _ in range(4)]
    painted = Painted(model, prompts, range(12), 1.0)
    evaluator = an_evaluator(judges, tmp_path, a_protocol())
    found = evaluator.best_of(painted, None, 4)
    clip = load_clip(judges / "small_clip")
    pairs = cosines(clip.encode_image(to_signed(torch.stack(painted.read(range(12))))), clip.encode_text(prompts))
    assert [m.value for m in found] == [pytest.approx(pairs.reshape(3, 4).amax(dim=1).mean().item(), abs=1e-5)]
    assert found[0].name == "clip_score_best_of_4_cosine_small_clip_3_reals"


def test_a_models_record_says_which_weights_latents_and_captions(judges, model, folders, tmp_path):
    painted = Painted(model, CAPTIONS, range(30), 0.7)
    found = evaluated(an_evaluator(judges, tmp_path, a_protocol()), (painted, folders[1]), seeds="the first thirty")
    assert (found.weights, found.psi, found.seeds, found.subject) == ("ema", 0.7, "the first thirty", "a model")
    assert found.subject_sha256 == model.identity


def test_other_latents_captions_or_psi_are_other_pictures(model):
    same = Painted(model, CAPTIONS, range(30), 1.0).identity
    assert same == Painted(model, list(CAPTIONS), list(range(30)), 1.0).identity
    others = [
        Painted(model, CAPTIONS, range(1, 31), 1.0), Painted(model, CAPTIONS[::-1], range(30), 1.0),
        Painted(model, CAPTIONS, range(30), 0.9),
    ]  # fmt: skip
    assert len({same, *(each.identity for each in others)}) == 4


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_model_that_diverged_is_named_with_the_prompt(model, number):
    model.generator.mapping.w_avg.fill_(number)
    with pytest.raises(DataError, match=r"a model: the picture of 'a red fish' at psi 0\.5 holds NaN or infinity"):
        list(model.paint(["a red fish"], [0], psi=0.5))


def test_a_part_of_the_pictures_is_painted_as_the_whole_set_would_be(model):
    painted = Painted(model, CAPTIONS, range(30), 1.0)
    whole, some = painted.read(range(30)), painted.read([3, 17])
    for one, other in zip(some, (whole[3], whole[17]), strict=True):
        assert (one.int() - other.int()).abs().max() <= 1


# ---- sets that cannot be measured, and the real ones against themselves ---------------------------------------------


def test_a_single_picture_is_no_set(judges, folders, tmp_path):
    single = FolderPictures(write_pictures(tmp_path / "single", random_pictures(1)))
    with pytest.raises(DataError, match="1 picture; a set of at least 2"):
        evaluated(an_evaluator(judges, tmp_path / "work", a_protocol()), (single, folders[1]), ["a"])


def test_reals_are_measured_by_halves_and_all_with_their_captions(judges, folders, tmp_path):
    _, reals = folders
    evaluator = an_evaluator(judges, tmp_path, a_protocol())
    found = measure_reals(evaluator, reals, None)
    rows = evaluator.see(reals, None).rows("small_clip")
    value = {m.metric: m for m in found.measurements}
    assert value["kernel"].value == pytest.approx(kernel_distance(rows[1::2], rows[::2], seed=0))
    assert value["kernel"].name == "kd_small_clip_20_reals"
    assert value["clip_score"].name == "clip_score_cosine_small_clip_40_reals"
    texts = load_clip(judges / "small_clip").encode_text([f"real {i}" for i in range(40)])
    assert value["clip_score"].value == pytest.approx(cosines(rows, texts).mean().item(), abs=1e-6)
    assert (found.count, found.reference_count) == (20, 20)

    assert all(m.seconds is None for m in found.measurements), "compared byte for byte"


def test_reals_without_captions_have_distances_and_a_reason(judges, tmp_path):
    reals = FolderPictures(write_pictures(tmp_path / "reals", [np.roll(p, 3, 0) for p in random_pictures(20)]))
    found = {
        m.metric: m
        for m in measure_reals(an_evaluator(judges, tmp_path / "work", a_protocol()), reals, None).measurements
    }
    assert found["clip_score"].absent == f"{tmp_path / 'reals'}: the pictures have no captions"
    assert found["kernel"].value is not None
