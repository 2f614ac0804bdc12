"""The base of search spaces: decisions, costs, and the networks of architectures."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from nasrun.errors import MissingCapabilityError, UserError
from nasrun.search_space.gates import GateKind, Gates
from nasrun.search_space.graph import Graph
from nasrun.search_space.layer import Layer, count_layers
from nasrun.search_space.noise import Noise
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Decision, Problem

SizeName = Literal["params", "macs", "bitops"]
"""A size that ``Cost`` counts."""

Measure = Callable[[Architecture], float]
"""A number of an architecture: a size, a latency in ms."""

PARAMETER_FREE = re.compile(r"none|noise|zero|identity|skip_connect|(avg|max)_pool_\d+x\d+")
"""Names of the operations without parameters.

An operation that changes the shape of its input, e.g. an identity of stride 2, does have some.
"""

Scale = Literal["search", "final"]
"""``search``: width and depth of the supernet; ``final``: those of the retrained winner."""


class Network(nn.Module):
    """A stand-alone network. forward: images [B, C, H, W] -> logits [B, K].

    noise: dropout and drop-path, set by the trainer before each step.
    auxiliary_logits: [B, K] of the auxiliary head in the last forward in training mode, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noise = Noise()
        self.auxiliary_logits: Tensor | None = None


class Supernet(Network):
    """All architectures of a space with shared weights.

    forward: images [B, C, H, W] and ``Gates`` -> logits [B, K]; an option whose gate is closed is
    not computed.
    """

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Yield the modules that are used only where certain options are open.

        Each module comes with these options, as (decision, option) by index. A supernet that does
        not know them yields nothing.
        """
        yield from ()


class SearchSpace(ABC):
    """A search space; architectures are values, networks are built from them.

    A subclass defines ``decisions``, ``supernet``, ``network``, ``cost_bound``, and ``layers`` (or
    ``cost``).
    """

    name: str
    gate_kinds: frozenset[GateKind]
    binary: ClassVar[bool] = False
    """Whether every decision is between off and on."""
    fixed: ClassVar[bool] = False
    """Whether there is one architecture, so that nothing is searched."""
    decides_bits: ClassVar[bool] = False
    """Whether decisions are about bits, so that networks have ``Cost.bitops``."""

    @cached_property
    @abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """The choice points, in the order of ``Architecture.choices``."""

    @property
    def whole(self) -> Gates:
        """Gates that open everything: all on, or the mean of all options of each decision.

        The mean exists only if ``gate_kinds`` has ``mix``.
        """
        if self.binary:
            return (1,) * len(self.decisions)
        counts = [len(decision.options) for decision in self.decisions]
        return [dict.fromkeys(range(count), 1 / count) for count in counts]

    @property
    def size(self) -> int:
        """The number of architectures."""
        return prod(len(decision.options) for decision in self.decisions)

    def every(self) -> Iterator[Architecture]:
        """All architectures, the last decision changing fastest."""
        for choices in product(*(range(len(decision.options)) for decision in self.decisions)):
            yield Architecture(self.name, choices)

    @abstractmethod
    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> Supernet:
        """Build the supernet, randomly initialised from torch's default generator.

        Raises UserError if the images are too small for the space's reductions.
        """

    @abstractmethod
    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> Network:
        """Build the stand-alone network of ``architecture``, randomly initialised."""

    def refuse_auxiliary(self, auxiliary: bool) -> None:
        """Raise UserError if ``auxiliary``; for spaces without an auxiliary head."""
        if auxiliary:
            raise UserError(
                f"{self.name} has no auxiliary head: set auxiliary_weight=0 for this trainer"
            )

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        """Return the exact cost of the stand-alone network: the sum over its layers."""
        return count_layers(self.layers(architecture, problem, scale))

    @abstractmethod
    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Return upper bounds that no architecture of the space exceeds."""

    @cached_property
    def additive(self) -> tuple[tuple[int, ...], ...] | None:
        """Return groups of decisions, by index, whose costs add up; None if they do not.

        If they do, the cost is a constant plus a term for the choices of each group.
        """
        return None

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List the layers that the stand-alone network computes, stem and head included.

        Costs and latencies are sums over them. Raises UserError if the space has no such list.
        """
        raise UserError(
            f"{self.name} has no list of layers whose latencies could be added up; set a budget of "
            "macs or params"
        )

    def limit(self, name: str) -> float | None:
        """Return the limit to which final networks are fitted by their width; None: no limit."""
        return None

    def fitted_width(self, architecture: Architecture, problem: Problem) -> float | None:
        """Return the width to which the final network is fitted; None: the settings give it."""
        return None

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """Return the network's cells, blocks or stages as graphs, by name; {} if it has none.

        problem, scale: for the shapes in chains; cells do not depend on them.
        """
        return {}

    def block_costs(self, architecture: Architecture, problem: Problem) -> dict[str, Cost]:
        """Return the cost of each block of the network at the scale of the search, by name.

        Empty if the space has no blocks that differ.
        """
        return {}

    def describe(self, architecture: Architecture) -> list[str]:
        """Describe the architecture in words, as a list of lines."""
        return [
            f"{decision.name}: {decision.options[choice]}"
            for decision, choice in zip(self.decisions, architecture.choices, strict=True)
        ]

    def operations_of(self, architecture: Architecture) -> list[str]:
        """Return the names of the chosen operations, one for each choice."""
        return [
            decision.options[choice]
            for decision, choice in zip(self.decisions, architecture.choices, strict=True)
            if decision.kind == "op"
        ]

    def free_share(self, architecture: Architecture) -> float:
        """Return the share of operations without parameters, in [0, 1]; 0 without operations."""
        names = self.operations_of(architecture)
        free = sum(PARAMETER_FREE.fullmatch(name) is not None for name in names)
        return free / len(names) if names else 0.0

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Sample every decision independently and uniformly."""
        choices = rng.integers([len(decision.options) for decision in self.decisions])
        return Architecture(self.name, tuple(int(choice) for choice in choices))

    def repair(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Return the architecture itself, or a near one that is in the space.

        In some spaces not all combinations of choices are valid architectures. Methods that change
        decisions one by one repair the result.
        """
        return architecture

    def sizer(self, name: SizeName, problem: Problem, scale: Scale = "search") -> Measure:
        """Return the function that computes the size ``name`` of an architecture's network.

        Raises UserError if the space has no such size.
        """
        if getattr(self.cost(self.sample(np.random.default_rng(0)), problem, scale), name) is None:
            raise MissingCapabilityError(
                f"{self.name} decides on no bits, so it has no {name}",
                group="search_space",
                has=lambda space: bool(getattr(space, "decides_bits", False)),
            )

        def measure(architecture: Architecture) -> float:
            found: float = getattr(self.cost(architecture, problem, scale), name)
            return found

        return measure

    @cached_property
    def singles(self) -> tuple[tuple[int, ...], ...]:
        """Every decision as a group of its own, by index."""
        return tuple((index,) for index in range(len(self.decisions)))

    @property
    def edges_by_node(self) -> tuple[tuple[int, ...], ...]:
        """Groups of the decisions on edges that end in one node, by index.

        Spaces without such nodes have every decision in a group of its own.
        """
        return self.singles

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Groups of decisions that should be changed together, by index."""
        return self.additive or self.singles

    def ways(self, group: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield all options that the decisions of ``group``, one of ``groups``, can have together.

        By default every combination.
        """
        return product(*(range(len(self.decisions[index].options)) for index in group))

    def variants(self, start: Architecture, group: tuple[int, ...]) -> Iterator[Architecture]:
        """Yield ``start`` with all options of the decisions of ``group``, one of ``groups``."""
        for options in self.ways(group):
            choices = list(start.choices)
            for index, option in zip(group, options, strict=True):
                choices[index] = option
            yield Architecture(self.name, tuple(choices))

    def extremes(self, measure: Measure, streams: Streams) -> tuple[Architecture, Architecture]:
        """Return the architectures with the smallest and the largest ``measure``.

        Changes one group of decisions at a time until nothing improves. This is exact if the space
        is ``additive``; otherwise it returns the best from several random starts.
        """

        def climb(start: Architecture, sign: int) -> Architecture:
            best, reached = start, sign * measure(start)
            while True:
                before = reached
                for group in self.groups:
                    for candidate in self.variants(best, group):
                        if (found := sign * measure(candidate)) > reached:
                            best, reached = candidate, found
                if reached == before:
                    return best

        count = 1 if self.additive else 4
        starts = [self.sample(streams.numpy("extremes", index)) for index in range(count)]
        return (
            min((climb(start, -1) for start in starts), key=measure),
            max((climb(start, 1) for start in starts), key=measure),
        )

    def strongest(self, weights: Sequence[Sequence[float]]) -> Architecture:
        """Return the architecture that learned gates favour: the heaviest options.

        weights: for every option of every decision.
        """
        choices = [
            max(range(len(decision.options)), key=row.__getitem__)
            for decision, row in zip(self.decisions, weights, strict=True)
        ]
        return Architecture(self.name, tuple(choices))

    def canonical(self, architecture: Architecture) -> Architecture:
        """Return the representative of all architectures that stand for the same network."""
        return architecture

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Sample an architecture that stands for the same network; by default the same one."""
        return architecture

    def check(self, architecture: Architecture) -> Architecture:
        """Return the architecture; raises UserError if it is not one of this space."""
        if architecture.space != self.name:
            raise UserError(
                f"the architecture belongs to search space {architecture.space!r}, not to "
                f"{self.name!r}: choose the options of search_space that it was made with"
            )
        if len(architecture.choices) != len(self.decisions):
            raise UserError(
                f"an architecture of {self.name} has {len(self.decisions)} decisions, "
                f"this one has {len(architecture.choices)}"
            )
        for decision, choice in zip(self.decisions, architecture.choices, strict=True):
            if not 0 <= choice < len(decision.options):
                raise UserError(
                    f"{decision.name} = {choice} is out of range: "
                    f"0 to {len(decision.options) - 1} ({', '.join(decision.options)})"
                )
        return architecture

    def read(self, value: Any) -> Architecture:
        """Make an architecture from parsed JSON, or from a string as ``parse`` reads it.

        Raises UserError if it is not one of this space.
        """
        if isinstance(value, str):
            return self.parse(value)
        return self.check(Architecture.from_json(value))

    def write(self, architecture: Architecture) -> str:
        """Write the architecture as one word, as in the published tables of the space."""
        return ",".join(map(str, architecture.choices))

    def parse(self, text: str) -> Architecture:
        """Read an architecture: its choices, separated by commas, spaces or bars.

        Raises UserError if it is not one of this space.
        """
        words = re.sub(r"[\[\],|]", " ", text).split()
        choices = [int(word) if re.fullmatch("[0-9]{1,9}", word) else word for word in words]
        return self.read({"space": self.name, "choices": choices})
