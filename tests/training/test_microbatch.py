"""Micro-batches change memory and nothing else; the other switches of ``compute`` change rounding."""

from __future__ import annotations

import pytest
import torch

from stylegan_t.settings.training import Compute, Deviations
from stylegan_t.training.captions import WrongCaptions
from stylegan_t.training.distributed import World
from stylegan_t.training.microbatch import Step, split
from stylegan_t.training.players import Players
from stylegan_t.training.steps import training_step
from tests.training.players import fetch, make_players, settings, stage_two_settings

ALONE = World(torch.device("cpu"))
BATCH, STEPS = 24, 3
FAITHFUL = {"share_fakes": False, "share_vit_pass": True, "range_penalty_weight": 0.0}
DEVIATING = {"share_fakes": True, "share_vit_pass": True, "range_penalty_weight": 2.0}


def compute(**changes) -> Compute:
    return Compute.model_validate(settings().compute.model_dump() | changes)


def trained(config, wrong_captions: bool = False) -> tuple[Players, list[dict[str, float]]]:
    players, terms = make_players(config), []
    for group in (*players.optimizer.param_groups, *players.discriminator_optimizer.param_groups):
        group["lr"] = 0.01
    wrong = WrongCaptions(next(fetch(0)).captions, next(fetch(0)).c, 0.5) if wrong_captions else None
    for number in range(STEPS):
        step = Step(config, 3, number * BATCH, 0.0, ALONE)
        said = training_step(players, next(fetch(number * BATCH, BATCH)), step, wrong)
        terms.append({name: value.item() for name, value in said.items()})
    return players, terms


NO_EFFECT = ("conv.bias", "in_proj_bias")
"""What a batch norm or (for keys) a softmax takes away again: the true gradient is zero, and Adam makes full steps of
its rounding. The generator's names end otherwise."""


def weights(players: Players) -> dict[str, torch.Tensor]:
    """All that has an effect."""
    parts = {"trained": players.trained, "heads": players.discriminator.heads}
    state = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    return {name: value for name, value in state.items() if not name.endswith(NO_EFFECT)}


def part_of(name: str) -> str:
    return name.partition(".")[0]


def largest_difference(one: Players, other: Players) -> float:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(((a[n].float() - b[n].float()).abs().max() / a[n].float().abs().max().clamp(min=0.01)).item() for n in a)


@pytest.mark.parametrize("microbatch_size", [8, 16], ids=["even", "a smaller one last"])
@pytest.mark.parametrize("deviations", [FAITHFUL, DEVIATING], ids=["two fakes", "shared fakes"])
def test_a_micro_batch_changes_no_weight_and_no_loss(deviations, microbatch_size):
    both = settings().deviations.model_dump() | deviations | {"wrong_caption_weight": 0.5}
    config = settings(batch_size=BATCH, deviations=Deviations.model_validate(both))
    whole, whole_terms = trained(config, wrong_captions=True)
    small = config.model_copy(update={"compute": compute(microbatch_size=microbatch_size)})
    parts, parts_terms = trained(small, wrong_captions=True)
    assert largest_difference(whole, parts) < 5e-4  # rounding, through Adam: 1.3e-4 seen, by the number of threads
    for a, b in zip(whole_terms, parts_terms, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


def test_in_stage_two_neither():
    config = stage_two_settings(batch_size=BATCH)
    whole, _ = trained(config)
    parts, _ = trained(config.model_copy(update={"compute": compute(microbatch_size=8)}))
    assert largest_difference(whole, parts) < 5e-4  # rounding, through Adam: 1.3e-4 seen, by the number of threads


def test_the_mean_latent_and_the_spectral_norms_move_once_per_phase():
    whole, _ = trained(settings(batch_size=BATCH))
    parts, _ = trained(settings(batch_size=BATCH, compute=compute(microbatch_size=8).model_dump()))
    torch.testing.assert_close(whole.generator.mapping.w_avg, parts.generator.mapping.w_avg, rtol=1e-5, atol=1e-7)
    for a, b in zip(whole.discriminator.heads.buffers(), parts.discriminator.heads.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def saved_bytes(microbatch_size: int | None) -> int:
    """The most that autograd holds at once for one step."""
    config = settings(batch_size=BATCH, compute=compute(microbatch_size=microbatch_size).model_dump())
    players, alive = make_players(config), {"now": 0, "most": 0}

    class Held:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor, self.size = tensor, tensor.nbytes
            alive["now"] += self.size
            alive["most"] = max(alive.values())

        def __del__(self) -> None:
            alive["now"] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        training_step(players, next(fetch(0, BATCH)), Step(config, 3, 0, 0.0, ALONE), None)
    return alive["most"]


def test_a_micro_batch_needs_its_share_of_the_memory():
    assert saved_bytes(8) < 0.45 * saved_bytes(None)


def test_parts_of_any_size_hold_each_image_once_with_its_own_draws():
    config = settings(batch_size=BATCH, compute=compute(microbatch_size=16).model_dump())
    batch = next(fetch(0, BATCH))
    one, *none = split(batch, Step(settings(batch_size=BATCH), 3, 48, 0.0, ALONE))
    several = list(split(batch, Step(config, 3, 48, 0.0, ALONE)))
    assert none == [] and [len(part.captions) for part in several] == [16, 8]
    assert torch.equal(torch.cat([part.images for part in several]), batch.images)
    assert torch.equal(torch.cat([part.latents("fakes", 8) for part in several]), one.latents("fakes", 8))
    drawn = [part.uniform("augment fakes", 3) for part in several]
    assert torch.equal(torch.cat(drawn), one.uniform("augment fakes", 3))
    assert sum(part.weight for part in several) == pytest.approx(1)


def gradients(config) -> dict[str, torch.Tensor]:
    players = make_players(config)
    training_step(players, next(fetch(0, BATCH)), Step(config, 3, 0, 0.0, ALONE), None)
    parts = {"trained": players.trained, "heads": players.discriminator.heads}
    return {
        f"{part}.{name}": parameter.grad
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def relative_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], part: str) -> float:
    names = [name for name in wanted if part_of(name) == part]
    assert names and found.keys() == wanted.keys()
    error = sum((found[name].float() - wanted[name]).square().sum() for name in names)
    return (error / sum(wanted[name].square().sum() for name in names)).sqrt().item()


# Measured on a CPU: bf16 0.012 (generator) and 0.011 (heads), channels_last 2e-7 and 1e-7.
@pytest.mark.parametrize(
    ("change", "bound"), [({"precision": "bf16"}, 0.05), ({"channels_last": True}, 1e-5)], ids=["bf16", "channels_last"]
)
def test_a_steps_gradients_stay_close_to_those_of_float32(change, bound):
    plain = gradients(settings(batch_size=BATCH))
    fast = gradients(settings(batch_size=BATCH, compute=compute(**change).model_dump()))
    assert all(gradient.dtype == torch.float32 for gradient in fast.values())
    for part in ("trained", "heads"):
        assert 0 < relative_error(fast, plain, part) < bound
