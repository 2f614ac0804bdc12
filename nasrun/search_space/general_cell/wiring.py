"""Choices of ``general_cell`` as cells, and cells as choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nasrun.errors import UserError, nearest
from nasrun.search_space.general_cell.operations import OPERATION_NAMES
from nasrun.search_space.genotype import CELLS, INPUTS, NONE, Entry, Genotype, GenotypeCell, Node

ABSENT = (0, OPERATION_NAMES.index(NONE))
"""The choices of an edge that is not there: nothing, read from the first input."""


def choices_of_a_cell(nodes: int, edges: int) -> int:
    """Return the number of decisions of a cell: two for each edge, and one for each node."""
    return nodes * (2 * edges + 1)


def genotype_of_choices(choices: Sequence[int], nodes: int, edges: int) -> Genotype:
    """Return both cells, without absent edges and closed nodes at their ends."""
    half = choices_of_a_cell(nodes, edges)
    normal, reduce = (_cell(choices[start : start + half], nodes, edges) for start in (0, half))
    return Genotype(normal, reduce)


def _cell(choices: Sequence[int], nodes: int, edges: int) -> GenotypeCell:
    opened = choices[2 * nodes * edges :]
    found = [_node(choices[2 * edges * n : 2 * edges * (n + 1)]) for n in range(nodes)]
    while len(found) > 1 and not found[-1] and not opened[len(found) - 1]:
        found.pop()
    return GenotypeCell(
        tuple(found), tuple(node + INPUTS for node, is_open in enumerate(opened) if is_open)
    )


def _node(choices: Sequence[int]) -> Node:
    pairs = list(zip(choices[::2], choices[1::2], strict=True))
    while pairs and pairs[-1] == ABSENT:
        pairs.pop()
    return tuple(
        Entry(OPERATION_NAMES[op], state, place) for place, (state, op) in enumerate(pairs)
    )


def choices_of_genotype(genotype: Genotype, nodes: int, edges: int) -> tuple[int, ...]:
    """Return the choices that stand for a genotype.

    Raises UserError if it has more nodes or edges than the space, or an operation that is unknown.
    """
    choices: list[int] = []
    for name, cell in zip(CELLS, genotype.cells, strict=True):
        if len(cell.nodes) > nodes:
            raise UserError(
                f"{name} has {len(cell.nodes)} nodes, more than search_space.nodes={nodes}"
            )
        for index in range(nodes):
            node = cell.nodes[index] if index < len(cell.nodes) else ()
            if len(node) > edges:
                raise UserError(
                    f"{name}: node {index} has {len(node)} entries, more than "
                    f"search_space.edges={edges}"
                )
            for entry in node:
                choices += entry.state, OPERATION_NAMES.index(_known(entry, name))
            choices += ABSENT * (edges - len(node))
        choices += (int(index + INPUTS in cell.concat) for index in range(nodes))
    return tuple(choices)


def _known(entry: Entry, cell: str) -> str:
    if entry.operation not in OPERATION_NAMES:
        raise UserError(
            f"{entry.words(cell)}: no search space has the operation {entry.operation!r}"
            f"{nearest(entry.operation, OPERATION_NAMES)}; general_cell has "
            f"{', '.join(OPERATION_NAMES)}"
        )
    return entry.operation


def sorted_entries(cell: Sequence[int], nodes: int, edges: int) -> Iterator[int]:
    """Yield the choices of a cell with the edges of each node in order, absent ones last."""
    for node in range(nodes):
        own = cell[2 * edges * node : 2 * edges * (node + 1)]
        pairs = zip(own[::2], own[1::2], strict=True)
        there = sorted(pair for pair in pairs if pair[1] != ABSENT[1])
        for pair in (*there, *[ABSENT] * (edges - len(there))):
            yield from pair
    yield from cell[2 * edges * nodes :]
