"""Choice blocks as a search space: an on or off for each input and each operation of a block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.errors import UserError
from nasrun.search_space.base import Scale, SearchSpace
from nasrun.search_space.gates import BINARY, GateKind
from nasrun.search_space.one_shot_blocks.network import BlockNetwork, BlockSupernet
from nasrun.search_space.one_shot_blocks.operations import NAMES
from nasrun.search_space.one_shot_blocks.plan import Plan, StemKind, network_cost, plan_stages
from nasrun.search_space.one_shot_blocks.wiring import (
    BEFORE,
    Wiring,
    input_at,
    operation_at,
    state_names,
    wire,
)
from nasrun.values import Architecture, Cost, Decision, Problem


class BlockScale(BaseModel):
    """channels: C of the first stage; cells: those of each of the three stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Annotated[int, Field(gt=0, le=1024)]
    cells: Annotated[int, Field(gt=0, le=100)]


class OneShotBlocks(SearchSpace):
    """``one_shot_blocks``: the space of Bender et al., ICML 2018, as far as its text tells.

    Equal cells of ``blocks`` choice blocks. A block reads any of the two cells before and of the
    blocks before it, and sums any of seven operations; all cells share the decisions. A block
    without inputs or without operations is off and adds nothing, and neither does an input from
    it; a cell without blocks is zeros. Cells whose output leads nowhere are no part of a network.

    density: the probability with which random architectures have an input or an operation; each
    block draws its inputs, and its operations, again until it has one. stem: small, or imagenet for
    images of 64 pixels and more. Batch norms always scale and shift.
    """

    name = "one_shot_blocks"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})
    binary = True

    def __init__(
        self,
        *,
        blocks: Annotated[int, Field(gt=0, le=16)],
        density: Annotated[float, Field(ge=0.01, le=1)],
        stem: StemKind,
        search: BlockScale,
        final: BlockScale,
    ) -> None:
        self.blocks, self.density = blocks, density
        self.stem: StemKind = stem
        self.scales: dict[Scale, BlockScale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        states = state_names(self.blocks)
        return tuple(
            Decision(f"block{block}/{name}", BINARY)
            for block in range(self.blocks)
            for name in (
                *(f"input/{state}" for state in states[: len(BEFORE) + block]),
                *(f"op/{operation}" for operation in NAMES),
            )
        )

    def _wiring(self, architecture: Architecture) -> Wiring:
        return wire([choice == 1 for choice in architecture.choices], self.blocks)

    def _plan(self, problem: Problem, scale: Scale, *, auxiliary: bool = False) -> Plan:
        if auxiliary:
            raise UserError(
                f"{self.name} has no auxiliary head: set auxiliary_weight=0 for this trainer"
            )
        size = self.scales[scale]
        return plan_stages(problem, self.stem, size.channels, size.cells)

    def _everything(self) -> Architecture:
        return Architecture(self.name, (1,) * len(self.decisions))

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> BlockSupernet:
        plan = self._plan(problem, "search", auxiliary=auxiliary)
        return BlockSupernet(plan, self._wiring(self._everything()))

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> BlockNetwork:
        plan = self._plan(problem, scale, auxiliary=auxiliary)
        wiring = self._wiring(self.check(architecture))
        return BlockNetwork(plan, wiring, architecture.choices)

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        return network_cost(self._plan(problem, scale), self._wiring(architecture))

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """The network that has everything, which is one of the space."""
        return self.cost(self._everything(), problem, scale)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Inputs and operations independently with probability ``density``; a block has some."""
        choices: list[int] = []
        for size in self._sizes():
            drawn = rng.random(size) < self.density
            while not drawn.any():
                drawn = rng.random(size) < self.density
            choices += drawn.astype(int).tolist()
        return Architecture(self.name, tuple(choices))

    def _sizes(self) -> Iterator[int]:
        """How many inputs and how many operations each block decides on, in order."""
        for block in range(self.blocks):
            yield len(BEFORE) + block
            yield len(NAMES)

    def canonical(self, architecture: Architecture) -> Architecture:
        """Blocks that are off have nothing, and nothing reads them."""
        choices = [0] * len(self.decisions)
        for index, block in enumerate(self._wiring(architecture).blocks):
            for state in block.inputs:
                choices[input_at(index, state)] = 1
            for operation in block.operations:
                choices[operation_at(index, operation)] = 1
        return Architecture(self.name, tuple(choices))

    def operations_of(self, architecture: Architecture) -> list[str]:
        """Those of the blocks that are on."""
        blocks = self._wiring(architecture).blocks
        return [NAMES[operation] for block in blocks for operation in block.operations]

    def describe(self, architecture: Architecture) -> list[str]:
        """``block 1 = identity + sep_conv_3x3 of cell k-1 + block 0``."""
        states, lines = state_names(self.blocks), []
        for index, block in enumerate(self._wiring(architecture).blocks):
            operations = " + ".join(NAMES[operation] for operation in block.operations)
            inputs = " + ".join(states[state] for state in block.inputs)
            what = f"= {operations} of {inputs}" if block.on else "is off"
            lines.append(f"block {index} {what}")
        return lines

    def write(self, architecture: Architecture) -> str:
        """Zeros and ones, hyphens between the inputs and the operations of each block."""
        bits, parts = "".join(map(str, architecture.choices)), []
        for size in self._sizes():
            parts.append(bits[:size])
            bits = bits[size:]
        return "-".join(parts)

    def parse(self, text: str) -> Architecture:
        """Zeros and ones, hyphens anywhere; raises UserError for anything else."""
        return super().parse(" ".join(re.sub("-", "", text.strip())))
