"""Memory of a training step, counted and not guessed.

The step runs as it is, on tensors without numbers (torch's ``FakeTensorMode``): shapes, types and lifetimes are the
real ones, so a billion parameters at 512 px are counted on a laptop. What no tensor tells is added apart, and named
(machine.py): the process itself, what the CPU's allocator wastes, what CUDA takes for its context.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map_only

from stylegan_t.estimate.heap import Heap
from stylegan_t.estimate.ledger import Ledger, Part
from stylegan_t.estimate.networks import Networks, Rehearsal, build_networks, captions_of, make_players
from stylegan_t.estimate.plan import Plan
from stylegan_t.models.encoders import tokens_of
from stylegan_t.training.distributed import World, buckets
from stylegan_t.training.players import Players

TRACED_MICROBATCHES = 2
"""From the second on, gradients lie beside the activations; further ones are alike."""


@dataclass(frozen=True)
class Parameters:
    """How many numbers each network has."""

    generator: int
    generator_trained: int
    heads: int
    discriminator_vit: int
    clip_image: int
    text_encoder: int


@dataclass(frozen=True)
class Traced:
    """What a step on tensors without numbers tells.

    Attributes:
        parts: Bytes of each part at the moment when all of them together are most.
        heap_bytes: What glibc's heap has resident for them when it is most, on a CPU.
        phase: When that is.
        state_bytes: A resume state on disk; in memory, its copy while it is written.
        bundle_bytes: What a stage leaves: the bundle and the discriminator beside it.
    """

    parameters: Parameters
    parts: dict[Part, int]
    heap_bytes: int
    phase: Literal["training step", "sample grid"]
    state_bytes: int
    bundle_bytes: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())


class PretendWorld(World):
    """The first of several processes, without the others: sums cost the same memory and change nothing."""

    def sum(self, tensors: Sequence[Tensor]) -> None:
        if self.size > 1:
            for bucket in buckets(tensors):
                torch.cat([tensor.reshape(-1) for tensor in bucket])


def trace(plan: Plan) -> Traced:
    """Count a training step and a sample grid on one device of the plan."""
    with _no_numbers(plan) as (networks, ledger):
        compute = plan.settings.compute.model_copy(update={"channels_last": False, "compile": False})
        players = make_players(plan, networks, compute)
        _claim_modules(ledger, players, networks)
        for parameter in [*players.trained.parameters(), *players.discriminator.heads.parameters()]:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p: ledger.claim([p.grad], "gradients"))
        world = PretendWorld(torch.device("cpu"), size=plan.devices)
        short = plan.shortened(TRACED_MICROBATCHES)
        rehearsal = Rehearsal(short, players, networks.clip.embed_dim, world)
        rehearsal.show()
        _copied_once(players)
        rehearsal.step(0)  # makes Adam's state
        optimizers = (players.optimizer, players.discriminator_optimizer)
        ledger.claim([t for optimizer in optimizers for t in _state_tensors(optimizer)], "Adam")
        ledger.restart()
        rehearsal.step(1)
        step = ledger.peak
        ledger.restart()
        rehearsal.show()
        waiting = (plan.share - short.share) * rehearsal.bytes_per_image
        step["activations"] = step.get("activations", 0) + waiting
        phase = "sample grid" if sum(ledger.peak.values()) > sum(step.values()) else "training step"
        parts = ledger.peak if phase == "sample grid" else step
        if plan.settings.compute.shard_optimizer:
            parts["Adam"] = sum(sharded_bytes(optimizer, plan.devices) for optimizer in optimizers)
        return Traced(
            _parameters(players, networks),
            parts,
            Heap().play(ledger.events),
            phase,
            _state_bytes(players),
            _bundle_bytes(players, networks),
        )


@contextmanager
def _no_numbers(plan: Plan) -> Iterator[tuple[Networks, Ledger]]:
    """The plan's networks without numbers, and a ledger that has counted them."""
    with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True), Ledger() as ledger:
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # torch's own deepcopy does
        with _disable_current_modes():
            with torch.device("meta"):
                networks = build_networks(plan)
            if plan.settings.compute.channels_last:
                networks.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        networks.to_empty(device="cpu")
        with _disable_current_modes():
            for text in (networks.clip.text, networks.text_encoder):
                if text is not None and text.spec["num_tokens"] is not None:
                    text.token_ids = tokens_of(captions_of(plan))  # these are read as numbers
        yield networks, ledger


def _claim_modules(ledger: Ledger, players: Players, networks: Networks) -> None:
    """Everything that lies on the device from the start: trained weights, the average, and the rest, frozen."""
    ledger.claim(_tensors(networks), "frozen networks")
    for module in (players.trained, players.discriminator.heads):
        ledger.claim(_tensors(module), "weights")
    if players.averaged is not None:
        ledger.claim(_tensors(players.averaged), "average")


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _state_tensors(optimizer: Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values()]


def sharded_bytes(optimizer: Optimizer, devices: int) -> int:
    """Adam's state on the device that has most of it, dealt out as torch's ZeRO does: the largest first, each to the
    device that has least.
    """
    loads = [0] * devices
    numbers = [parameter.numel() for group in optimizer.param_groups for parameter in group["params"]]
    for count in sorted(numbers, reverse=True):
        loads[loads.index(min(loads))] += count
    held = sum(_bytes(t) for t in _state_tensors(optimizer))
    return held * max(loads) // max(1, sum(numbers))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _count(modules: nn.Module | None, trained: bool = False) -> int:
    parameters = modules.parameters() if modules is not None else ()
    return sum(p.numel() for p in parameters if p.requires_grad or not trained)


def _parameters(players: Players, networks: Networks) -> Parameters:
    return Parameters(
        generator=_count(players.generator),
        generator_trained=_count(players.generator, trained=True),
        heads=_count(players.discriminator.heads),
        discriminator_vit=_count(players.discriminator.vit),
        clip_image=_count(networks.clip.image),
        text_encoder=_count(networks.clip.text),
    )


def _state_bytes(players: Players) -> int:
    """Size of the file that ``StateWriter`` writes: the numbers, and what a file of so many tensors has beside them."""
    tensors = _state(players)
    with _disable_current_modes(), io.BytesIO() as file:
        small = torch.zeros(1)
        torch.save(tree_map_only(Tensor, lambda _: small.clone(), players.state_dict()), file)
        return sum(map(_bytes, tensors)) + file.tell() - len(tensors) * _bytes(small)


def _state(players: Players) -> list[Tensor]:
    return [t for t in tree_iter(players.state_dict()) if isinstance(t, Tensor)]


def _bundle_bytes(players: Players, networks: Networks) -> int:
    modules = (players.generator, networks.text_encoder or networks.clip.text, players.discriminator.heads)
    return sum(_bytes(t) for module in modules for t in module.state_dict().values())


def _copied_once(players: Players) -> None:
    """Copy what a state holds, as is done for writing it, and forget the copy."""
    copies = [tensor.detach().clone() for tensor in _state(players)]
    del copies
