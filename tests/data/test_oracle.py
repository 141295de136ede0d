from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan_t.data import shapes
from stylegan_t.data.images import to_signed
from stylegan_t.data.oracle import NOTHING, Reading, read_attributes

ATTRIBUTES = ("shape", "colour", "background", "size")
SCENES = [shapes.scene(number, 1234, shapes.combinations()) for number in range(448)]


def drawn(image_px: int) -> torch.Tensor:
    return torch.from_numpy(shapes.draw(SCENES, image_px)).permute(0, 3, 1, 2).contiguous()


def share_right(readings: list[Reading]) -> dict[str, float]:
    pairs = list(zip(readings, SCENES, strict=True))
    return {a: float(np.mean([getattr(r, a) == getattr(s.combination, a) for r, s in pairs])) for a in ATTRIBUTES}


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("image_px", [16, 32, 64])
def test_reads_99_percent_of_every_attribute_of_freshly_drawn_pictures(image_px):
    readings = read_attributes(drawn(image_px))
    assert min(share_right(readings).values()) >= 0.99
    found = [(r, s) for r, s in zip(readings, SCENES, strict=True) if r.x is not None and r.y is not None]
    assert max(max(abs(r.x - s.x), abs(r.y - s.y)) for r, s in found) < 0.03
    assert max(r.rmse for r, _ in found if r.rmse is not None) < 25


def test_bytes_and_floats_read_alike():
    images = drawn(32)[:50]
    assert read_attributes(images) == read_attributes(to_signed(images))


@pytest.mark.parametrize("image_px", [16, 32, 64])
@pytest.mark.parametrize("what", ["bytes", "gaussian", "smooth", "flat", "nearly flat", "shuffled"])
def test_answers_none_where_a_picture_shows_nothing(what, image_px):
    shape, generator = (300, 3, image_px, image_px), rng()
    flat = torch.rand(300, 3, 1, 1, generator=generator).expand(shape) * 2 - 1
    if what == "bytes":
        images = torch.rand(shape, generator=generator) * 2 - 1
    elif what == "gaussian":
        images = 0.3 * torch.randn(shape, generator=generator)
    elif what == "smooth":
        images = F.interpolate(torch.randn(300, 3, 6, 6, generator=generator), size=image_px, mode="bicubic")
    elif what == "flat":
        images = flat
    elif what == "nearly flat":
        images = flat + 0.1 * torch.randn(shape, generator=generator)
    else:
        order = torch.rand(300, 1, image_px**2, generator=generator).argsort(dim=2).expand(-1, 3, -1)
        images = to_signed(drawn(image_px)[:300]).flatten(2).gather(2, order).view(shape)
    readings = read_attributes(images.clamp(-1, 1))
    for attribute in ATTRIBUTES:
        assert np.mean([getattr(reading, attribute) is None for reading in readings]) >= 0.95


def test_bears_the_faults_of_generated_pictures():
    images, generator = to_signed(drawn(32)), rng()
    soft = F.interpolate(F.interpolate(images, size=12, mode="area"), size=32, mode="bilinear")
    noisy = (images + 0.2 * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    tinted = (images * 0.8 + 0.3 * (torch.rand(len(images), 3, 1, 1, generator=generator) - 0.5)).clamp(-1, 1)
    for faulty in (soft, noisy, tinted):
        assert min(share_right(read_attributes(faulty)).values()) >= 0.95


def test_a_wrong_picture_is_read_as_what_it_shows_not_as_what_was_asked():
    readings = read_attributes(drawn(32).roll(1, dims=0))
    rolled = [SCENES[-1], *SCENES[:-1]]
    assert [r.combination for r in readings] == [s.combination for s in rolled]


def test_the_redraw_error_grows_with_the_noise():
    images = to_signed(drawn(32)[:64])
    noisy = (images + 0.2 * torch.randn(images.shape, generator=rng())).clamp(-1, 1)
    clean_error, noisy_error = (
        np.mean([r.rmse for r in read_attributes(i) if r.rmse is not None]) for i in (images, noisy)
    )
    assert clean_error < 8 < noisy_error


def test_nothing_has_no_combination():
    assert NOTHING.combination is None
