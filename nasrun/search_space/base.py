"""What a search space is: decisions, costs, and the networks that architectures stand for."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.search_space.gates import GateKind, Gates
from nasrun.search_space.graph import Graph
from nasrun.search_space.noise import Noise
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Decision, Problem

SizeName = Literal["params", "macs", "bitops"]
"""What ``Cost`` counts."""

Measure = Callable[[Architecture], float]
"""A number of an architecture: a size, a latency in ms."""

PARAMETER_FREE = re.compile(r"none|zero|identity|skip_connect|(avg|max)_pool_\d+x\d+")
"""The operations without parameters, by their names; where one must change the shape of what it
passes on, as an identity of stride 2, it has some all the same."""

Scale = Literal["search", "final"]
"""``search``: width and depth of the supernet; ``final``: those of the retrained winner."""


@dataclass(frozen=True)
class Piece:
    """One operation of a network. Equal names: equal operations on inputs of equal shape.

    shape: of its input, [channels, height, width]; build: the module, randomly initialised.
    """

    name: str
    shape: tuple[int, int, int]
    build: Callable[[], nn.Module] = field(compare=False)


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

    forward: images [B, C, H, W] and ``Gates`` -> logits [B, K]; an option whose gate is shut is
    not computed.
    """

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Modules that are used where certain options are open and nowhere else, with these, as
        (decision, option) by index; none of a supernet that cannot tell."""
        yield from ()


class SearchSpace(ABC):
    """A search space; architectures are values, networks are built from them."""

    name: str
    gate_kinds: frozenset[GateKind]
    binary: ClassVar[bool] = False
    """Whether every decision is one of off or on."""

    @cached_property
    @abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """The choice points, in the order of ``Architecture.choices``."""

    @property
    def whole(self) -> Gates:
        """Gates that open everything: all on, or the mean of all options of each decision.

        The latter only where ``gate_kinds`` has ``mix``.
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
        """The supernet, randomly initialised from torch's default generator.

        Raises UserError where the images are too small for the space's reductions.
        """

    @abstractmethod
    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> Network:
        """The stand-alone network of ``architecture``, randomly initialised."""

    @abstractmethod
    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        """Exact cost of the stand-alone network, counted without building it."""

    @abstractmethod
    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Upper bounds that no architecture of the space exceeds."""

    @property
    def additive(self) -> tuple[tuple[int, ...], ...] | None:
        """Groups of decisions, by index, whose costs add up: the cost of an architecture is a
        constant and one term for the choices of each group. None where costs are more than that."""
        return None

    def pieces(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Piece] | None:
        """What the stand-alone network computes one after the other, stem and head included, for
        tables of latency; None where the space cannot tell."""
        return None

    def limit(self, name: str) -> float | None:
        """What every network of the final scale keeps to by its width, whatever its architecture;
        None: nothing of that name."""
        return None

    def graphs(self, architecture: Architecture) -> dict[str, Graph]:
        """Pictures of the architecture's cells or blocks, by name; none where there is no graph."""
        return {}

    def block_costs(self, architecture: Architecture, problem: Problem) -> dict[str, Cost]:
        """The cost of each block of the stand-alone network of the search, by name; none where the
        space has no blocks that differ."""
        return {}

    def describe(self, architecture: Architecture) -> list[str]:
        """The architecture in words, a line each."""
        return [
            f"{decision.name}: {decision.options[choice]}"
            for decision, choice in zip(self.decisions, architecture.choices, strict=True)
        ]

    def operations_of(self, architecture: Architecture) -> list[str]:
        """The names of the operations that the architecture has chosen, one for each choice."""
        return [
            decision.options[choice]
            for decision, choice in zip(self.decisions, architecture.choices, strict=True)
            if decision.kind == "op"
        ]

    def free_share(self, architecture: Architecture) -> float:
        """The share of its operations that have no parameters, in [0, 1]; 0 where it has none."""
        names = self.operations_of(architecture)
        free = sum(PARAMETER_FREE.fullmatch(name) is not None for name in names)
        return free / len(names) if names else 0.0

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Every decision drawn independently and uniformly."""
        choices = rng.integers([len(decision.options) for decision in self.decisions])
        return Architecture(self.name, tuple(int(choice) for choice in choices))

    def repair(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """The architecture itself, or one near to it where its choices, each allowed by itself, are
        together none of the space: what changes decisions one by one asks for this."""
        return architecture

    def sizer(self, name: SizeName, problem: Problem, scale: Scale = "search") -> Measure:
        """The function that gives that size of an architecture's network.

        Raises UserError where the space has no such size.
        """
        if getattr(self.cost(self.sample(np.random.default_rng(0)), problem, scale), name) is None:
            raise UserError(f"{self.name} decides on no bits, so it has no {name}")

        def measure(architecture: Architecture) -> float:
            found: float = getattr(self.cost(architecture, problem, scale), name)
            return found

        return measure

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Decisions that are best changed together, by index."""
        return self.additive or tuple((index,) for index in range(len(self.decisions)))

    def variants(self, start: Architecture, group: tuple[int, ...]) -> Iterator[Architecture]:
        """``start`` with every combination of options of the decisions of ``group``."""
        for options in product(*(range(len(self.decisions[index].options)) for index in group)):
            choices = list(start.choices)
            for index, option in zip(group, options, strict=True):
                choices[index] = option
            yield Architecture(self.name, tuple(choices))

    def extremes(self, measure: Measure, streams: Streams) -> tuple[Architecture, Architecture]:
        """The architectures of the least and of the greatest ``measure``.

        Found by changing one group of decisions at a time until nothing helps: exact where the
        space is ``additive``; elsewhere the best from several random starts.
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
        """The architecture that learned gates favour, given a weight for every option of every
        decision: the heaviest options."""
        choices = [
            max(range(len(decision.options)), key=row.__getitem__)
            for decision, row in zip(self.decisions, weights, strict=True)
        ]
        return Architecture(self.name, tuple(choices))

    def canonical(self, architecture: Architecture) -> Architecture:
        """One representative of all architectures that stand for the same network."""
        return architecture

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """A random architecture that stands for the same network, where the space has any."""
        return architecture

    def check(self, architecture: Architecture) -> Architecture:
        """The architecture itself; raises UserError where it is not one of this space."""
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
        """An architecture from parsed JSON, a string as ``parse`` takes it.

        Raises UserError where it is not one of this space.
        """
        if isinstance(value, str):
            return self.parse(value)
        return self.check(Architecture.from_json(value))

    def write(self, architecture: Architecture) -> str:
        """The architecture in one word, as the tables of the space have it."""
        return ",".join(map(str, architecture.choices))

    def parse(self, text: str) -> Architecture:
        """The architecture that is written down: its choices between commas, spaces or bars.

        Raises UserError where it is not one of this space.
        """
        words = re.sub(r"[\[\],|]", " ", text).split()
        choices = [int(word) if re.fullmatch("[0-9]{1,9}", word) else word for word in words]
        return self.read({"space": self.name, "choices": choices})
