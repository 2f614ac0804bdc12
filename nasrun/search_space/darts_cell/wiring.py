"""The edges of a cell, and genotypes, the notation in which DARTS' cells are exchanged."""

from __future__ import annotations

from collections.abc import Sequence

from nasrun.errors import UserError
from nasrun.search_space.darts_cell.operations import EVERY_NAME as OPERATION_NAMES
from nasrun.search_space.darts_cell.operations import NONE
from nasrun.search_space.genotype import CELLS, INPUTS, Entry, Genotype, GenotypeCell


def edges_of(nodes: int) -> list[tuple[int, int]]:
    """List (node, the state that it reads) for all edges of a cell, in the published order."""
    return [(node, state) for node in range(nodes) for state in range(node + INPUTS)]


def edges_before(node: int) -> int:
    """Count the edges that end in earlier nodes: the index of the node's first edge."""
    return node * (node - 1) // 2 + INPUTS * node


def genotype_of_choices(choices: Sequence[int], nodes: int) -> Genotype:
    """Return both cells of choices, without closed edges; each puts out all of its nodes."""
    normal, reduce = choices[: len(choices) // 2], choices[len(choices) // 2 :]
    return Genotype(_cell_of(normal, nodes), _cell_of(reduce, nodes))


def _cell_of(choices: Sequence[int], nodes: int) -> GenotypeCell:
    entries: list[list[Entry]] = [[] for _ in range(nodes)]
    for (node, state), choice in zip(edges_of(nodes), choices, strict=True):
        if choice != NONE:
            entries[node].append(Entry(OPERATION_NAMES[choice], state))
    return GenotypeCell(tuple(map(tuple, entries)), tuple(range(INPUTS, nodes + INPUTS)))


def choices_of_genotype(genotype: Genotype, nodes: int, *, fewer: bool = False) -> list[int]:
    """Return the choices of both cells of a genotype.

    fewer: whether nodes may have fewer than two operations. Raises UserError unless its cells have
    ``nodes`` nodes with two operations on different states, and put out all of them.
    """
    choices: list[int] = []
    for name, cell in zip(CELLS, genotype.cells, strict=True):
        choices += _choices_of_cell(cell, name, nodes, fewer=fewer)
    return choices


ELSEWHERE = "search_space=general_cell has such cells"


def _choices_of_cell(cell: GenotypeCell, name: str, nodes: int, *, fewer: bool) -> list[int]:
    count = sum(map(len, cell.nodes))
    if len(cell.nodes) != nodes or (count != 2 * nodes and not fewer):
        raise UserError(
            f"{name} has {count} entries; two for each of {nodes} nodes are {2 * nodes}; set "
            f"search_space.nodes={len(cell.nodes)}, or {ELSEWHERE}"
        )
    choices = [NONE] * len(edges_of(nodes))
    for index, node in enumerate(cell.nodes):
        for entry in node:
            where = entry.words(name)
            if entry.operation not in OPERATION_NAMES[1:]:
                raise UserError(
                    f"{where}: there is no operation {entry.operation!r} for an edge; there are "
                    f"{', '.join(OPERATION_NAMES[1:])}; search_space=general_cell has more"
                )
            edge = edges_before(index) + entry.state
            if choices[edge] != NONE:
                raise UserError(
                    f"{where}: node {index} reads {entry.state} twice; its two inputs differ; "
                    f"{ELSEWHERE}"
                )
            choices[edge] = OPERATION_NAMES.index(entry.operation)
        if len(node) > 2 or (len(node) < 2 and not fewer):
            raise UserError(
                f"{name}: node {index} has {len(node)} entries, and nodes of darts_cell have two; "
                f"{ELSEWHERE}"
            )
    if not cell.puts_out_all:
        raise UserError(
            f"{name}_concat = {cell.output}: the output of a cell is made of all of its nodes, "
            f"range({INPUTS}, {nodes + INPUTS}); {ELSEWHERE}"
        )
    return choices
