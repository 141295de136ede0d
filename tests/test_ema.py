"""The running average: its time is counted in images, and it follows parameters and copies buffers."""

import copy

import pytest
import torch
from torch import nn

from stylegan_t.ema import ema_decay, update_ema

close = torch.testing.assert_close


@pytest.mark.parametrize("batch_size", [8, 32, 2048])
def test_after_one_half_life_of_images_the_old_average_counts_half(batch_size):
    steps = 10_000 // 8
    decay = ema_decay(batch_size, halflife_nimg=steps * batch_size, nimg=10**9)
    assert decay**steps == pytest.approx(0.5)


@pytest.mark.parametrize("batch_size", [32, 2048])
def test_the_published_half_life_gives_the_published_decay_at_any_batch_size(batch_size):
    assert ema_decay(batch_size, 10_000 * batch_size / 32, nimg=10**9) == pytest.approx(0.99778, abs=5e-6)


def test_a_fresh_start_ramps_up_with_the_images_seen():
    assert ema_decay(32, 10_000, nimg=0) == 0
    assert ema_decay(32, 10_000, nimg=6_400) == pytest.approx(0.5 ** (32 / 320))
    assert ema_decay(32, 10_000, nimg=200_000) == ema_decay(32, 10_000, nimg=10**9)
    assert ema_decay(32, 10_000, nimg=0, ramp=None) == ema_decay(32, 10_000, nimg=10**9)


def network():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        net[1].running_mean.normal_()
    return net


def test_parameters_move_and_buffers_are_copied():
    torch.manual_seed(0)
    average, net = network(), network()
    net[1].num_batches_tracked.fill_(7)
    before = copy.deepcopy(average)
    update_ema(average, net, 0.9)
    for name, parameter in average.named_parameters():
        old, new = before.get_parameter(name), net.get_parameter(name)
        close(parameter, 0.9 * old + 0.1 * new)
    for name, buffer in average.named_buffers():
        assert buffer.equal(net.get_buffer(name)), name
        assert buffer.data_ptr() != net.get_buffer(name).data_ptr()


def test_a_decay_of_zero_copies_and_the_network_is_left_alone():
    average, net = network(), network()
    before = copy.deepcopy(net.state_dict())
    update_ema(average, net, 0.0)
    assert all(average.state_dict()[name].equal(tensor) for name, tensor in before.items())
    assert all(net.state_dict()[name].equal(tensor) for name, tensor in before.items())


def test_averaging_records_no_gradient():
    average, net = network(), network()
    update_ema(average, net, 0.5)
    assert all(p.is_leaf and p.grad is None for p in average.parameters())
