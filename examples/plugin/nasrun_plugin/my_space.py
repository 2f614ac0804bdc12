"""``my_space``: a chain of four layers, and the operation of each is a decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.limits import Width
from nasrun.search_space.base import Network, Scale, SearchSpace, Supernet
from nasrun.search_space.gates import Gate, GateKind, Gates, mixed
from nasrun.search_space.stages import reduced
from nasrun.values import Architecture, Cost, Decision, Problem

NAMES = ("identity", "max_pool_3x3", "conv_1x1", "conv_3x3")
KERNELS = {"conv_1x1": 1, "conv_3x3": 3}
LAYERS = 4
SMALLEST = 2
"""Pixels of an image's side, at least: the stem halves it."""


def operation(name: str, channels: int) -> nn.Module:
    """Build an operation: [B, C, H, W] -> the same shape."""
    if name == "identity":
        return nn.Identity()
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride=1, padding=1)
    kernel = KERNELS[name]
    convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


class Chain(Network):
    """A stem of stride 2, four layers with some operations each, pooling, dropout, linear."""

    def __init__(self, problem: Problem, channels: int, options: Iterable[Iterable[int]]) -> None:
        """options: indices of the operations that each layer has."""
        super().__init__()
        self.stem = nn.Conv2d(problem.channels, channels, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            nn.ModuleDict({str(option): operation(NAMES[option], channels) for option in present})
            for present in options
        )
        self.classifier = nn.Linear(channels, problem.classes)

    def logits(self, x: Tensor, gates: Gates) -> Tensor:
        """Images [B, C, H, W] and a gate for each layer -> [B, K]."""
        x = F.relu(self.stem(x))
        for layer, gate in zip(self.layers, gates, strict=True):
            x = self._layer(layer, gate, x)
        logits: Tensor = self.classifier(self.noise.dropout(x.mean((2, 3))))
        return logits

    def _layer(self, layer: nn.Module, gate: Gate, x: Tensor) -> Tensor:
        return mixed(gate, lambda option: layer[str(option)](x))


class ChainNetwork(Chain):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(self, problem: Problem, channels: int, choices: tuple[int, ...]) -> None:
        super().__init__(problem, channels, [(choice,) for choice in choices])
        self.choices = choices

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.choices)


class ChainSupernet(Chain, Supernet):
    """All operations in each layer; the weights have the names that a network has for them."""

    def __init__(self, problem: Problem, channels: int) -> None:
        super().__init__(problem, channels, [range(len(NAMES))] * LAYERS)

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        for index, layer in enumerate(self.layers):
            for option, module in layer.items():
                yield module, [(index, int(option))]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, gates)


class MySpace(SearchSpace):
    """Four decisions of four operations, 256 architectures; 121 networks, as identities move.

    search, final: channels of the supernet, and of the retrained winner.
    """

    name = "my_space"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})

    def __init__(self, *, search: Width, final: Width) -> None:
        self.channels: dict[Scale, int] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(f"layer{layer}/op", NAMES) for layer in range(LAYERS))

    @property
    def additive(self) -> tuple[tuple[int, ...], ...]:
        """Every layer costs what it costs, whatever the others are."""
        return tuple((layer,) for layer in range(LAYERS))

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> ChainSupernet:
        self._check(problem, auxiliary=auxiliary)
        return ChainSupernet(problem, self.channels["search"])

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> ChainNetwork:
        self._check(problem, auxiliary=auxiliary)
        return ChainNetwork(problem, self.channels[scale], self.check(architecture).choices)

    def _check(self, problem: Problem, *, auxiliary: bool = False) -> None:
        if auxiliary:
            raise UserError(f"{self.name} has no auxiliary head: set auxiliary_weight=0")
        if problem.size.short < SMALLEST:
            raise UserError(
                f"images of {problem.size.words} pixels are too small for {self.name} "
                f"(at least {SMALLEST}×{SMALLEST})"
            )

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        self._check(problem)
        channels, pixels = self.channels[scale], reduced(problem.size).area
        kernels = [KERNELS[name] for name in self.operations_of(architecture) if name in KERNELS]
        stem, head = 9 * problem.channels * channels, channels * problem.classes
        layers = sum(kernel**2 * channels**2 for kernel in kernels)
        biases, norms = channels + problem.classes, 2 * channels * len(kernels)
        return Cost(stem + layers + head + biases + norms, (stem + layers) * pixels + head)

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """The network of 3×3 convolutions alone."""
        largest = Architecture(self.name, (NAMES.index("conv_3x3"),) * LAYERS)
        return self.cost(largest, problem, scale)

    def canonical(self, architecture: Architecture) -> Architecture:
        """Identities come last."""
        others = [choice for choice in architecture.choices if choice]
        return Architecture(self.name, (*others, *[0] * (LAYERS - len(others))))

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Identities stand anywhere, all places alike."""
        others = iter([choice for choice in architecture.choices if choice])
        places = rng.permutation([choice > 0 for choice in architecture.choices])
        return Architecture(self.name, tuple(next(others) if place else 0 for place in places))
