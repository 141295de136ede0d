"""Counted memory: what torch itself says of small steps, and the right way up and down."""

import gc
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from stylegan_t.estimate.ledger import Ledger
from stylegan_t.estimate.machine import rehearsal_on
from stylegan_t.estimate.memory import trace
from stylegan_t.estimate.plan import make_plan
from stylegan_t.training.checkpoint import StateWriter

SMALL = ["train_generator.network.channel_base=2048", "train_generator.network.channel_max=64"]


def plan_of(*, profile="micro", **options):
    return make_plan(Path("/nowhere"), profile=profile, **options)


def test_the_ledger_remembers_the_most_and_not_the_last():
    with FakeTensorMode(), Ledger() as ledger:
        a = torch.zeros(1000)
        b = a * 2
        view = b[:500]  # of the same storage
        del a
        c = torch.zeros(200)
        del b, view
    gc.collect()
    assert sum(ledger.peak.values()) == 4 * 2000
    assert ledger.live["activations"] == 4 * 200
    del c
    assert ledger.live["activations"] == 0


@pytest.mark.slow
def test_counted_tensors_are_those_of_a_real_step():
    """Outside FakeTensorMode the same ledger sees real tensors: same code, same bytes."""
    plan = plan_of(stage="train_generator")
    with Ledger() as ledger:
        rehearsal = rehearsal_on(plan, torch.device("cpu"))
        rehearsal.step(0)
        ledger.restart()
        rehearsal.step(1)
    assert trace(plan).total == pytest.approx(sum(ledger.peak.values()), rel=0.02)


@pytest.mark.slow  # most of it torch's way through a thousand layers without numbers
@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({"profile": "lite", "resolution": 64}, 74.557),
        ({"profile": "full", "resolution": 64}, 975.556),
        ({"profile": "full", "resolution": 512}, 1020.498),
    ],
)
def test_parameters_are_those_of_the_paper_s_models(options, millions):
    found = trace(plan_of(**options, batch_size=8, microbatch_size=8)).parameters
    assert round(found.generator / 1e6, 3) == millions


W_DIM, Z_DIM, CHANNELS, STYLES, HEADS = 16 + 32, 16, 32, 5 + 2, 3
"""Of profile micro at 16 px: five layers, two of them residual, and two RGB layers."""
LEFT_OUT = {
    "residual": (2 * 3 * CHANNELS, 0),
    "second_order_styles": (STYLES * 2 * CHANNELS * (W_DIM + 1), 0),
    "text_bypass": (2 * (Z_DIM**2 + Z_DIM) - 2 * (W_DIM**2 + W_DIM), 0),
    "local_batch_norm": (0, HEADS * 2 * 2 * 32),
}


@pytest.fixture(scope="module")
def whole():
    return trace(plan_of(stage="train_generator")).parameters


@pytest.mark.slow
@pytest.mark.parametrize("switch", LEFT_OUT)
def test_a_redesign_that_is_switched_off_takes_its_parameters_away(whole, switch):
    found = trace(plan_of(stage="train_generator", changes=[f"train_generator.network.{switch}=false"])).parameters
    assert (whole.generator - found.generator, whole.heads - found.heads) == LEFT_OUT[switch]


@pytest.mark.slow
def test_a_micro_batch_takes_activations_and_nothing_else():
    whole = trace(plan_of(batch_size=32))
    parts = trace(plan_of(batch_size=32, microbatch_size=8))
    assert parts.parts["activations"] < 0.5 * whole.parts["activations"]
    for part in ("weights", "average", "Adam", "frozen networks"):
        assert parts.parts[part] == whole.parts[part]


@pytest.mark.slow
def test_several_devices_share_the_batch_and_with_zero_adam_s_state():
    one = trace(plan_of(batch_size=32))
    two = trace(plan_of(batch_size=32, devices=2))
    shared = trace(plan_of(batch_size=32, devices=2, changes=["train_generator.compute.shard_optimizer=true"]))
    assert two.parts["activations"] < 0.7 * one.parts["activations"]
    assert two.parts["Adam"] == one.parts["Adam"]
    assert shared.parts["Adam"] == pytest.approx(one.parts["Adam"] / 2, rel=0.15)
    assert shared.state_bytes == one.state_bytes


@pytest.mark.slow
def test_bfloat16_takes_fewer_bytes_and_leaves_weights_alone():
    options = {"resolution": 32, "batch_size": 32, "changes": SMALL}
    full, half = trace(plan_of(**options)), trace(plan_of(**options, precision="bf16"))
    assert half.parts["activations"] < 0.9 * full.parts["activations"]
    assert half.parts["weights"] == full.parts["weights"]


@pytest.mark.slow
def test_in_stage_two_the_text_encoder_is_trained_and_nothing_is_averaged():
    found = trace(plan_of(stage="finetune_text_encoder"))
    assert found.parameters.generator_trained == 0
    assert "average" not in found.parts
    assert found.parts["weights"] >= 4 * (found.parameters.text_encoder + found.parameters.heads)


@pytest.mark.slow
def test_frozen_layers_need_no_adam():
    stage = "train_super_resolution"
    every = trace(plan_of(stage=stage, changes=[f"{stage}.trainable=all"]))
    new = trace(plan_of(stage=stage, changes=[f"{stage}.trainable=new_layers"]))
    assert new.parameters.generator_trained < 0.5 * every.parameters.generator_trained
    assert new.parts["Adam"] < every.parts["Adam"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train_generator", "finetune_text_encoder", "train_super_resolution"])
def test_disk_per_state_is_that_of_a_written_one(tmp_path, stage):
    plan = plan_of(stage=stage)
    rehearsal = rehearsal_on(plan, torch.device("cpu"))
    rehearsal.step(0)
    with StateWriter(tmp_path, keep=1) as writer:
        writer.save(32, {"nimg": 32, "means": {"sums": {}, "count": 0}, **rehearsal.players.state_dict()})
    (written,) = tmp_path.glob("*.pt")
    assert trace(plan).state_bytes == pytest.approx(written.stat().st_size, rel=0.02)
