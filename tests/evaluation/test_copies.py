"""Training pictures near a model's samples: the planted copy is found, and what is invented is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from stylegan_t.data.shards import Shards
from stylegan_t.evaluation.copies import (
    extractor_for_copies,
    find_copies,
    neighbours_of,
    training_pictures,
)
from stylegan_t.evaluation.evaluator import references
from stylegan_t.evaluation.fakes import Model, Painted
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.pictures import ShardPictures
from stylegan_t.evaluation.sets import PART, Share, see
from stylegan_t.models.bundle import load_bundle
from stylegan_t.models.encoder_files import weights_sha256
from stylegan_t.settings.evaluation import Copies
from tests.bundles import tiny_bundle
from tests.evaluation.judged import CPU, a_protocol, an_evaluator, measure_of, save_two_judges
from tests.evaluation.world import heldout_samples, write_prepared


def settings(**changes: int) -> Copies:
    values = {"num_samples": 12, "num_shown": 3, "num_neighbours": 2, "max_training_images": 100}
    return Copies.model_validate(values | changes)


def test_neighbours_are_the_largest_cosines_over_all_parts(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * PART + 30, 6, generator=generator)
    seen = see(tmp_path, len(rows), lambda span: {"judge": rows[span.start : span.stop]}, Share())
    wanted = torch.randn(9, 6, generator=generator) * 5
    cosines, numbers = neighbours_of(wanted, seen, "judge", 4)
    expected = torch.cosine_similarity(wanted[:, None], rows[None], dim=2).topk(4, dim=1)
    torch.testing.assert_close(cosines, expected.values)
    assert torch.equal(numbers, expected.indices)


def test_fewer_training_pictures_than_neighbours_are_all_of_them(tmp_path):
    rows = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    seen = see(tmp_path, 3, lambda span: {"judge": rows[span.start : span.stop]}, Share())
    assert neighbours_of(rows, seen, "judge", 5)[1].shape == (3, 3)


@pytest.mark.parametrize("most", [7, 40, 100])
def test_an_even_selection_of_training_pictures_has_no_picture_twice(tmp_path, most):
    write_prepared(tmp_path, heldout_samples(40))
    some = training_pictures(ShardPictures(Shards(tmp_path)), settings(max_training_images=most))
    assert len(set(some.numbers)) == some.count == min(most, 40)
    assert (some.numbers[0], some.numbers[-1]) == (0, 39)
    gaps = {b - a for a, b in zip(some.numbers, some.numbers[1:], strict=False)}
    assert max(gaps) - min(gaps) <= 1


class Copying(Painted):
    """A model of which every fourth picture is a training picture."""

    train: ShardPictures

    def read(self, numbers):
        painted = super().read(numbers)
        return [self.train.read([5 + n])[0] if n % 4 == 0 else each for n, each in zip(numbers, painted, strict=True)]


@pytest.fixture
def found(tmp_path: Path):
    write_prepared(tmp_path / "train", heldout_samples(30, seed=1))
    write_prepared(tmp_path / "heldout", heldout_samples(30, seed=2))
    train, heldout = (ShardPictures(Shards(tmp_path / name)) for name in ("train", "heldout"))
    model = Model("a model", load_bundle(tiny_bundle(tmp_path / "model", resolution=32)), "its files", 8, CPU)
    painted = Copying(model, [f"prompt {i}" for i in range(16)], range(16), 1.0)
    painted.train = train
    evaluator = an_evaluator(save_two_judges(tmp_path / "judges"), tmp_path / "work", a_protocol())
    reals = references(evaluator.see(heldout, None), evaluator.panel)["small_clip"]
    some = training_pictures(train, settings())
    neighbours = find_copies(evaluator, painted, some, reals, None, "small_clip", settings(), tmp_path / "out")
    return neighbours, train, tmp_path / "out"


def test_planted_copies_are_shown_first_with_what_they_are_copies_of(found):
    neighbours, train, _ = found
    assert neighbours.num_samples == 12, "the sample of number 12 is a copy too, but does not count"
    assert sorted(neighbours.prompts) == ["prompt 0", "prompt 4", "prompt 8"]
    for prompt, near in zip(neighbours.prompts, neighbours.neighbours, strict=True):
        number = 5 + int(prompt.split()[1])
        assert near[0].cosine == pytest.approx(1, abs=1e-5)
        assert near[0].key == train.shards[number].key
        assert near[0].caption == train.shards[number].caption
        assert near[1].cosine < near[0].cosine


def test_the_share_of_samples_nearer_than_held_out_pictures_is_the_copies(found):
    neighbours, _, _ = found
    assert neighbours.closer_than_heldout == pytest.approx(3 / 12)
    assert neighbours.median_of_samples < neighbours.median_of_heldout < 1


def test_the_sheet_shows_each_sample_beside_its_neighbours(found):
    neighbours, _, out = found
    with Image.open(out / neighbours.sheet) as sheet:
        tile = neighbours.tile_px
        assert sheet.size == (3 * tile, 3 * tile)
        sample, copy = (sheet.convert("RGB").crop((left, 0, left + tile, tile)) for left in (0, tile))
        assert sample.tobytes() == copy.tobytes()


def test_the_judge_is_one_that_the_training_did_not_use(tmp_path):
    judges = save_two_judges(tmp_path)
    measures = a_protocol(
        measures=[measure_of("small_clip", "kernel"), measure_of("inception", "kernel", resize="clean")]
    ).measures
    for players, expected in (
        (frozenset(), "small_clip"),
        (weights_sha256(judges / "small_clip"), "inception_clean"),
        (weights_sha256(judges / "small_clip") | weights_sha256(judges / "inception"), "small_clip"),
    ):
        assert extractor_for_copies(Panel(judges, measures, CPU, players)) == expected
