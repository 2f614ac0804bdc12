"""Choice blocks as a search space: each input and operation of a block is on or off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.search_space.base import Scale, SearchSpace
from nasrun.search_space.gates import BINARY, GateKind
from nasrun.search_space.graph import Graph, words
from nasrun.search_space.layer import Layer
from nasrun.search_space.one_shot_blocks.layers import list_layers
from nasrun.search_space.one_shot_blocks.network import BlockNetwork, BlockSupernet
from nasrun.search_space.one_shot_blocks.operations import OPERATION_NAMES
from nasrun.search_space.one_shot_blocks.wiring import (
    PREVIOUS_CELLS,
    Wiring,
    input_at,
    operation_at,
    state_names,
    wire,
)
from nasrun.search_space.stages import StagePlan, plan_stages
from nasrun.values import Architecture, Cost, Decision, Problem

STAGE_COUNT = 3

StemKind = Literal["small", "imagenet"]
"""``small``: one 3×3 convolution. ``imagenet``: three of stride 2, for large images."""

STEM_STRIDES: Mapping[StemKind, tuple[int, ...]] = {"small": (1,), "imagenet": (2, 2, 2)}
"""Strides of the stem's convolutions of C channels; the first of several has C / 2."""


class BlockScale(BaseModel):
    """The scale of a network. channels: C of the first stage; cells: of each stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Annotated[int, Field(gt=0, le=1024)]
    cells: Annotated[int, Field(gt=0, le=100)]


class OneShotBlocks(SearchSpace):
    """``one_shot_blocks``: the space of Bender et al., ICML 2018, as far as its text tells.

    All cells are equal, with ``blocks`` choice blocks. A block reads any of the two previous cells
    and of the blocks before it, and sums any of seven operations. A block without inputs or without
    operations is off: it adds nothing, also where it is an input. A cell without blocks is zeros.
    Cells whose output leads nowhere are not computed.

    density: the probability with which random architectures have an input or an operation; each
    block samples its inputs, and its operations, again until it has one.
    stem: small, or imagenet for images of 64 pixels and more. Batch norms always scale and shift.
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
                *(f"input/{state}" for state in states[: len(PREVIOUS_CELLS) + block]),
                *(f"op/{operation}" for operation in OPERATION_NAMES),
            )
        )

    def _wiring(self, architecture: Architecture) -> Wiring:
        return wire([choice == 1 for choice in architecture.choices], self.blocks)

    def _plan(self, problem: Problem, scale: Scale) -> StagePlan:
        size = self.scales[scale]
        network = f"{self.name} with stem={self.stem}"
        depths = [size.cells] * STAGE_COUNT
        return plan_stages(problem, network, size.channels, depths, STEM_STRIDES[self.stem])

    def _everything(self) -> Architecture:
        return Architecture(self.name, (1,) * len(self.decisions))

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> BlockSupernet:
        self.refuse_auxiliary(auxiliary)
        return BlockSupernet(self._plan(problem, "search"), self._wiring(self._everything()))

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> BlockNetwork:
        self.refuse_auxiliary(auxiliary)
        wiring = self._wiring(self.check(architecture))
        return BlockNetwork(self._plan(problem, scale), wiring, architecture.choices)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, the layers of the cells that are computed, reductions and head.

        Names contain the operation, its channels and the input's side:
        ``one_shot_blocks/sep_conv_3x3 16 32``. Sums belong to no layer.
        """
        return list_layers(self._plan(problem, scale), self._wiring(architecture))

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Return the cost of the network that has everything; it is in the space."""
        return self.cost(self._everything(), problem, scale)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Sample inputs and operations with probability ``density``; every block has both."""
        choices: list[int] = []
        for size in self._sizes():
            opened = rng.random(size) < self.density
            while not opened.any():
                opened = rng.random(size) < self.density
            choices += opened.astype(int).tolist()
        return Architecture(self.name, tuple(choices))

    def _sizes(self) -> Iterator[int]:
        """Yield the number of inputs and of operations that each block decides on, in order."""
        for block in range(self.blocks):
            yield len(PREVIOUS_CELLS) + block
            yield len(OPERATION_NAMES)

    def canonical(self, architecture: Architecture) -> Architecture:
        """Close everything in blocks that are off, and all inputs from them."""
        choices = [0] * len(self.decisions)
        for index, block in enumerate(self._wiring(architecture).blocks):
            for state in block.inputs:
                choices[input_at(index, state)] = 1
            for operation in block.operations:
                choices[operation_at(index, operation)] = 1
        return Architecture(self.name, tuple(choices))

    def operations_of(self, architecture: Architecture) -> list[str]:
        """List the operations of the blocks that are on."""
        blocks = self._wiring(architecture).blocks
        return [OPERATION_NAMES[operation] for block in blocks for operation in block.operations]

    def describe(self, architecture: Architecture) -> list[str]:
        """Write lines like ``block 1 = identity + sep_conv_3x3 of cell k-1 + block 0``."""
        states, lines = state_names(self.blocks), []
        for index, block in enumerate(self._wiring(architecture).blocks):
            operations = " + ".join(OPERATION_NAMES[operation] for operation in block.operations)
            inputs = " + ".join(states[state] for state in block.inputs)
            state = f"= {operations} of {inputs}" if block.on else "is off"
            lines.append(f"block {index} {state}")
        return lines

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The cell: its inputs, the blocks that are on with their operations, and the output."""
        states, wiring = state_names(self.blocks), self._wiring(architecture)
        shown = sorted({*range(len(PREVIOUS_CELLS)), *wiring.states})
        place = {state: at for at, state in enumerate(shown)}
        nodes, edges = [states[state] for state in shown], []
        for index, block in enumerate(wiring.blocks):
            if block.on:
                at = place[index + len(PREVIOUS_CELLS)]
                operations = (words(OPERATION_NAMES[operation]) for operation in block.operations)
                nodes[at] = "\n".join((nodes[at], *operations))
                edges += [(place[state], at, "") for state in block.inputs]
                edges.append((at, len(shown), ""))
        return {"cell": Graph((*nodes, "output" if wiring.on else "output\nzeros"), edges)}

    def write(self, architecture: Architecture) -> str:
        """Write zeros and ones, with hyphens between inputs and operations of each block."""
        bits, words = "".join(map(str, architecture.choices)), []
        for size in self._sizes():
            words.append(bits[:size])
            bits = bits[size:]
        return "-".join(words)

    def parse(self, text: str) -> Architecture:
        """Read zeros and ones, with hyphens anywhere; raises UserError for anything else."""
        return super().parse(" ".join(re.sub("-", "", text.strip())))
