"""Our networks give the published ones' numbers."""

import json
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_t.losses import hinge_fake, hinge_generator, hinge_real
from stylegan_t.models.reference import (
    discriminator_from_reference,
    generator_from_reference,
    our_generator_name,
    our_head_name,
)

PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
GENERATORS = ["generator_16px", "generator_16px_clamped", "generator_64px", "generator_128px_uncond"]
DISCRIMINATORS = ["discriminator_64px", "discriminator_96px_b16", "discriminator_uncond"]
TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4

pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f"the published networks' numbers are not in {PARITY}")


class Fixture:
    """One file of numbers: ``meta``, and the tensors of each section by name."""

    def __init__(self, name):
        with np.load(PARITY / f"{name}.npz") as file:
            self.meta = json.loads(str(file["meta"]))
            arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        self.weights, self.inputs, self.outputs = (
            {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
            for prefix in ("weights/", "inputs/", "outputs/")
        )
        self.gradient_norms = {
            key.removeprefix("grad_norm/"): value.item()
            for key, value in self.outputs.items()
            if key.startswith("grad_norm/")
        }


def relative_error(ours, theirs):
    """The worse of the norms' and of the maxima's ratio."""
    error = (ours.detach() - theirs).abs()
    return max((error.norm() / theirs.norm()).item(), (error.max() / theirs.abs().max()).item())


def gradient_error(module, fixture, our_name):
    """The largest difference of a parameter's gradient norm, in units of the whole gradient's."""
    parameters = dict(module.named_parameters())
    assert {our_name(name) for name in fixture.gradient_norms} == set(parameters)
    whole = sum(norm**2 for norm in fixture.gradient_norms.values()) ** 0.5
    ours = {name: parameters[our_name(name)].grad.norm().item() for name in fixture.gradient_norms}
    return max(abs(ours[name] - norm) for name, norm in fixture.gradient_norms.items()) / whole


@contextmanager
def plain_kernels():
    """Convolutions as sums of products, in the same order on every CPU.

    oneDNN picks its kernels by the CPU; the rounding of some of them puts an activation on the other side of a leaky
    ReLU's kink, and a gradient norm off by more than the tolerance.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Intel GPUs, which nobody asked for
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@pytest.fixture(scope="module", params=GENERATORS)
def generator_numbers(request):
    return Fixture(request.param)


@pytest.fixture(scope="module", params=DISCRIMINATORS)
def discriminator_numbers(request):
    return Fixture(request.param)


def test_generator_paints_the_published_images(generator_numbers):
    numbers = generator_numbers
    generator = generator_from_reference(numbers.weights, numbers.meta).eval()
    z, c, wanted = numbers.inputs["z"], numbers.inputs.get("c"), numbers.outputs
    assert generator.num_ws == numbers.meta["num_ws"]
    assert sum(p.numel() for p in generator.parameters()) == numbers.meta["num_parameters"]
    with torch.no_grad():
        ours = {
            "image": generator(z, c, noise="const"),
            "image_noise_none": generator(z, c, noise="none"),
            "image_psi_0.5": generator(z, c, psi=0.5, noise="const"),
            "ws": generator.mapping(z, c)[:, 0],
            "image_mixed_ws": generator.synthesis(numbers.inputs["mixed_ws"], noise="const"),
        }
    for name, tensor in ours.items():
        assert relative_error(tensor, wanted[name]) <= TOLERANCE, name


def test_generator_has_the_published_gradients_and_mean_latent(generator_numbers):
    numbers = generator_numbers
    generator = generator_from_reference(numbers.weights, numbers.meta).train()
    with plain_kernels():
        image = generator(numbers.inputs["z"], numbers.inputs.get("c"), noise="const")
        terms = image * numbers.outputs["grad_probe"]
        terms.mean().backward()
    size = terms.abs().mean().item()  # they nearly cancel: the mean is up to a thousand times smaller
    assert terms.mean().item() == pytest.approx(numbers.outputs["grad_loss"].item(), abs=TOLERANCE * size)
    assert relative_error(generator.mapping.w_avg, numbers.outputs["x_avg_after_train_forward"]) <= TOLERANCE
    assert gradient_error(generator, numbers, our_generator_name) <= GRADIENT_TOLERANCE


def test_the_clamped_fixture_drives_the_clamps():
    numbers = Fixture("generator_16px_clamped")
    generator = generator_from_reference(numbers.weights, numbers.meta).eval()
    at_limit = []
    for block in generator.synthesis.blocks.values():
        block.layers[-2].register_forward_hook(lambda layer, _, y: at_limit.append((y.abs() >= 181).any().item()))
    generator(numbers.inputs["z"], numbers.inputs["c"], noise="const")
    assert any(at_limit)


def test_discriminator_gives_the_published_logits(discriminator_numbers):
    numbers = discriminator_numbers
    discriminator = discriminator_from_reference(numbers.weights, numbers.meta)
    images, c = numbers.inputs["images"], numbers.inputs.get("c")
    with torch.no_grad():
        assert relative_error(discriminator.eval()(images, c), numbers.outputs["logits_eval"]) <= TOLERANCE
        assert relative_error(discriminator.train()(images, c), numbers.outputs["logits_train"]) <= TOLERANCE


def test_discriminator_has_the_published_losses_and_gradients(discriminator_numbers):
    numbers = discriminator_numbers
    discriminator = discriminator_from_reference(numbers.weights, numbers.meta).train()
    images = numbers.inputs["images"].clone().requires_grad_()
    logits = discriminator(images, numbers.inputs.get("c"))
    losses = {
        "loss_d_fake": hinge_fake(logits),
        "loss_d_real": hinge_real(logits),
        "loss_g": hinge_generator(logits),
    }
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(numbers.outputs[name].item(), rel=TOLERANCE), name
    losses["loss_d_fake"].backward()
    assert relative_error(images.grad, numbers.outputs["grad_image_d_fake"]) <= TOLERANCE
    assert gradient_error(discriminator.heads, numbers, our_head_name) <= GRADIENT_TOLERANCE


def test_a_missing_weight_is_named():
    numbers = Fixture("generator_16px")
    weights = {k: v for k, v in numbers.weights.items() if k != "synthesis.b16.torgb.weight"}
    with pytest.raises(RuntimeError, match=r"synthesis\.blocks.16.to_rgb.weight"):
        generator_from_reference(weights, numbers.meta)
