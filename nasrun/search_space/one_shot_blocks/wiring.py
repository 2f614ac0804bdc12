"""The open decisions of a cell, and those that are computed; for networks and costs.

The states of a cell are numbered: 0 is the output of cell k-2, 1 that of cell k-1, and b + 2 that
of choice block b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nasrun.search_space.one_shot_blocks.operations import OPERATION_NAMES

PREVIOUS_CELLS = ("cell k-2", "cell k-1")


def state_names(blocks: int) -> tuple[str, ...]:
    """List the names of the states of a cell with ``blocks`` blocks, in order."""
    return (*PREVIOUS_CELLS, *(f"block {block}" for block in range(blocks)))


def first_of(block: int) -> int:
    """Return the index of the block's first decision.

    A block decides on each of its inputs, states 0 to block + 1, and then on each operation.
    """
    return block * (len(PREVIOUS_CELLS) + len(OPERATION_NAMES)) + block * (block - 1) // 2


def input_at(block: int, state: int) -> int:
    """Return the index of the decision whether the block reads ``state``."""
    return first_of(block) + state


def operation_at(block: int, operation: int) -> int:
    """Return the index of the decision whether the block has ``operation``."""
    return first_of(block) + len(PREVIOUS_CELLS) + block + operation


@dataclass(frozen=True)
class Block:
    """The open inputs, by state, and the open operations of a block; both empty: it is off."""

    inputs: tuple[int, ...] = ()
    operations: tuple[int, ...] = ()

    @property
    def on(self) -> bool:
        return bool(self.operations)


@dataclass(frozen=True)
class Wiring:
    """The blocks of a cell; blocks that are on read only cells and blocks that are on."""

    blocks: tuple[Block, ...]

    @cached_property
    def states(self) -> tuple[int, ...]:
        """The states that are read; the cell's output reads all blocks that are on."""
        on = {index + len(PREVIOUS_CELLS) for index, block in enumerate(self.blocks) if block.on}
        return tuple(sorted(on | {state for block in self.blocks for state in block.inputs}))

    @property
    def on(self) -> bool:
        """Whether any block is on; if not, the cell is zeros."""
        return bool(self.states)


def wire(opened: Sequence[bool], blocks: int) -> Wiring:
    """Find the blocks of a cell that are on, with their open inputs and operations.

    A block is off, and not computed, if it has no open operation, or no open input that is on.
    """
    on = [True] * len(PREVIOUS_CELLS)
    found = []
    for block in range(blocks):
        inputs = tuple(
            state for state in range(len(on)) if on[state] and opened[input_at(block, state)]
        )
        operations = tuple(
            op for op in range(len(OPERATION_NAMES)) if opened[operation_at(block, op)]
        )
        found.append(Block(inputs, operations) if inputs and operations else Block())
        on.append(found[-1].on)
    return Wiring(tuple(found))


@dataclass(frozen=True)
class Needs:
    """The states at one cell that the network's output needs.

    cell: whether the cell is needed, so computed.
    older, newer: whether the outputs of cells k-2 and k-1 are needed, by this or later cells.
    """

    cell: bool
    older: bool
    newer: bool


def needs_of(wiring: Wiring, cells: int) -> list[Needs]:
    """Find for each cell whether the output of the last cell depends on it and its inputs.

    If no block reads cell k-1, every second cell leads nowhere. A cell that is zeros needs
    nothing.
    """
    found: list[Needs] = []
    output, newest_before = wiring.on, False
    for _ in range(cells):
        older = output and 0 in wiring.states
        newer = newest_before or (output and 1 in wiring.states)
        found.append(Needs(output, older, newer))
        output, newest_before = newer, older
    return found[::-1]
