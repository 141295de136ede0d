"""What lower precision, another memory layout and compilation may change, and what they may not.

Errors are relative and in norm; beside each bound stands what was measured.
"""

import shutil
import subprocess
import sys

import pytest
import timm.models.vision_transformer
import torch
import torch.nn.functional as F

from stylegan_t.losses import clip_guidance, hinge_fake, hinge_generator, range_penalty
from stylegan_t.models.discriminator import Discriminator, LocalBatchNorm, SpectralConv1d
from stylegan_t.models.generator import Generator
from stylegan_t.models.layers import FourierInput, ResidualLayer, SecondOrderStyle, StyledConv, ToRGB
from stylegan_t.models.ops import demodulation, modulated_conv2d, working_dtype
from stylegan_t.models.vit import TimmFrozenViT

BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def autocast(enabled=True):
    return torch.autocast("cpu", BF16, enabled=enabled)


def small_generator():
    """Channels enough for sums to average rounding, and no parameter that starts out of play."""
    generator = Generator(resolution=32, z_dim=16, c_dim=8, channel_base=2048, channel_max=64, num_res_blocks=1)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("layer_scale", "noise_strength")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return generator


def small_discriminator():
    net = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=3, num_heads=2, num_classes=10
    )
    return Discriminator(TimmFrozenViT(net, hooks=(0, 2), mean=(0.5,) * 3, std=(0.5,) * 3), 8)


def relative_error(ours, exact):
    return ((ours.double() - exact.double()).norm() / exact.double().norm()).item()


def gradient(module, loss):
    """All parameters' gradients of a loss, end to end."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def painted(generator, z, c, probe):
    """An image, and the parameters' gradient of its product with ``probe``."""
    image = generator(z, c, noise="const", track=False)
    return image.detach(), gradient(generator, (image * probe).mean())


@pytest.fixture
def painting():
    """A generator and its inputs: latent, text, and what to multiply the image by."""
    return small_generator(), torch.randn(4, 16), F.normalize(torch.randn(4, 8)), torch.randn(4, 3, 32, 32)


def test_generator_in_bf16_agrees_with_float32(painting):
    image, grad = painted(*painting)
    with autocast():
        half_image, half_grad = painted(*painting)
    assert half_image.dtype == half_grad.dtype == torch.float32
    assert relative_error(half_image, image) < 0.02  # 0.0098 (0.008 to 0.010 over eight seeds)
    # 0.061 (0.056 to 0.112 over eight seeds: leaky ReLUs that change sides)
    assert relative_error(half_grad, grad) < 0.15


def test_discriminator_in_bf16_agrees_with_float32():
    discriminator = small_discriminator().eval()  # the spectral norms stay where they are
    images, c = torch.rand(8, 3, 32, 32) * 2 - 1, F.normalize(torch.randn(8, 8))

    def judged(enabled):
        seen = images.clone().requires_grad_()
        with autocast(enabled):
            logits = discriminator.judge(discriminator.tokens(seen), c)
            loss = hinge_fake(logits)
        to_heads = gradient(discriminator.heads, loss)
        with autocast(enabled):
            loss = hinge_generator(discriminator.judge(discriminator.tokens(seen), c))
        return logits.detach(), to_heads, torch.autograd.grad(loss, seen)[0]

    (logits, to_heads, to_images), half = judged(False), judged(True)
    assert {tensor.dtype for tensor in half} == {torch.float32}
    assert relative_error(half[0], logits) < 0.01  # 0.0045
    assert relative_error(half[1], to_heads) < 0.005  # 0.0008
    assert relative_error(half[2], to_images) < 0.1  # 0.054


def test_frozen_vit_in_bf16_agrees_with_float32():
    vit, images = small_discriminator().vit, torch.rand(4, 3, 40, 40) * 2 - 1
    tokens, embedding = vit(images, with_embedding=True)
    with autocast():
        half_tokens, half_embedding = vit(images, with_embedding=True)
    assert half_embedding.dtype == torch.float32
    assert relative_error(half_embedding, embedding) < 0.02  # 0.0072
    for ours, exact in zip(half_tokens, tokens, strict=True):
        assert relative_error(ours, exact) < 0.01  # 0.0036


def test_losses_stay_in_float32_under_autocast():
    logits, images = torch.randn(4, 9), 2 * torch.randn(4, 3, 8, 8)
    a, b = torch.randn(4, 8, dtype=BF16), torch.randn(4, 8)
    exact = [hinge_fake(logits), range_penalty(images), clip_guidance(a.float(), b)]
    with autocast():
        half = [hinge_fake(logits), range_penalty(images), clip_guidance(a, b)]
    for ours, wanted in zip(half, exact, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_channels_last_changes_neither_image_nor_gradient(painting):
    generator, *inputs = painting
    image, grad = painted(generator, *inputs)
    generator.to(memory_format=torch.channels_last)
    last_image, last_grad = painted(generator, *inputs)
    assert relative_error(last_image, image) < 1e-5  # 9e-7
    assert relative_error(last_grad, grad) < 1e-5  # 1.1e-6


def test_activations_follow_the_weights_into_channels_last():
    generator, outputs = small_generator().to(memory_format=torch.channels_last), []
    for block in generator.synthesis.blocks.values():
        for layer in block.layers:
            layer.register_forward_hook(lambda _, __, y: outputs.append(y))
    generator(torch.randn(2, 16), torch.randn(2, 8))
    assert len(outputs) == 2 + 3 + 3
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in outputs)


def in_bf16_as_in_float32(function, *inputs):
    """The function under autocast gives float32's very numbers."""
    exact = function(*inputs)
    with autocast():
        ours = function(*inputs)
    assert ours.dtype == torch.float32
    assert ours.equal(exact)


def test_styles_demodulation_and_the_input_are_exact_under_autocast():
    w = torch.randn(4, 24)
    in_bf16_as_in_float32(SecondOrderStyle(24, 64), w)
    in_bf16_as_in_float32(FourierInput(24, 64), w)
    in_bf16_as_in_float32(small_generator().mapping, torch.randn(4, 16), torch.randn(4, 8))
    scales = []
    weight, style, x = torch.randn(32, 32, 3, 3), torch.randn(4, 32), torch.randn(4, 32, 8, 8)
    with pytest.MonkeyPatch.context() as patch, autocast():
        patch.setattr("stylegan_t.models.ops.demodulation", lambda *a: scales.append(demodulation(*a)) or scales[-1])
        modulated_conv2d(x, weight, style)
    assert scales[0].dtype == torch.float32
    assert scales[0].equal(demodulation(weight, style))


def test_rgb_is_exact_under_autocast():
    to_rgb, x, w = ToRGB(24, 64), torch.randn(2, 64, 8, 8), torch.randn(2, 24)
    in_bf16_as_in_float32(to_rgb, x, w)
    with autocast():
        assert to_rgb(x.to(BF16), w).equal(to_rgb(x.to(BF16).float(), w))


def test_group_norm_s_statistics_and_the_skip_are_float32_under_autocast():
    layer, w = ResidualLayer(24, 64, 8), torch.randn(2, 24)
    with torch.no_grad():
        layer.layer_scale.zero_()
    in_bf16_as_in_float32(layer, 100 + torch.randn(2, 64, 8, 8), w, None)


def test_local_batch_norm_and_spectral_norm_are_exact_under_autocast():
    in_bf16_as_in_float32(LocalBatchNorm(16), 100 + torch.randn(16, 16, 9))
    conv = SpectralConv1d(16, 8, 3)
    in_bf16_as_in_float32(conv.normalised_weight)
    u, v = conv.u, conv.v
    conv.iterate()
    exact = conv.u
    conv.u, conv.v = u, v
    with autocast():
        conv.iterate()
    assert conv.u.equal(exact)


def test_a_convolution_runs_in_the_autocast_s_precision():
    x, w = torch.randn(2, 32, 8, 8), torch.randn(2, 24)
    assert working_dtype(x) == torch.float32
    assert StyledConv(24, 32, 32, 8)(x, w, None).dtype == torch.float32
    with autocast():
        assert working_dtype(x) == BF16
        assert StyledConv(24, 32, 32, 16, upsample=True)(x, w, torch.randn(2, 1, 16, 16)).dtype == BF16
    with torch.autocast("cuda", BF16) if torch.cuda.is_available() else autocast(False):
        assert working_dtype(x) == torch.float32  # another device's autocast does not concern x


COMPILED_AS_EAGER = """
import torch
from stylegan_t.models.discriminator import Head
from stylegan_t.models.generator import Generator

def compare(module, call):
    results = []
    for net in (module, torch.compile(module)):
        module.zero_grad()
        y = call(net)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).mean().backward()
        results.append((y.detach(), torch.cat([p.grad.flatten() for p in module.parameters()])))
    for eager, compiled in zip(*results):
        print(((eager - compiled).norm() / eager.norm()).item())

torch.manual_seed(0)
generator = Generator(resolution=16, z_dim=16, c_dim=8, channel_base=512, channel_max=32, num_res_blocks=1)
with torch.no_grad():
    for name, p in generator.named_parameters():
        if name.endswith(("layer_scale", "noise_strength")):
            p.add_(0.3 * torch.randn_like(p))
z, c = torch.randn(2, 16), torch.randn(2, 8)
compare(generator, lambda g: g(z, c, noise="const", track=False))
tokens = torch.randn(8, 16, 32)
compare(Head(32, 8, 9), lambda head: head(tokens, torch.linspace(-1, 1, 64).view(8, 8)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler: g++ is not installed")
def test_compiled_generator_and_head_agree_with_eager():
    """In a process of its own: the checks of shapes and types that tests run under are not for the compiler."""
    done = subprocess.run([sys.executable, "-c", COMPILED_AS_EAGER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    errors = [float(line) for line in done.stdout.split()]
    assert len(errors) == 4  # image, its gradient, logits, their gradient
    assert max(errors) < 1e-5  # 7e-7
