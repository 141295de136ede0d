"""Pictures belong to their seeds; grids show them where they should be."""

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_t.sampling import embed, grid, sample, save_png, save_webp, tile_px
from tests.bundles import C_DIM, tiny_generator, tiny_text_encoder

SEEDS = [3, 1, 4, 15, 9, 2, 6]


@pytest.fixture
def generator():
    return tiny_generator()


@pytest.fixture
def c():
    return torch.nn.functional.normalize(torch.randn(7, C_DIM, generator=torch.Generator().manual_seed(0)), dim=1)


def difference(a, b):
    return (a.int() - b.int()).abs().max().item()


def test_an_image_depends_on_its_own_seed_alone(generator, c):
    together = sample(generator, c, SEEDS)
    for i, seed in enumerate(SEEDS):
        assert difference(sample(generator, c[i : i + 1], [seed])[0], together[i]) <= 1
    assert difference(sample(generator, c, SEEDS, batch_size=3), together) <= 1
    assert difference(sample(generator, c.flip(0), SEEDS[::-1]).flip(0), together) <= 1


def test_latent_and_spatial_noise_both_follow_the_seed(generator, c):
    same_c = c[:1].expand(2, -1)
    assert difference(*sample(generator, same_c, [1, 2])) > 20
    fixed_latent = sample(generator, same_c, [1, 2], psi=0.0)  # what still differs is spatial noise
    assert difference(*fixed_latent) > 20
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.zero_()
    assert difference(*sample(generator, same_c, [1, 2], psi=0.0)) <= 1


def test_the_same_call_gives_the_same_bytes_whatever_was_drawn_before(generator, c):
    first = sample(generator, c, SEEDS)
    torch.randn(5)
    assert torch.equal(sample(generator, c, SEEDS), first)


def test_sampling_leaves_the_generator_as_it_was(generator, c):
    generator.train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    sample(generator, c, SEEDS)
    assert generator.training
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())


def test_a_missing_seed_is_refused(generator, c):
    with pytest.raises(ValueError, match="2 seeds for 7 text embeddings"):
        sample(generator, c, [1, 2])


def test_embeddings_come_in_the_order_of_the_prompts_and_repeat_with_them():
    text_encoder = tiny_text_encoder()
    prompts = ["a red circle", "a dog", "a red circle", "a cat"]
    c = embed(text_encoder, prompts, batch_size=2)
    torch.testing.assert_close(c[3], text_encoder(text_encoder.tokenize(["a cat"]))[0].detach())
    assert torch.equal(c[0], c[2])
    assert (c[0] - c[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("resolution", "tile"), [(8, 64), (16, 64), (64, 64), (128, 128), (512, 256)])
def test_small_pictures_are_enlarged_by_whole_factors_and_large_ones_reduced(resolution, tile):
    assert tile_px(resolution) == tile


def test_a_grid_shows_image_i_j_enlarged_at_row_i_column_j():
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(grid(images, columns=3))
    assert sheet.shape == (2 * 64, 3 * 64, 3)
    tile = sheet[64:128, 128:192]  # row 1, column 2
    np.testing.assert_array_equal(tile, images[5].permute(1, 2, 0).numpy().repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.parametrize(("save", "name"), [(save_webp, "a.webp"), (save_png, "a.png")])
def test_files_keep_every_pixel_and_repeat_their_bytes(tmp_path, save, name):
    picture = grid(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), columns=2)
    save(tmp_path / name, picture)
    save(tmp_path / f"again-{name}", picture)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()
    with Image.open(tmp_path / name) as read:
        np.testing.assert_array_equal(np.asarray(read), np.asarray(picture))
