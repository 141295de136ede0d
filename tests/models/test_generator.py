"""The generator's wiring, its state, its growth and what it says to a wrong setting."""

import copy

import pytest
import torch

from stylegan_t.models.generator import Generator, resized
from stylegan_t.models.ops import upsample2d

close = torch.testing.assert_close
SMALL = {
    "resolution": 16,
    "z_dim": 6,
    "c_dim": 4,
    "channel_base": 512,
    "channel_max": 32,
    "num_res_blocks": 1,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small_generator(**changes):
    """A generator whose every parameter matters: scales and noise that start at zero are drawn."""
    generator = Generator(**{**SMALL, **changes})
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("layer_scale", "noise_strength", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
        generator.mapping.w_avg.normal_()
    return generator.eval()


def inputs(generator, n=2):
    return torch.randn(n, generator.z_dim), torch.randn(n, generator.c_dim)


def test_text_bypasses_the_mapping_and_truncation():
    generator = small_generator()
    z, c = inputs(generator)
    for psi in (1.0, 0.3):
        close(generator.mapping(z, c, psi)[:, 0, 6:], c, rtol=0, atol=0)
    close(generator.mapping(z, c)[:, 0, :6], generator.mapping(z, 2 * c)[:, 0, :6])


def test_psi_interpolates_from_the_mean_latent():
    generator = small_generator()
    z, c = inputs(generator)
    w_avg, w = generator.mapping.w_avg, generator.mapping(z, c)[:, 0, :6]
    close(generator.mapping(z, c, 0.0)[:, 0, :6], w_avg.expand(2, -1))
    close(generator.mapping(z, c, 0.25)[:, 0, :6], w_avg + 0.25 * (w - w_avg))


def test_the_mapping_ignores_the_length_of_z():
    generator = small_generator()
    z, c = inputs(generator)
    close(generator.mapping(z, c), generator.mapping(10 * z, c))


@pytest.mark.parametrize("psi", [1.0, 0.5])
def test_w_avg_follows_the_untruncated_latents_while_training_only(psi):
    generator = small_generator()
    z, c = inputs(generator)
    before, x = generator.mapping.w_avg.clone(), generator.mapping.latent(z)
    generator(z, c, psi=psi)
    assert generator.mapping.w_avg.equal(before)
    generator.train()(z, c, psi=psi)
    close(generator.mapping.w_avg, 0.995 * before + 0.005 * x.mean(dim=0))
    assert not generator.mapping.w_avg.requires_grad


def test_one_update_with_the_global_batch_replaces_those_of_its_parts():
    whole, parts = small_generator().train(), small_generator().train()
    parts.load_state_dict(whole.state_dict())
    z, c = inputs(whole, n=4)
    whole(z, c)
    parts.mapping.follow(parts.mapping.latent(z).detach().mean(dim=0))
    for half in (slice(0, 2), slice(2, 4)):
        parts(z[half], c[half], track=False)
    assert parts.mapping.w_avg.equal(whole.mapping.w_avg)


def test_without_text_c_plays_no_part():
    generator = small_generator(c_dim=0)
    z = torch.randn(2, 6)
    assert generator.mapping(z).shape == (2, generator.num_ws, 6)
    close(generator(z, noise="const"), generator(z, torch.randn(2, 1), noise="const"))


def test_a_generator_with_text_asks_for_c():
    with pytest.raises(ValueError, match="c_dim = 4"):
        small_generator().mapping(torch.randn(1, 6))


def test_each_image_depends_on_its_own_inputs_alone():
    generator = small_generator()
    z, c = inputs(generator, n=3)
    together = generator(z, c, noise="const")
    close(together[1:2], generator(z[1:2], c[1:2], noise="const"), rtol=1e-4, atol=1e-5)


def test_random_noise_differs_by_call_and_none_equals_zero_noise():
    generator = small_generator()
    z, c = inputs(generator)
    assert not generator(z, c).equal(generator(z, c))
    silent = [torch.zeros(2, 1, *shape) for shape in generator.synthesis.noise_shapes]
    close(generator(z, c, noise="none"), generator(z, c, noise=silent))
    assert not generator(z, c, noise="none").equal(generator(z, c, noise="const"))


def test_given_noise_reaches_its_layer():
    generator = small_generator()
    z, c = inputs(generator, n=1)
    stored = [b[None, None] for name, b in generator.named_buffers() if name.endswith("noise_const")]
    close(generator(z, c, noise=stored), generator(z, c, noise="const"), rtol=0, atol=0)
    assert generator.synthesis.noise_shapes == [tuple(image.shape[2:]) for image in stored]


def test_random_noise_is_one_image_per_picture():
    generator = small_generator()
    z, c = inputs(generator, n=1)
    for noise, differs in (("random", True), ("const", False)):
        first, second = generator(z.expand(2, -1), c.expand(2, -1), noise=noise)
        assert ((first - second).norm() > 1e-2 * first.norm()) == differs


def test_a_wrong_noise_is_named():
    generator = small_generator()
    ws = generator.mapping(*inputs(generator))
    with pytest.raises(ValueError, match="1 noise images for 5 layers"):
        generator.synthesis(ws, [torch.zeros(2, 1, 8, 8)])


@pytest.mark.parametrize("num_res_blocks", [1, 2])
def test_num_ws_counts_the_input_the_layers_and_the_last_rgb(num_res_blocks):
    generator = small_generator(resolution=32, channel_base=1024, num_res_blocks=num_res_blocks)
    assert generator.num_ws == 1 + 2 * num_res_blocks + 2 * (1 + 2 * num_res_blocks) + 1


def test_the_mapping_learns_a_hundredth_as_fast():
    mapping = Generator(**{**SMALL, "z_dim": 64}).mapping
    for layer in (mapping.fc0, mapping.fc1):
        close(layer.weight.std(), torch.tensor(100.0), rtol=0.05, atol=0)


def test_layers_in_pairs_are_damped_and_up_sampling_ones_are_not():
    up, plain, residual = small_generator().synthesis.blocks["16"].layers
    assert up.extra_gain == 1
    assert plain.extra_gain == residual.layer.extra_gain == 0.5**0.5


def test_to_rgb_shares_its_w_with_the_next_block_s_first_layer():
    generator = small_generator()
    ws = generator.mapping(*inputs(generator, n=1)).detach().clone().requires_grad_()
    x8 = generator.synthesis.input(ws[:, 0])
    block8, block16 = generator.synthesis.blocks["8"], generator.synthesis.blocks["16"]
    for i, layer in enumerate(block8.layers):
        x8 = layer(x8, ws[:, 1 + i], None)
    image = block8.to_rgb(x8, ws[:, 3])
    x16 = x8
    for i, layer in enumerate(block16.layers):
        x16 = layer(x16, ws[:, 3 + i], None)
    image = upsample2d(image) + block16.to_rgb(x16, ws[:, 6])
    mixed = ws + torch.zeros_like(ws)
    close(generator.synthesis(mixed, "none"), image)


@pytest.mark.parametrize("noise", ["const", "none"])
def test_a_grown_generator_first_paints_the_old_picture_up_sampled(noise):
    old = small_generator(channel_base=32 * 64)
    z, c = inputs(old)
    grown = resized(old, 64)
    assert grown.resolution == 64 and not grown.training
    expected = upsample2d(upsample2d(old(z, c, 0.7, noise)))
    assert grown(z, c, 0.7, noise).equal(expected)


def test_a_grown_generator_keeps_every_old_weight_and_can_learn_its_new_ones():
    old = small_generator(channel_base=1024)
    before = copy.deepcopy(old.state_dict())
    grown = resized(old, 32)
    for name, tensor in before.items():
        assert grown.state_dict()[name].equal(tensor), name
        assert grown.state_dict()[name].data_ptr() != old.state_dict()[name].data_ptr(), name
    grown(*inputs(grown), noise="const").square().sum().backward()
    assert grown.synthesis.blocks["32"].to_rgb.weight.grad.abs().max() > 0


def test_a_smaller_one_paints_what_the_lower_blocks_had_summed_up():
    whole = small_generator()
    z, c = inputs(whole)
    small = resized(whole, 8)
    ws = whole.mapping(z, c)
    parts = whole.synthesis
    _, expected = parts.block(8)(parts.input(ws[:, 0]), None, ws[:, 1:4], [None, None])
    assert small.resolution == 8
    assert small(z, c, noise="none").equal(expected)
    large = small_generator(channel_base=1024)
    again = resized(resized(large, 32), 16)
    assert again(z, c, noise="const").equal(large(z, c, noise="const"))


@pytest.mark.parametrize("resolution", [4, 24, 0])
def test_a_resolution_that_cannot_be_doubled_to_is_named(resolution):
    with pytest.raises(ValueError, match=rf"resolution = {resolution}.*power of two of at least 8"):
        Generator(**{**SMALL, "resolution": resolution})


@pytest.mark.parametrize(("base", "most", "channels"), [(512, 48, 48), (256, 32, 16), (640, 96, 80), (8, 32, 1)])
def test_channels_that_the_group_norm_cannot_divide_are_named(base, most, channels):
    with pytest.raises(ValueError, match=rf"channel_base = {base}, channel_max = {most}.* = {channels} channels"):
        Generator(**{**SMALL, "channel_base": base, "channel_max": most})


@pytest.mark.parametrize(
    ("base", "most", "blocks", "resolution", "millions"),
    [(32768, 512, 2, 64, 74.6), (65536, 2048, 3, 64, 975.6), (65536, 2048, 3, 512, 1020.5)],
)
def test_the_published_sizes_have_the_published_numbers_of_parameters(base, most, blocks, resolution, millions):
    with torch.device("meta"):
        generator = Generator(
            resolution=resolution,
            z_dim=64,
            c_dim=768,
            channel_base=base,
            channel_max=most,
            num_res_blocks=blocks,
        )
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 1) == millions


def test_the_same_seed_builds_the_same_generator():
    first = Generator(**SMALL).state_dict()
    torch.manual_seed(0)
    second = Generator(**SMALL).state_dict()
    assert all(first[name].equal(second[name]) for name in first)


def test_bfloat16_stays_close_to_float32():
    generator = small_generator(resolution=32, channel_base=2048, channel_max=64)
    z, c = inputs(generator, n=4)
    exact = generator(z, c, noise="const")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = generator(z, c, noise="const")
    assert half.dtype == torch.float32
    assert (half - exact).norm() < 0.02 * exact.norm()
