"""Resizing by area, in the way that repeats itself on a GPU too, is torch's, forwards and backwards."""

import pytest
import torch
import torch.nn.functional as F

from stylegan_t.models.resize import resize


@pytest.fixture
def repeatable():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (20, 20), (10, 10), (24, 40)], ids=str)
@pytest.mark.parametrize("px", [14, 16, 27, 48])
def test_equals_torchs_area_interpolation_with_its_gradient(repeatable, size, px):
    images = torch.randn(2, 3, *size, requires_grad=True)
    probe = torch.randn(2, 3, px, px)
    results = []
    for resized in (resize(images, px), F.interpolate(images, size=(px, px), mode="area")):
        assert resized is images or "Pool" not in str(resized.grad_fn) or results
        (gradient,) = torch.autograd.grad((resized * probe).sum(), images)
        results.append((resized.detach(), gradient))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-5)


def test_images_of_that_size_come_back_as_they_are():
    images = torch.randn(1, 3, 8, 8)
    assert resize(images, 8) is images
