"""Subjects of the laws of search spaces: architectures, networks, paths of the supernet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from operator import ge
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nasrun.search_space.base import Network, Scale, SearchSpace, SizeName, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, MapSize, Problem

SCALES: tuple[Scale, ...] = ("search", "final")

IMAGES = 4
"""Images of a training batch of the laws."""


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The sum of torch's own counts of all operations inside; without torch's table of modules."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def count_cost(network: nn.Module, problem: Problem) -> Cost:
    """Count parameters and multiply-adds of a built network, without its formulas."""
    network.eval()
    with torch.no_grad(), FlopCounter() as counter:
        network(torch.zeros(1, *problem.size.shape(problem.channels)))
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, counter.total // 2)


@dataclass(frozen=True)
class PathRun:
    """One training step of a path in the supernet, and of its network with the same weights.

    ran: names of the supernet's modules that were computed.
    trained: names of the supernet's parameters that got a gradient; own: likewise the network's,
    without those that the supernet does not train.
    learning: the number of the network's weights that got a gradient.
    absent: names of batch norm parameters that the network has and the supernet has not.
    comparable: whether the supernet has the network's weights under their names, and computes no
    module with weights or statistics besides.
    sliced: whether the network has only the first entries of some weights.
    astray: names of what shows a difference: buffers, and gradients outside of the slices.
    outputs: logits of both in training mode, then in evaluation mode, [B, K] each.
    """

    architecture: Architecture
    ran: set[str]
    trained: set[str]
    own: set[str]
    learning: int
    absent: set[str]
    comparable: bool
    sliced: bool
    astray: list[str]
    outputs: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SpaceCase:
    """A search space on a problem, with the architectures that its laws are tried on.

    samples: random architectures of which networks are built.
    initial: the weights that ``supernet`` began with, once it is built.
    """

    space: SearchSpace
    problem: Problem
    samples: int
    streams: Streams
    initial: dict[str, Tensor] = field(default_factory=dict)
    _networks: dict[tuple[Architecture, Scale], Network] = field(default_factory=dict)

    @cached_property
    def architectures(self) -> list[Architecture]:
        """``samples`` random architectures, and three others, of which networks are built."""
        return self.spread(self.samples)

    def spread(self, count: int) -> list[Architecture]:
        """Sample ``count`` architectures, and repair others: first options often, and extremes."""
        space, rng = self.space, self.streams.numpy("spread", count)
        found = [space.sample(rng) for _ in range(count)]
        sizes = np.array([len(decision.options) for decision in space.decisions])
        sparse = rng.integers(sizes) * (rng.random(len(sizes)) < 0.3)
        rows = (sparse, 0 * sizes, sizes - 1)
        others = [Architecture(space.name, tuple(row.tolist())) for row in rows]
        return found + [space.repair(other, rng) for other in others]

    @property
    def sizes(self) -> list[SizeName]:
        """The names of what the costs of this space count."""
        cost = self.space.cost(self.architectures[0], self.problem)
        return ["params", "macs"] if cost.bitops is None else ["params", "macs", "bitops"]

    def images(self, count: int = IMAGES, size: MapSize | None = None) -> Tensor:
        """Random images [count, C, H, W]; size: None: that of the problem."""
        shape = (count, *(size or self.problem.size).shape(self.problem.channels))
        return torch.randn(shape, generator=self.streams.torch("images"))

    def network(self, architecture: Architecture, scale: Scale = "search") -> Network:
        """Build the stand-alone network, once; its weights are whatever the laws made of them."""
        if (architecture, scale) not in self._networks:
            with self.streams.default("network"):
                built = self.space.network(architecture, self.problem, scale)
            self._networks[architecture, scale] = built
        return self._networks[architecture, scale]

    def new_supernet(self, seed: int = 0) -> Supernet:
        """Build a supernet, its weights as the space makes them."""
        with self.streams.default("supernet", seed):
            return self.space.supernet(self.problem)

    @cached_property
    def supernet(self) -> Supernet:
        """The supernet; its weights, clipping values, scales and shifts all differ."""
        supernet = self.new_supernet()
        self.initial.update({name: one.clone() for name, one in supernet.state_dict().items()})
        with self.streams.default("differ"), torch.no_grad():
            for parameter in supernet.parameters():
                parameter.mul_(0.5 + torch.rand_like(parameter))
                if parameter.dim() == 1:
                    parameter.add_(0.4 * torch.rand_like(parameter) - 0.2)
        return supernet

    @cached_property
    def runs(self) -> list[PathRun]:
        """A training step of each architecture, all in one supernet."""
        with _watched(self.supernet) as ran:
            return [self._run(architecture, ran) for architecture in self.architectures]

    def _run(self, architecture: Architecture, ran: set[str]) -> PathRun:
        supernet, network, images = self.supernet, self.network(architecture), self.images()
        shared, state = supernet.state_dict(), network.state_dict()
        absent = {
            f"{name}.{which}"
            for name, module in network.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for which in ("weight", "bias")
            if f"{name}.{which}" not in shared
        }
        known = all(
            name in absent or (name in shared and _holds(shared[name], value))
            for name, value in state.items()
        )
        if known:
            for name, value in state.items():
                if name not in absent:
                    value.copy_(_first(shared[name], value))
        for module in (supernet, network):
            module.train()
            module.zero_grad()
        ran.clear()
        logits = supernet(images, architecture.choices)
        expected = network(images)
        outputs = [(logits.detach(), expected.detach())]
        for out in (logits, expected):
            out.square().sum().backward()
        frozen = {name for name, p in supernet.named_parameters() if not p.requires_grad}
        own = {name: p.numel() for name, p in network.named_parameters() if p.grad is not None}
        computed = set(ran)
        stateful = {name for name in computed if _has_state(supernet.get_submodule(name))}
        holders = {name.rpartition(".")[0] for name in state}
        comparable = known and stateful <= holders
        trained = {name: p for name, p in supernet.named_parameters() if p.grad is not None}
        astray = []
        if comparable:
            shapes = {name: value.shape for name, value in state.items()}
            for name, buffer in network.named_buffers():
                if not torch.allclose(_first(shared[name], buffer), buffer, atol=1e-5):
                    astray.append(name)
            for name in trained.keys() & shapes.keys():
                gradient = trained[name].grad
                if gradient is not None and gradient.shape != shapes[name]:
                    rest = gradient.clone()
                    rest[tuple(slice(length) for length in shapes[name])] = 0
                    astray += [name] * bool(rest.any())
        with torch.no_grad():
            supernet.eval(), network.eval()
            outputs.append((supernet(images, architecture.choices), network(images)))
        return PathRun(
            architecture=architecture,
            ran=computed,
            trained=set(trained),
            own=own.keys() - frozen,
            learning=sum(own.values()),
            absent=absent,
            comparable=comparable,
            sliced=any(shared[n].shape != v.shape for n, v in state.items() if n in shared),
            astray=astray,
            outputs=outputs,
        )


def _first(value: Tensor, like: Tensor) -> Tensor:
    """The first entries of ``value``, as many in each dimension as ``like`` has."""
    return value[tuple(slice(length) for length in like.shape)]


def _holds(value: Tensor, like: Tensor) -> bool:
    """Whether ``value`` is at least as large as ``like`` in every dimension."""
    return value.dim() == like.dim() and all(map(ge, value.shape, like.shape))


def _has_state(module: nn.Module) -> bool:
    """Whether the module itself, its children aside, has weights or buffers."""
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return bool(own)


@contextmanager
def _watched(network: nn.Module) -> Iterator[set[str]]:
    """The names of the modules that are computed inside."""
    ran: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield ran
    finally:
        for hook in hooks:
            hook.remove()
