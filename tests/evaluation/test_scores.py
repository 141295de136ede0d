"""Measurements: under which name, with which interval and caution, and against definitions."""

from __future__ import annotations

import pytest
import torch

from stylegan_t.evaluation.panel import Extractor
from stylegan_t.evaluation.scores import (
    Agreement,
    Reference,
    Scorer,
    absences,
    count_word,
    metric_name,
)
from stylegan_t.evaluation.sets import Summary
from stylegan_t.metrics.kernels import cmmd, kernel_distance
from stylegan_t.metrics.moments import Moments, Streamed, frechet_distance
from stylegan_t.models.judges import Features
from stylegan_t.settings.protocol import Measure, Protocol
from tests.evaluation.judged import a_protocol, measure_of

EVERY = ("frechet", "kernel", "cmmd", "precision_recall", "density_coverage", "clip_score", "retrieval", "best_of")


class Unused(Features):
    resize = "as they are"

    def forward(self, images):
        raise AssertionError("a score looks at no picture")


def scorer(
    *metrics: str, count: int = 100, px: int | None = 64, judge: str = "dinov2", resize: str | None = None,
    in_training: bool | None = None, protocol: Protocol | None = None,
) -> Scorer:  # fmt: skip
    measure = Measure.model_validate(measure_of(judge, *(metrics or EVERY), resize=resize))
    extractor = Extractor(measure, Unused(), frozenset({"weights"}), in_training)
    return Scorer(protocol or a_protocol(), extractor, count, px, seed=0)


def cloud(count: int, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + shift


def summary(features: torch.Tensor) -> Summary:
    streamed = Streamed(len(features))
    streamed.add(features)
    return Summary(streamed, features)


def reference(features: torch.Tensor) -> Reference:
    return Reference(Moments.of(features), features)


def test_each_distance_is_the_one_of_its_name():
    fakes, reals = cloud(100, 0.5), cloud(120, seed=1)
    found = {m.metric: m for m in scorer().of_sets(summary(fakes), reference(reals))}
    assert list(found) == ["frechet", "kernel", "cmmd", "precision", "recall", "density", "coverage"]
    assert found["frechet"].value == pytest.approx(frechet_distance(Moments.of(fakes), Moments.of(reals)))
    assert found["kernel"].value == pytest.approx(kernel_distance(fakes, reals, seed=0))
    assert found["cmmd"].value == pytest.approx(cmmd(fakes, reals))
    assert [found[name].better for name in found] == ["lower"] * 3 + ["higher"] * 4
    for each in found.values():
        assert each.value is not None
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.value < each.high
        assert each.uncertainty
        assert each.seconds is not None
        assert each.resize == "as they are"


def test_precision_asks_of_fakes_and_recall_of_reals():
    narrow, wide = cloud(100) * 0.1, cloud(100, seed=1)
    found = {m.metric: m.value for m in scorer("precision_recall").of_sets(summary(narrow), reference(wide))}
    assert found["precision"] > 0.9
    assert found["recall"] < 0.3


@pytest.mark.parametrize(("num_fakes", "num_reals"), [(100, 3000), (3000, 100)])
def test_with_few_pictures_on_either_side_the_frechet_distance_does_not_lead(num_fakes, num_reals):
    fakes, reals = summary(cloud(num_fakes)), reference(cloud(num_reals, seed=1))
    found = scorer("frechet", count=num_fakes).of_sets(fakes, reals)[0]
    assert not found.leads
    assert found.note == "100 pictures are few for it: read the kernel distance or CMMD"


def test_with_few_pictures_the_distances_of_kernels_lead():
    found = scorer("kernel", "cmmd").of_sets(summary(cloud(100)), reference(cloud(100, seed=1)))
    assert [(m.metric, m.leads, m.note) for m in found] == [("kernel", True, None), ("cmmd", True, None)]


def test_from_2048_pictures_on_it_leads():
    for count, leads in ((2047, False), (2048, True)):
        found = scorer("frechet", count=count).of_sets(summary(cloud(count)), reference(cloud(2048, seed=1)))[0]
        assert found.leads == leads
        assert (found.note is None) == leads


def test_too_few_pictures_for_neighbours_are_absent_with_the_reason_and_the_rest_is_measured():
    found = {m.metric: m for m in scorer(count=5).of_sets(summary(cloud(5)), reference(cloud(9, seed=1)))}
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name].value is None
        assert found[name].absent == "needs 6 pictures on each side"
    assert found["frechet"].value is not None
    assert found["frechet"].low is None, "halves of 5 pictures say nothing"


def test_the_error_of_each_share_is_that_of_the_pictures_it_is_a_share_of():
    found = scorer("precision_recall", "density_coverage").of_sets(summary(cloud(100)), reference(cloud(120, seed=1)))
    how = {m.metric: m.uncertainty for m in found}
    assert [name for name in how if "of 100 pictures" in str(how[name])] == ["precision"]
    assert [name for name in how if "over 100 pictures" in str(how[name])] == ["density"], "a mean, and no share"
    assert [name for name in how if "of 120 pictures" in str(how[name])] == ["recall", "coverage"]


def test_two_pictures_can_be_measured():
    found = {m.metric: m for m in scorer(count=2).of_sets(summary(cloud(2)), reference(cloud(2, seed=1)))}
    assert found["kernel"].value is not None
    assert found["kernel"].low is None


OWN, WRONG = torch.tensor([0.5, -0.1, 0.3]), torch.tensor([[0.1, 0.2], [0.0, 0.0], [0.3, 0.1]])


@pytest.mark.parametrize(
    ("scale", "own", "wrong"), [("cosine", 0.7 / 3, 0.4 / 3), ("x100", 70 / 3, 40 / 3), ("w2.5", 2 / 3, 1 / 3)]
)
def test_clip_scores_are_means_on_the_scale_of_their_name(scale, own, wrong):
    found = {m.metric: m for m in scorer(protocol=a_protocol(scale=scale)).of_pairs(Agreement(OWN, WRONG))}
    assert found["clip_score"].value == pytest.approx(own)
    assert found["clip_score_of_wrong_captions"].value == pytest.approx(wrong)
    assert found["clip_score"].name == f"clip_score_{scale}_dinov2_100_reals64"
    assert found["clip_score_of_wrong_captions"].better == "lower"


def test_retrieval_counts_pictures_nearer_to_their_own_caption_than_to_every_wrong_one():
    found = {m.metric: m.value for m in scorer().of_pairs(Agreement(OWN, WRONG))}
    assert found["retrieval_1_of_3"] == pytest.approx(1 / 3), "the second is wrong, the third only ties"


def test_where_all_captions_are_the_same_the_score_is_there_and_wrong_ones_are_absent():
    found = {m.metric: m for m in scorer().of_pairs(Agreement(OWN, torch.zeros(3, 0)))}
    assert found["clip_score"].value == pytest.approx(0.7 / 3)
    for name in ("clip_score_of_wrong_captions", "retrieval_1_of_32"):
        assert found[name].value is None
        assert found[name].absent == "all captions are the same: there is no wrong one"


def test_without_captions_each_metric_says_why():
    found = scorer().of_pairs("no captions there")
    assert [(m.metric, m.value, m.absent) for m in found] == [
        ("clip_score", None, "no captions there"), ("clip_score_of_wrong_captions", None, "no captions there"),
        ("retrieval_1_of_32", None, "no captions there"),
    ]  # fmt: skip


def test_of_several_pictures_of_a_prompt_the_best_counts():
    found = scorer(count=2).of_best(torch.tensor([[0.1, 0.5, 0.2], [0.3, -0.1, 0.0]]))[0]
    assert found.value == pytest.approx(0.4)
    assert found.name == "clip_score_best_of_3_cosine_dinov2_2_reals64"


@pytest.mark.parametrize(
    ("metric", "judge", "resize", "expected"),
    [
        ("frechet", "inception", "clean", "fid30k_coco64_clean"),
        ("frechet", "inception", "legacy_tensorflow", "fid30k_coco64_legacy_tensorflow"),
        ("frechet", "inception_pytorch", "legacy_pytorch", "fid30k_coco64_legacy_pytorch"),
        ("kernel", "inception", "clean", "kid10k_coco64_clean"),
        ("frechet", "dinov2", None, "fd_dinov2_30k_coco64"),
        ("kernel", "dinov2", None, "kd_dinov2_10k_coco64"),
        ("precision", "dinov2", None, "precision_dinov2_10k_coco64"),
        ("precision", "inception", "clean", "precision_inception_clean_10k_coco64"),
        ("cmmd", "vit_g_14", None, "cmmd_vit_g_14_10k_coco64"),
        ("clip_score", "vit_g_14", None, "clip_score_cosine_vit_g_14_30k_coco64"),
        ("clip_score_best_of_8", "vit_g_14", None, "clip_score_best_of_8_cosine_vit_g_14_30k_coco64"),
        ("retrieval_1_of_32", "vit_g_14", None, "retrieval_1_of_32_vit_g_14_30k_coco64"),
    ],
)
def test_a_name_states_metric_judge_resize_scale_count_used_reals_and_side(metric, judge, resize, expected):
    measure = Measure.model_validate(measure_of(judge, "frechet", resize=resize))
    assert metric_name(metric, measure, 30_000, 64, a_protocol(reference="coco")) == expected


def test_the_count_of_a_name_is_the_pictures_own():
    assert [count_word(count) for count in (30_000, 1000, 1500, 999, 2048)] == ["30k", "1k", "1500", "999", "2048"]
    assert scorer(count=5000, px=None, judge="inception", resize="clean").name("frechet") == "fid5k_reals_clean"


def test_a_judge_of_the_training_is_flagged_in_name_and_record():
    for in_training, suffix in ((True, "_seen_in_training"), (False, ""), (None, "")):
        found = scorer("kernel", in_training=in_training).of_sets(summary(cloud(20)), reference(cloud(20, seed=1)))[0]
        assert found.name == f"kd_dinov2_100_reals64{suffix}"
        assert found.in_training == in_training


def test_what_an_absent_judge_would_have_measured_is_listed_by_the_same_names_with_the_reason():
    protocol = a_protocol(
        measures=[
            measure_of("inception", "frechet", "kernel", resize="clean"), measure_of("dinov2", *EVERY),
            measure_of("small_clip", "cmmd"),
        ],
    )  # fmt: skip
    found = absences(protocol, {"inception_clean": "no network", "dinov2": "no file"}, 30_000, 64)
    assert all(m.value is None for m in found)
    assert {(m.extractor, m.absent) for m in found} == {("inception_clean", "no network"), ("dinov2", "no file")}
    measured = scorer(count=30_000).of_sets(summary(cloud(20)), reference(cloud(20, seed=1)))
    fit = Agreement(torch.zeros(40), torch.zeros(40, 31))
    measured += scorer(count=30_000).of_pairs(fit) + scorer(count=3).of_best(torch.zeros(3, 4))
    expected = {m.name for m in measured} | {"fid30k_reals64_clean", "kid10k_reals64_clean"}
    assert {m.name for m in found} == expected
