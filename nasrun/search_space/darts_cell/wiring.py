"""The edges of a cell, and genotypes, the notation in which DARTS' cells are exchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nasrun.errors import UserError
from nasrun.search_space.darts_cell.operations import EVERY_NAME as OPERATION_NAMES
from nasrun.search_space.darts_cell.operations import NONE

INPUTS = 2
"""Number of inputs of a cell: states 0 and 1 are cells k-2 and k-1; node i is state i + 2."""

CELLS = ("normal", "reduce")

ENTRY = re.compile(r"""\(\s*(['"])(\w{1,80})\1\s*,\s*([0-9]{1,9})\s*\)""")
"""An entry ('sep_conv_3x3', 1): the operation, and the state that it reads."""

CONCAT = r"(?:range\([^()\]]*\)|\[[^\]]*\])"
GENOTYPE = re.compile(
    r"(?:\w+\s*=\s*)?Genotype\(\s*"
    + r"\s*,\s*".join(
        rf"{cell}\s*=\s*\[(?P<{cell}>[^\]]*)\]\s*,\s*{cell}_concat\s*=\s*(?P<{cell}_concat>{CONCAT})"
        for cell in CELLS
    )
    + r"\s*,?\s*\)"
)


def edges_of(nodes: int) -> list[tuple[int, int]]:
    """List (node, the state that it reads) for all edges of a cell, in the published order."""
    return [(node, state) for node in range(nodes) for state in range(node + INPUTS)]


def edges_before(node: int) -> int:
    """Count the edges that end in earlier nodes: the index of the node's first edge."""
    return node * (node - 1) // 2 + INPUTS * node


def write_genotype(choices: Sequence[int], nodes: int) -> str:
    """Write ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), ...)``."""
    half = len(choices) // 2
    fields = []
    for cell, own in zip(CELLS, (choices[:half], choices[half:]), strict=True):
        entries = [
            (OPERATION_NAMES[choice], state)
            for (_, state), choice in zip(edges_of(nodes), own, strict=True)
            if choice != NONE
        ]
        fields.append(f"{cell}={entries}, {cell}_concat=range({INPUTS}, {nodes + INPUTS})")
    return f"Genotype({', '.join(fields)})"


def read_genotype(text: str, nodes: int) -> list[int]:
    """Read the choices of both cells from a genotype; nothing is evaluated.

    Raises UserError if the text is no genotype of cells with ``nodes`` nodes.
    """
    found = GENOTYPE.fullmatch(text.strip())
    if found is None:
        raise UserError(
            f"{text.strip()[:80]!r} is no genotype; one is written Genotype(normal=[(OPERATION, "
            f"INPUT), ...], normal_concat=range({INPUTS}, {nodes + INPUTS}), reduce=[...], "
            f"reduce_concat=range({INPUTS}, {nodes + INPUTS}))"
        )
    choices = []
    for cell in CELLS:
        _check_concat(found[f"{cell}_concat"], cell, nodes)
        choices += _read_cell(found[cell], cell, nodes)
    return choices


def _check_concat(text: str, cell: str, nodes: int) -> None:
    """Raise UserError unless the cell's output is made of all nodes."""
    numbers = [int(number) for number in re.findall("[0-9]{1,9}", text)]
    nothing_else = not re.sub("[0-9]{1,9}", "", text.removeprefix("range")).strip("[](), ")
    if text.startswith("range"):
        numbers = list(range(*numbers)) if len(numbers) == 2 and numbers[1] < 1000 else []
    if not nothing_else or sorted(numbers) != list(range(INPUTS, nodes + INPUTS)):
        raise UserError(
            f"{cell}_concat = {text[:80]}: the output of a cell is made of all of its nodes, "
            f"range({INPUTS}, {nodes + INPUTS})"
        )


def _read_cell(text: str, cell: str, nodes: int) -> list[int]:
    entries = [(match[2], int(match[3])) for match in ENTRY.finditer(text)]
    if rest := ENTRY.sub("", text).replace(",", "").strip():
        raise UserError(f"{cell}: {rest[:80]!r} is no entry (OPERATION, INPUT) of a genotype")
    if len(entries) != 2 * nodes:
        raise UserError(
            f"{cell} has {len(entries)} entries; two for each of {nodes} nodes are {2 * nodes}"
        )
    choices = [NONE] * len(edges_of(nodes))
    for place, (name, state) in enumerate(entries):
        node = place // 2
        where = f"{cell}, entry {place + 1} ({name!r}, {state})"
        if name not in OPERATION_NAMES[1:]:
            raise UserError(
                f"{where}: there is no operation {name!r} for an edge; there are "
                f"{', '.join(OPERATION_NAMES[1:])}"
            )
        if state >= node + INPUTS:
            raise UserError(
                f"{where}: node {node} cannot read {state}: before it are 0 to "
                f"{node + INPUTS - 1} (cells k-2 and k-1, then the nodes before it)"
            )
        edge = edges_before(node) + state
        if choices[edge] != NONE:
            raise UserError(f"{where}: node {node} reads {state} twice; its two inputs differ")
        choices[edge] = OPERATION_NAMES.index(name)
    return choices
