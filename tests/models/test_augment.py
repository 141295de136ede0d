"""Each augmentation against its definition, image by image."""

import pytest
import torch

from stylegan_t.models.augment import AUGMENTATIONS, NUM_DRAWS, crop_origin, diff_augment

close = torch.testing.assert_close
N, SIDE = 6, 16


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images_and_draws(n=N, side=SIDE):
    return torch.rand(n, 3, side, side) * 2 - 1, torch.rand(n, NUM_DRAWS)


def test_no_operations_leave_the_images_alone():
    images, draws = images_and_draws()
    assert diff_augment(images, draws, ()).equal(images)


def test_brightness_adds_a_constant_within_one_half():
    images, draws = images_and_draws()
    draws[0, 0], draws[1, 0] = 0.0, 1.0
    added = diff_augment(images, draws, ["brightness"]) - images
    close(added, (draws[:, 0, None, None, None] - 0.5).expand_as(images))
    assert added.min() == pytest.approx(-0.5) and added.max() == pytest.approx(0.5)


def test_saturation_scales_the_distance_from_the_channel_mean_up_to_twice():
    images, draws = images_and_draws()
    out = diff_augment(images, draws, ["saturation"])
    for i in range(N):
        grey = images[i].mean(dim=0)
        close(out[i], (images[i] - grey) * 2 * draws[i, 1] + grey)


def test_contrast_scales_the_distance_from_the_image_mean_by_half_to_one_and_a_half():
    images, draws = images_and_draws()
    out = diff_augment(images, draws, ["contrast"])
    for i in range(N):
        mean = images[i].mean()
        close(out[i], (images[i] - mean) * (0.5 + draws[i, 2]) + mean)


@pytest.mark.parametrize("side", [16, 24, 64])
def test_translation_moves_by_up_to_an_eighth_of_the_side_and_zeros_move_in(side):
    images, draws = images_and_draws(n=300, side=side)
    out = diff_augment(images, draws, ["translation"])
    reach = side // 8
    seen = set()
    for image, moved, (u, v) in zip(images, out, draws[:, 3:5].tolist(), strict=True):
        dy, dx = int(u * (2 * reach + 1)) - reach, int(v * (2 * reach + 1)) - reach
        expected = torch.zeros_like(image)
        for y in range(max(0, dy), min(side, side + dy)):
            expected[:, y, max(0, dx) : side + min(0, dx)] = image[:, y - dy, max(0, -dx) : side - max(0, dx)]
        assert moved.equal(expected)
        seen |= {("y", dy), ("x", dx)}
    assert seen == {(axis, shift) for axis in "xy" for shift in range(-reach, reach + 1)}


@pytest.mark.parametrize(("side", "size"), [(16, 3), (32, 6), (64, 13)])
def test_cutout_zeroes_one_square_of_a_fifth_of_the_side(side, size):
    images, draws = torch.ones(50, 3, side, side), torch.rand(50, NUM_DRAWS)
    out = diff_augment(images, draws, ["cutout"])
    whole = 0
    for i in range(len(images)):
        rows, columns = (out[i, 0] == 0).any(dim=1).nonzero(), (out[i, 0] == 0).any(dim=0).nonzero()
        height, width = len(rows), len(columns)
        assert (out[i] == 0).sum() == 3 * height * width
        assert rows.max() - rows.min() == height - 1 and columns.max() - columns.min() == width - 1
        for covered, draw in ((rows, draws[i, 5]), (columns, draws[i, 6])):
            first = int(draw * side) - size // 2
            assert covered.flatten().tolist() == list(range(max(0, first), min(side, first + size)))
        whole += height == width == size
    assert whole > 20


def test_each_image_has_its_own_draws():
    images, draws = images_and_draws()
    together = diff_augment(images, draws, AUGMENTATIONS)
    for i in range(N):
        close(together[i : i + 1], diff_augment(images[i : i + 1], draws[i : i + 1], AUGMENTATIONS))


def test_the_order_in_the_settings_does_not_matter_and_cutout_comes_last():
    images, draws = images_and_draws()
    assert diff_augment(images, draws, AUGMENTATIONS[::-1]).equal(diff_augment(images, draws, AUGMENTATIONS))
    cut = diff_augment(torch.ones_like(images), draws, ["cutout"]) == 0
    assert diff_augment(images, draws, AUGMENTATIONS)[cut].eq(0).all()


def test_gradients_are_those_of_finite_differences():
    draws = torch.rand(2, NUM_DRAWS, dtype=torch.float64)
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, draws, AUGMENTATIONS), (images,))


def test_an_unknown_operation_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"'colour'.*brightness, saturation, contrast, translation, cutout"):
        diff_augment(*images_and_draws(), ["cutout", "colour"])


def test_a_wrong_number_of_draws_is_named():
    with pytest.raises(ValueError, match="3 draws per image.*7"):
        diff_augment(torch.zeros(1, 3, 8, 8), torch.rand(1, 3), [])


def test_a_crop_reaches_every_place_and_never_leaves_the_image():
    draws = torch.rand(500, 2)
    origins = {crop_origin(10, 8, pair) for pair in draws}
    assert origins == {(top, left) for top in range(3) for left in range(3)}
    assert crop_origin(8, 8, torch.tensor([0.0, 0.999])) == (0, 0)


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="crop of 9 px"):
        crop_origin(8, 9, torch.zeros(2))
