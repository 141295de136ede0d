from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan_t.data import shape_pairs
from stylegan_t.data.images import to_signed
from stylegan_t.data.pair_oracle import PairReading, read_pairs
from stylegan_t.data.shape_pairs import Figure, PairScene

SCENES = [shape_pairs.pair_scene(number, 1234, shape_pairs.pair_combinations()) for number in range(300)]


def drawn(image_px: int, scenes: list[PairScene] = SCENES) -> torch.Tensor:
    return torch.from_numpy(shape_pairs.draw_pairs(scenes, image_px)).permute(0, 3, 1, 2).contiguous()


def without_second(scene: PairScene) -> PairScene:
    """The second figure has the background's colour: it is not there."""
    return scene._replace(combination=scene.combination._replace(second=Figure("circle", scene.combination.background)))


def right(reading: PairReading, scene: PairScene) -> bool:
    asked = scene.combination
    figures = {seen.figure: (seen.x, seen.y) for seen in reading.figures}
    places = {asked.first: scene.first_centre, asked.second: scene.second_centre}
    return (
        reading.background == asked.background
        and set(figures) == set(places)
        and all(np.abs(np.subtract(figures[figure], places[figure])).max() < 0.02 for figure in places)
    )


def share_right(images: torch.Tensor) -> float:
    return float(np.mean([right(reading, scene) for reading, scene in zip(read_pairs(images), SCENES, strict=True)]))


@pytest.mark.parametrize("image_px", [16, 32, 64, 128])
def test_reads_every_freshly_drawn_picture_with_both_places(image_px):
    assert share_right(drawn(image_px)) == 1


def test_bytes_and_floats_read_alike():
    images = drawn(32)[:50]
    assert read_pairs(images) == read_pairs(to_signed(images))


def test_bears_the_faults_of_generated_pictures():
    images, generator = to_signed(drawn(32)), torch.Generator().manual_seed(0)
    soft = F.interpolate(F.interpolate(images, size=16, mode="area"), size=32, mode="bilinear")
    noisy = (images + 0.2 * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    tinted = (images * 0.8 + 0.3 * (torch.rand(len(images), 3, 1, 1, generator=generator) - 0.5)).clamp(-1, 1)
    for faulty in (soft, noisy, tinted):
        assert share_right(faulty) >= 0.99


@pytest.mark.parametrize("image_px", [16, 32, 64])
def test_a_figure_that_is_not_there_is_none_and_the_other_is_read(image_px):
    for reading, scene in zip(read_pairs(drawn(image_px, [*map(without_second, SCENES)])), SCENES, strict=True):
        assert reading.background == scene.combination.background
        assert reading.one is not None and reading.one.figure == scene.combination.first
        assert reading.other is None and reading.figures == [reading.one]


def test_an_empty_background_holds_no_figure():
    images = drawn(32)[:, :, :1, :1].expand(-1, -1, 32, 32)
    for reading, scene in zip(read_pairs(images), SCENES, strict=True):
        assert reading == PairReading(scene.combination.background, None, None)


@pytest.mark.parametrize("what", ["bytes", "gaussian", "smooth", "shuffled"])
def test_noise_shows_no_two_figures(what):
    shape, generator = (300, 3, 32, 32), torch.Generator().manual_seed(0)
    if what == "bytes":
        images = torch.rand(shape, generator=generator) * 2 - 1
    elif what == "gaussian":
        images = 0.3 * torch.randn(shape, generator=generator)
    elif what == "smooth":
        images = F.interpolate(torch.randn(300, 3, 6, 6, generator=generator), size=32, mode="bicubic")
    else:
        order = torch.rand(300, 1, 32**2, generator=generator).argsort(dim=2).expand(-1, 3, -1)
        images = to_signed(drawn(32)).flatten(2).gather(2, order).view(shape)
    readings = read_pairs(images.clamp(-1, 1))
    assert np.mean([len(reading.figures) < 2 for reading in readings]) >= 0.99


@pytest.mark.parametrize(
    ("back", "blue"),
    [((1.0, 1.0, 1.0), 0.2), ((1.0, 0.94, 0.2), 0.0)],
    ids=["named like the background", "hardly another colour, though of another name"],
)
def test_a_trace_of_a_figure_is_none(back, blue):
    images = torch.tensor(back).view(1, 3, 1, 1).repeat(1, 1, 64, 64)
    images[:, 2, 20:42, 20:42] = blue
    assert read_pairs(images)[0] == PairReading("white", None, None)


def test_a_shapeless_figure_is_none():
    """A frame of the figure's size, empty inside, resembles none of the shapes."""
    images = torch.full((1, 3, 64, 64), 1.0)
    images[:, 1:, 20:42, 20:42] = -1
    assert [seen.figure for seen in read_pairs(images)[0].figures] == [Figure("square", "red")]
    images[:, :, 23:39, 23:39] = 1
    assert read_pairs(images)[0] == PairReading("white", None, None)
