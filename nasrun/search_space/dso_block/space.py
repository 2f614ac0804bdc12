"""DSO-NAS' block as a search space: each edge of the complete graph is on or off."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.errors import UserError
from nasrun.limits import Amount
from nasrun.search_space.base import Measure, Scale, SearchSpace
from nasrun.search_space.dso_block.layers import list_layers, stage_layers
from nasrun.search_space.dso_block.network import BlockNetwork, BlockSupernet
from nasrun.search_space.dso_block.plan import STEM_STRIDES, StemKind, block_cost, network_cost
from nasrun.search_space.dso_block.roles import Role, block_roles
from nasrun.search_space.dso_block.wiring import (
    INPUT,
    OPERATION_NAMES,
    REDUCTIONS,
    Edges,
    Wiring,
    graph_of,
    open_edges,
    operation_of,
    wire,
)
from nasrun.search_space.gates import BINARY, GateKind
from nasrun.search_space.graph import Graph
from nasrun.search_space.layer import Layer
from nasrun.search_space.stages import StagePlan, plan_stages
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Decision, Problem

MAX_CHANNELS = 2048
"""Upper bound of the channels of the first stage."""

Channels = Annotated[int, Field(gt=0, le=MAX_CHANNELS)]


class SearchScale(BaseModel):
    """The scale of the supernet. channels: C of the first stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Channels


class FinalScale(SearchScale):
    """Channels of the final network, or limits to which they are fitted (the width multiplier).

    params, macs: limits of the network; null: no limit. With a limit, C is the largest multiple of
    ``step`` within both, and ``channels`` is not used.
    """

    step: Channels
    params: Annotated[Amount, Field(gt=0)] | None
    macs: Annotated[Amount, Field(gt=0)] | None


class DsoBlock(SearchSpace):
    """``dso_block``: the space of DSO-NAS (Zhang et al., arXiv 1811.01567), by its code.

    A block has ``levels`` levels of four operations. Every operation above level 1 reads any sum of
    the block's input and of operations of lower levels; the output is a sum over any of the
    operations. Between two stages is a reduction, a sum of two convolutions. Edges that lead
    nowhere are not computed.

    blocks: number of blocks of each stage. share: whether all blocks have the same edges.
    density: the probability of an edge in random architectures.
    """

    name = "dso_block"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})
    binary = True

    def __init__(
        self,
        *,
        share: bool,
        levels: Annotated[int, Field(gt=0, le=8)],
        blocks: Annotated[list[Annotated[int, Field(gt=0, le=100)]], Field(min_length=1)],
        stem: StemKind,
        density: Annotated[float, Field(ge=0.01, le=1)],
        search: SearchScale,
        final: FinalScale,
    ) -> None:
        self.share, self.blocks, self.stem, self.density = share, blocks, stem, density
        self.edges = Edges(levels)
        self.search, self.final = search, final
        self._fitted: dict[tuple[Architecture, Problem], int] = {}

    @cached_property
    def sections(self) -> dict[str, int]:
        """The number of decisions of each block and reduction with its own decisions, by name."""
        names = ["block"]
        if not self.share:
            names = [
                f"stage{stage + 1}.block{index + 1}"
                for stage, count in enumerate(self.blocks)
                for index in range(count)
            ]
        found = dict.fromkeys(names, self.edges.count)
        for index in range(1, len(self.blocks)):
            found[f"reduction{index}"] = len(REDUCTIONS)
        return found

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """The places of the decisions of each block, then of each reduction."""
        bounds = accumulate(self.sections.values(), initial=0)
        found = [slice(start, stop) for start, stop in pairwise(bounds)]
        if self.share:
            return (*found[:1] * sum(self.blocks), *found[1:])
        return tuple(found)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        names: list[str] = []
        for section in self.sections:
            inner = REDUCTIONS if section.startswith("reduction") else self.edges.names()
            names += [f"{section}/{name}" for name in inner]
        return tuple(Decision(name, BINARY) for name in names)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """The role of each decision, in order."""
        found: list[Role] = []
        for index, (section, count) in enumerate(self.sections.items()):
            if section.startswith("reduction"):
                found += [Role(None, None, "reduction")] * count
            else:
                found += block_roles(index, self.edges)
        return tuple(found)

    def layers_of_blocks(self, problem: Problem) -> list[list[Mapping[str, Layer]]]:
        """List the blocks that follow each set of decisions, at the scale of the search.

        A block is given as its operations by the name of their role.
        """
        plan = self._plan(problem, self.search.channels)
        blocks = [stage_layers(stage) for stage, _ in plan.blocks()]
        return [blocks] if self.share else [[block] for block in blocks]

    def _wirings(self, opened: Sequence[int]) -> tuple[list[Wiring], list[Sequence[bool]]]:
        """Find what is computed in each block, and what is open in each reduction."""
        count = sum(self.blocks)
        own = [[choice == 1 for choice in opened[place]] for place in self.places]
        if self.share:
            wirings = [wire(own[0], self.edges)] * count
        else:
            wirings = [wire(choices, self.edges) for choices in own[:count]]
        return wirings, list(own[count:])

    def _plan(self, problem: Problem, channels: int) -> StagePlan:
        network = f"dso_block with stem={self.stem} and {len(self.blocks)} stages"
        return plan_stages(problem, network, channels, self.blocks, STEM_STRIDES[self.stem])

    def _check_auxiliary(self, *, auxiliary: bool) -> None:
        if auxiliary and len(self.blocks) == 1:
            raise UserError(
                "dso_block has its auxiliary head after a reduction, and with a single stage it "
                "has none: set auxiliary_weight=0 for this trainer"
            )

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> BlockSupernet:
        self._check_auxiliary(auxiliary=auxiliary)
        return BlockSupernet(
            self._plan(problem, self.search.channels),
            self.edges,
            self.places,
            *self._wirings((1,) * len(self.decisions)),
            auxiliary=auxiliary,
        )

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> BlockNetwork:
        self._check_auxiliary(auxiliary=auxiliary)
        choices = self.check(architecture).choices
        network = BlockNetwork(
            self._plan(problem, self.channels(architecture, problem, scale)),
            self.edges,
            self.places,
            *self._wirings(choices),
            auxiliary=auxiliary,
        )
        network.choices = choices
        return network

    def channels(self, architecture: Architecture, problem: Problem, scale: Scale) -> int:
        """Return C of the first stage; raises UserError if no width is within the limits."""
        if scale == "search":
            return self.search.channels
        limits = {"params": self.final.params, "macs": self.final.macs}
        if all(limit is None for limit in limits.values()):
            return self.final.channels
        key = (architecture, problem)
        if key not in self._fitted:
            if len(self._fitted) > 10_000:
                self._fitted.clear()
            self._fitted[key] = self._fit(architecture, problem, limits)
        return self._fitted[key]

    def _fit(
        self, architecture: Architecture, problem: Problem, limits: dict[str, float | None]
    ) -> int:
        """Find the largest multiple of the step within the limits by bisection."""
        wirings, reductions = self._wirings(architecture.choices)

        def exceeded(steps: int) -> str | None:
            plan = self._plan(problem, steps * self.final.step)
            cost = network_cost(plan, wirings, reductions)
            for name, limit in limits.items():
                if limit is not None and getattr(cost, name) > limit:
                    return f"{limit:,.10g} {name}: this one has {getattr(cost, name):,}"
            return None

        if found := exceeded(1):
            raise UserError(
                f"an architecture of dso_block has no network, not even one of "
                f"{self.final.step} channels, of at most {found}; raise the budget, or lower "
                "search_space.final.step"
            )
        low, high = 1, max(MAX_CHANNELS // self.final.step, 1) + 1  # low fits; high is excluded
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if exceeded(middle) is None else (low, middle)
        return low * self.final.step

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        plan = self._plan(problem, self.channels(architecture, problem, scale))
        return network_cost(plan, *self._wirings(architecture.choices))

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, operations, 1×1 convolutions, norms, shortcuts and reductions, and head.

        Names contain the operation, its channels and the input's side:
        ``dso_block/sep_conv_3x3 48 32``. Sums belong to no layer.
        """
        plan = self._plan(problem, self.channels(architecture, problem, scale))
        return list_layers(plan, *self._wirings(architecture.choices))

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Return the cost of the complete network, at the largest width if widths are fitted."""
        channels = self.search.channels
        if scale == "final":
            fitted = self.final.params is not None or self.final.macs is not None
            channels = MAX_CHANNELS if fitted else self.final.channels
        return network_cost(
            self._plan(problem, channels), *self._wirings((1,) * len(self.decisions))
        )

    def limit(self, name: str) -> float | None:
        return {"params": self.final.params, "macs": self.final.macs}.get(name)

    def fitted_width(self, architecture: Architecture, problem: Problem) -> float | None:
        """Return C of the first stage, where a limit is given."""
        if self.final.params is None and self.final.macs is None:
            return None
        return self.channels(architecture, problem, "final")

    def graphs(self, architecture: Architecture) -> dict[str, Graph]:
        """Return graphs with levels from bottom to top, between the block's input and output."""
        found, start = {}, 0
        for section, count in self.sections.items():
            opened = [choice == 1 for choice in architecture.choices[start : start + count]]
            start += count
            if not section.startswith("reduction"):
                found[section] = graph_of(wire(opened, self.edges), self.edges)
        return found

    def block_costs(self, architecture: Architecture, problem: Problem) -> dict[str, Cost]:
        plan = self._plan(problem, self.search.channels)
        wirings, _ = self._wirings(architecture.choices)
        names = [f"stage{s + 1}.block{b + 1}" for s, n in enumerate(self.blocks) for b in range(n)]
        return {
            name: block_cost(stage, wiring, first=first)
            for name, (stage, first), wiring in zip(names, plan.blocks(), wirings, strict=True)
        }

    def extremes(self, measure: Measure, streams: Streams) -> tuple[Architecture, Architecture]:
        """Compare the empty and the complete network: at one width, more edges never cost less."""
        count = len(self.decisions)
        both = [Architecture(self.name, (choice,) * count) for choice in (0, 1)]
        low, high = sorted(both, key=measure)
        return low, high

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Sample every edge independently with probability ``density``."""
        opened = rng.random(len(self.decisions)) < self.density
        return Architecture(self.name, tuple(opened.astype(int).tolist()))

    def canonical(self, architecture: Architecture) -> Architecture:
        """Close the edges from and to dead operations."""
        choices = list(architecture.choices)
        for place in self.places[: 1 if self.share else sum(self.blocks)]:
            opened = [choice == 1 for choice in choices[place]]
            choices[place] = open_edges(wire(opened, self.edges), self.edges)
        return Architecture(self.name, tuple(choices))

    def operations_of(self, architecture: Architecture) -> list[str]:
        """List the computed operations of every block."""
        wirings, _ = self._wirings(self.check(architecture).choices)
        return [
            OPERATION_NAMES[node.index % len(OPERATION_NAMES)]
            for wiring in wirings
            for node in wiring.nodes
        ]

    def describe(self, architecture: Architecture) -> list[str]:
        """Write lines like ``level2/max_pool_3x3 of input + level1/sep_conv_3x3``.

        If each block has edges of its own, there is one line per block.
        """
        lines: list[str] = []
        start = 0
        for section, count in self.sections.items():
            own = [choice == 1 for choice in architecture.choices[start : start + count]]
            start += count
            if section.startswith("reduction"):
                names = [name for name, on in zip(REDUCTIONS, own, strict=True) if on]
                lines.append(f"{section} = {' + '.join(names) or 'every second pixel'}")
                continue
            nodes = wire(own, self.edges).nodes
            if not self.share:
                lines.append(
                    f"{section}: {len(nodes)} operations, "
                    f"{sum(len(node.inputs) + node.output for node in nodes)} edges"
                )
                continue
            for node in nodes:
                names = ["input" if s == INPUT else operation_of(s) for s in node.inputs]
                lines.append(f"{operation_of(node.index)} of {' + '.join(names)}")
            outputs = [operation_of(node.index) for node in nodes if node.output]
            lines.append(f"output of {' + '.join(outputs) or 'the shortcut alone'}")
        return lines

    def write(self, architecture: Architecture) -> str:
        """Write hexadecimal digits of four edges each, with hyphens between sections."""
        words, start = [], 0
        for count in self.sections.values():
            bits = "".join(map(str, architecture.choices[start : start + count]))
            start += count
            padded = bits + "0" * (-len(bits) % 4)
            words.append("".join(f"{int(padded[i : i + 4], 2):x}" for i in range(0, count, 4)))
        return "-".join(words)

    def parse(self, text: str) -> Architecture:
        """Read the notation of ``write``; raises UserError for anything else."""
        words = text.strip().lower().split("-")
        counts = list(self.sections.values())
        digits = [-(-count // 4) for count in counts]
        if [len(word) for word in words] != digits or re.search("[^0-9a-f]", "".join(words)):
            raise UserError(
                f"{text.strip()[:60]!r} is no architecture of dso_block with share={self.share}: "
                f"it has {len(counts)} words of hexadecimal digits with hyphens in between, "
                f"{digits[0]} digits for a block, {digits[-1]} for "
                f"{'a reduction' if len(self.blocks) > 1 else 'the last'}"
            )
        choices: list[int] = []
        for word, count in zip(words, counts, strict=True):
            bits = "".join(f"{int(digit, 16):04b}" for digit in word)
            if "1" in bits[count:]:
                raise UserError(f"{text.strip()[:60]!r}: {word!r} opens edges that do not exist")
            choices += map(int, bits[:count])
        return Architecture(self.name, tuple(choices))
