"""Each switch of the ablation against its definition: what the networks are without one of the paper's redesigns."""

import pytest
import timm.models.vision_transformer
import torch
import torch.nn.functional as F
from torch import nn

from stylegan_t.models.discriminator import Discriminator, Head, LocalBatchNorm, has_local_batch_norm
from stylegan_t.models.generator import Generator, resized
from stylegan_t.models.layers import AffineStyle, ResidualLayer, SecondOrderStyle, new_style
from stylegan_t.models.ops import modulated_conv2d, upsample2d
from stylegan_t.models.vit import TimmFrozenViT

close = torch.testing.assert_close
SMALL = {"resolution": 16, "z_dim": 6, "c_dim": 4, "channel_base": 1024, "channel_max": 32, "num_res_blocks": 2}
OFF = [{}, {"residual": False}, {"second_order_styles": False}, {"text_bypass": False}]
"""All on, and each of the generator's three off."""


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


def inputs(n=2):
    return torch.randn(n, SMALL["z_dim"]), torch.randn(n, SMALL["c_dim"])


def modules(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def test_a_first_order_style_is_the_affine_function_s_own_output():
    style, w = new_style(7, 5, second_order_styles=False), torch.randn(3, 7)
    close(style(w), w @ style.linear.weight.T / 7**0.5 + 1)
    assert isinstance(new_style(7, 5, second_order_styles=True), SecondOrderStyle)


@pytest.mark.parametrize("residual", [True, False])
def test_the_order_of_the_styles_is_that_of_every_layer_and_rgb(residual):
    second, first = (small_generator(second_order_styles=order, residual=residual) for order in (True, False))
    assert not modules(second, AffineStyle) and not modules(first, SecondOrderStyle)
    assert len(modules(first, AffineStyle)) == 4 + 5 + 2 == len(modules(second, SecondOrderStyle))


def test_a_pair_without_residual_layer_applies_two_plain_layers_one_after_the_other():
    generator = small_generator(residual=False)
    assert not modules(generator, (nn.GroupNorm, ResidualLayer))
    assert not [name for name in generator.state_dict() if "layer_scale" in name or "norm" in name]
    assert len(generator.synthesis.noise_shapes) == len(small_generator().synthesis.noise_shapes)
    block = generator.synthesis.block(8)
    ws, given = torch.randn(2, len(block.layers) + 1, 10), torch.randn(2, 32, 8, 8)
    noises = [torch.randn(2, 1, 8, 8) for _ in block.layers]
    found, _ = block(given, None, ws, noises)
    x = given
    for layer, w, noise in zip(block.layers, ws.unbind(1), noises, strict=False):
        x = modulated_conv2d(x, layer.weight, layer.style(w))
        x = F.leaky_relu(x + noise * layer.noise_strength + layer.bias[:, None, None], 0.2) * 2**0.5
    close(found, x)


@pytest.mark.parametrize(("residual", "kept"), [(False, 1.04), (True, 0.52)])
def test_plain_layers_keep_the_scale_where_no_group_norm_restores_it(residual, kept):
    """White noise stays 1 in square away from the border, but for the leaky ReLU's 4 %."""
    first, second = Generator(**{**SMALL, "residual": residual}).synthesis.block(8).layers[:2]
    for layer in (first, second.layer if residual else second):
        y = layer(torch.randn(64, 32, 8, 8), torch.randn(64, 10), None).detach()
        assert y[:, :, 1:-1, 1:-1].square().mean().item() == pytest.approx(kept, rel=0.05)


def test_without_the_bypass_the_mapping_reads_latent_and_text_side_by_side():
    mapping = small_generator(text_bypass=False).mapping
    z, c = inputs()
    x = torch.cat([z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt(), c], dim=1)
    for layer, last in ((mapping.fc0, False), (mapping.fc1, True)):
        assert layer.weight.shape == (10, 10) and layer.lr_mul == 0.01
        x = F.linear(x, layer.weight * 0.01 / 10**0.5, layer.bias * 0.01)
        x = x if last else F.leaky_relu(x, 0.2) * 2**0.5
    close(mapping(z, c), x[:, None].expand(-1, mapping.num_ws, -1))
    with pytest.raises(ValueError, match="c_dim = 4: pass text embeddings c"):
        mapping(z)


def test_without_the_bypass_truncation_and_the_mean_latent_take_all_of_w():
    generator = small_generator(text_bypass=False)
    mapping, (z, c) = generator.mapping, inputs()
    w, before = mapping(z, c)[:, 0], mapping.w_avg.clone()
    assert before.shape == (10,)
    close(mapping(z, c, 0.25)[:, 0], before + 0.25 * (w - before))
    mapping.train()(z, c, 0.25)
    close(mapping.w_avg, 0.995 * before + 0.005 * w.mean(dim=0))


@pytest.mark.parametrize("text_bypass", [True, False])
def test_full_truncation_forgets_the_text_exactly_where_it_goes_through_the_mapping(text_bypass):
    generator = small_generator(text_bypass=text_bypass)
    (z, c), other_c = inputs(), torch.randn(2, 4)
    first, second = (generator(z, text, 0.0, "const") for text in (c, other_c))
    assert first.equal(second) != text_bypass
    assert not generator(z, c, 1.0, "const").equal(generator(z, other_c, 1.0, "const"))


def test_without_text_there_is_nothing_to_bypass():
    generator = small_generator(c_dim=0, text_bypass=False)
    z = torch.randn(2, 6)
    assert generator.mapping(z, torch.randn(2, 1)).equal(generator.mapping(z))


@pytest.mark.parametrize("off", OFF, ids=str)
def test_a_resized_generator_keeps_its_switches_and_first_paints_the_old_picture(off):
    old, (z, c) = small_generator(**off), inputs()
    grown = resized(old, 32)
    assert grown.arguments == {**old.arguments, "resolution": 32}
    assert grown(z, c, 0.7, "const").equal(upsample2d(old(z, c, 0.7, "const")))
    close(resized(grown, 16)(z, c, 0.7, "const"), old(z, c, 0.7, "const"), rtol=0, atol=0)


@pytest.mark.parametrize("off", OFF, ids=str)
def test_the_arguments_build_the_same_architecture(off):
    generator = small_generator(**off)
    assert generator.arguments == {**SMALL, "residual": True, "second_order_styles": True, "text_bypass": True, **off}
    Generator(**generator.arguments).load_state_dict(generator.state_dict())


@pytest.mark.parametrize("off", OFF[1:], ids=str)
def test_bfloat16_stays_close_to_float32_whatever_is_off(off):
    generator, (z, c) = small_generator(**off), inputs(4)
    exact = generator(z, c, noise="const")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = generator(z, c, noise="const")
    assert half.dtype == torch.float32
    assert (half - exact).norm() < 0.02 * exact.norm()


def small_discriminator(**switch):
    net = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=0
    )
    return Discriminator(TimmFrozenViT(net, hooks=(0, 2), mean=(0.5,) * 3, std=(0.5,) * 3), 4, **switch).eval()


@pytest.mark.parametrize("local_batch_norm", [True, False])
def test_an_image_s_logits_depend_on_its_neighbours_only_through_the_local_batch_norm(local_batch_norm):
    discriminator = small_discriminator(local_batch_norm=local_batch_norm)
    images, c = torch.rand(8, 3, 32, 32) * 2 - 1, torch.randn(8, 4)
    others = images.clone()
    others[1:] = -others[1:].flip(0)
    first, second = discriminator(images, c)[0], discriminator(others, c)[0]
    assert torch.allclose(first, second, atol=1e-5) != local_batch_norm


def test_heads_without_local_batch_norm_have_the_spectral_norm_alone():
    discriminator = small_discriminator(local_batch_norm=False)
    assert not modules(discriminator.heads, (LocalBatchNorm, nn.modules.batchnorm._BatchNorm))
    head = Head(24, 4, 9, local_batch_norm=False)
    tokens, c = torch.randn(3, 16, 24), torch.randn(3, 4)
    x = F.leaky_relu(head.point.conv(tokens.transpose(1, 2)), 0.2)
    x = (F.leaky_relu(head.context.conv(x), 0.2) + x) / 2**0.5
    close(head(tokens, c), (head.project(x) * head.c_map(c)[:, :, None]).sum(dim=1) / 64**0.5, rtol=1e-4, atol=1e-3)


def test_any_number_of_images_can_be_judged_without_local_batch_norm():
    discriminator = small_discriminator(local_batch_norm=False)
    images, c = torch.rand(9, 3, 32, 32), torch.randn(9, 4)
    close(discriminator(images, c)[8:], discriminator(images[8:], c[8:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("c_dim", [0, 4])
def test_heads_without_local_batch_norm_give_float32_logits_under_autocast(c_dim):
    head = Head(24, c_dim, 9, local_batch_norm=False)
    tokens, c = torch.randn(3, 16, 24), torch.randn(3, c_dim) if c_dim else None
    exact = head(tokens, c)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(tokens, c)
    assert half.dtype == torch.float32
    assert (half - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("local_batch_norm", [True, False])
def test_saved_heads_tell_whether_they_have_a_local_batch_norm(local_batch_norm):
    heads = small_discriminator(local_batch_norm=local_batch_norm).trainable_state()
    assert has_local_batch_norm(heads) == local_batch_norm


def test_the_residual_switch_changes_no_random_draw():
    torch.manual_seed(1)
    on = Generator(**SMALL).state_dict()
    torch.manual_seed(1)
    off = Generator(**SMALL, residual=False).state_dict()
    plain = {name.replace(".layer.", "."): value for name, value in on.items()}
    assert all(plain[name].equal(value) for name, value in off.items())
