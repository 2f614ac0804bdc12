"""Genotypes, the notation in which cells are exchanged since DARTS, in all its dialects.

A cell has two inputs, the outputs of cells k-2 and k-1, which are its states 0 and 1; node i is
state i + 2. A node sums operations on earlier states; the cell puts out some of its nodes.

Cells are written as a flat list with two entries for each node (DARTS and its heirs), as a list of
nodes (AutoDL-Projects), or as triples that also tell the node (FairDARTS, DCO).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from nasrun.errors import UserError, nearest, shortened
from nasrun.search_space.literals import Call, LiteralError, read_literal, skip_space

INPUTS = 2
"""Number of inputs of a cell."""

CELLS = ("normal", "reduce")

NONE = "none"
"""The operation of an entry that adds nothing."""

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
"""The fields of a genotype, in the order in which they stand without names."""

MAX_NODES = 16
MAX_EDGES = 32
"""Operations that a node sums, at most; the largest published node sums twelve."""

MAX_CHARACTERS = 4_000_000
MAX_GENOTYPES = 2_000

SAME_OPERATION = {
    "identity": "skip_connect",
    "zero": NONE,
    "nor_conv_1x1": "conv_1x1",
    "nor_conv_3x3": "conv_3x3",
    "conv_1x7_7x1": "conv_7x1_1x7",
    "conv_1x3_3x1": "conv_3x1_1x3",
    **{f"sep_{size}": f"sep_conv_{size}" for size in ("3x3", "5x5", "7x7")},
}
"""Other names of operations, in AutoDL-Projects and elsewhere, and those used here."""


class Entry(NamedTuple):
    """An operation on an earlier state. place: of the entry in the text of its cell, from 1."""

    operation: str
    state: int
    place: int = 0

    def words(self, cell: str) -> str:
        """Name the entry for a message."""
        return f"{cell}, entry {self.place} ({self.operation!r}, {self.state})"


Node = tuple[Entry, ...]


@dataclass(frozen=True)
class GenotypeCell:
    """A cell: the entries of each node, and the states that it puts out, in rising order."""

    nodes: tuple[Node, ...]
    concat: tuple[int, ...]

    @property
    def output(self) -> str:
        """The states that it puts out as they are written: ``range(2, 6)`` or ``[2, 4]``."""
        if all(after == before + 1 for before, after in pairwise(self.concat)):
            return f"range({self.concat[0]}, {self.concat[-1] + 1})"
        return str([*self.concat])

    @property
    def entries(self) -> list[Entry]:
        """The entries of all nodes that add something."""
        return [entry for node in self.nodes for entry in node if entry.operation != NONE]

    @property
    def puts_out_all(self) -> bool:
        """Whether the output is made of all nodes."""
        return self.concat == tuple(range(INPUTS, len(self.nodes) + INPUTS))


@dataclass(frozen=True)
class Genotype:
    """Both cells of an architecture."""

    normal: GenotypeCell
    reduce: GenotypeCell

    @property
    def cells(self) -> tuple[GenotypeCell, GenotypeCell]:
        return self.normal, self.reduce

    def write(self) -> str:
        """Write ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), ...)``.

        The list is flat if each node has two entries, else it has a tuple for each node.
        """
        fields = []
        for name, cell in zip(CELLS, self.cells, strict=True):
            pairs = [tuple(entry[:2] for entry in node) for node in cell.nodes]
            flat = all(len(node) == 2 for node in pairs)
            entries = [entry for node in pairs for entry in node] if flat else pairs
            fields.append(f"{name}={entries}, {name}_concat={cell.output}")
        return f"Genotype({', '.join(fields)})"


@dataclass(frozen=True)
class Found:
    """A genotype of a text. name: the one that it is assigned to, or ``genotype``.

    line: the number of its first line.
    """

    name: str
    line: int
    genotype: Genotype


def read_genotype(text: str) -> Genotype:
    """Read a text that is a genotype, or assigns one to a name, and nothing besides.

    Raises UserError if it is none, or of no cell that could be.
    """
    found = re.match(r"\s*(?:\w{1,99}\s{0,9}=\s{0,9})?(?=Genotype\s{0,9}\()", text[:400])
    start = found.end() if found else 0
    genotype, end = _read_at(text, start)
    if skip_space(text, end) != len(text):
        raise UserError(f"{shortened(text.strip(), 80)!r} is no genotype alone")
    return genotype


def find_genotypes(text: str) -> list[Found]:
    """Find all genotypes in a Python file or a log, also by further names of the same.

    Comments are passed over, as far as something else is found. Raises UserError if there is none
    that could be read, about the first that could not.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{len(text):,} characters are too many to look for genotypes")
    found: list[Found] = []
    commented: list[Found] = []
    refused: UserError | None = None
    at, lines, counted = 0, 1, 0
    for number, match in enumerate(re.finditer(r"\bGenotype\s{0,9}\(", text)):
        if number >= MAX_GENOTYPES:
            raise UserError(f"there are more than {MAX_GENOTYPES:,} genotypes: give one of them")
        if match.start() < at:
            continue  # inside of the one before
        before = text[max(0, match.start() - 200) : match.start()]
        if re.search(r"(class|def)\s+$", before):
            continue
        lines, counted = lines + text.count("\n", counted, match.start()), match.start()
        named = re.search(r"(\w{1,99})\s{0,9}[=:]\s{0,9}$", before)
        comment = "#" in before.rpartition("\n")[2]
        try:
            genotype, at = _read_at(text, match.start())
        except UserError as error:
            refused = refused or error
            continue
        one = Found(named[1] if named else "genotype", lines, genotype)
        (commented if comment else found).append(one)
    found = found or commented
    if not found:
        raise refused or UserError("there is no Genotype(...) in it")
    by_name = {one.name: one for one in found}
    for match in re.finditer(
        r"^(\w{1,99})[ \t]{0,9}=[ \t]{0,9}(\w{1,99})[ \t\r]{0,9}$", text, re.M
    ):
        if (same := by_name.get(match[2])) and match[1] not in by_name:
            by_name[match[1]] = Found(match[1], same.line, same.genotype)
            found.append(by_name[match[1]])
    return found


def genotype_of(value: Mapping[str, Any]) -> Genotype:
    """Read a genotype from the fields of a dictionary; raises UserError."""
    return _genotype(value, lambda name: f"{name} = {shortened(str(value[name]), 80)}")


def _read_at(text: str, start: int) -> tuple[Genotype, int]:
    """Read the genotype that begins at a place; returns it, and the place behind it."""
    try:
        value, end = read_literal(text, start)
    except LiteralError as error:
        rest = shortened(text[error.at :].strip(), 80).partition("\n")[0] or "the end of the text"
        if error.field in CELLS:
            raise UserError(
                f"{error.field}: {rest!r} is no entry (OPERATION, INPUT) of a genotype"
            ) from None
        if error.field in FIELDS:
            rest = shortened(text[error.start :], 80).partition("\n")[0]
            raise UserError(f"{error.field} = {rest}: must be range(2, 6) or [4, 5]") from None
        value, end = None, start
    if not isinstance(value, Call) or value.name != "Genotype":
        raise UserError(_no_genotype(text[start:]))
    if len(value.arguments) > len(FIELDS):
        raise UserError(f"a genotype has {len(FIELDS)} fields, not {len(value.arguments)}")
    fields = dict(zip(FIELDS, value.arguments, strict=False))
    if twice := fields.keys() & value.fields:
        raise UserError(f"a genotype has a field twice: {', '.join(sorted(twice))}")

    def shown(name: str) -> str:
        begin = value.starts.get(name, start)
        return f"{name} = {text[begin : begin + 80].partition(chr(10))[0]}"

    return _genotype(fields | value.fields, shown), end


def _no_genotype(text: str) -> str:
    return (
        f"{shortened(text.strip(), 80)!r} is no genotype; one is written Genotype(normal="
        "[(OPERATION, INPUT), ...], normal_concat=range(2, 6), reduce=[...], "
        "reduce_concat=range(2, 6))"
    )


def _genotype(fields: Mapping[str, Any], shown: Any) -> Genotype:
    """Make a genotype of its fields. shown: function that shows a field by its name."""
    if "recurrent" in fields:
        raise UserError("this is a genotype of a recurrent cell; nasrun has networks for images")
    for name, value in fields.items():
        if name not in FIELDS and value not in (None, ""):
            raise UserError(f"a genotype has no field {name!r}{nearest(name, FIELDS)}")
    for name in CELLS:
        if name not in fields:
            raise UserError(f"a genotype has the cells normal and reduce; there is no {name}")
    normal, reduce = (
        _cell(fields[name], fields.get(f"{name}_concat"), name, shown) for name in CELLS
    )
    return Genotype(normal, reduce)


def _cell(value: Any, concat: Any, name: str, shown: Any) -> GenotypeCell:
    if not isinstance(value, list | tuple):
        raise UserError(f"{shown(name)}: must be a list of entries (OPERATION, INPUT)")
    outputs = None if concat is None else _states(concat, shown(f"{name}_concat"))
    nodes = _nodes(value, name)
    if outputs and _is_triple(value[0] if value else None):
        # FairDARTS and DCO put out no node that sums nothing.
        outputs = [state for state in outputs if state < INPUTS or any(nodes[state - INPUTS :][:1])]
    if not nodes or len(nodes) > MAX_NODES:
        raise UserError(f"{name} has {len(nodes)} nodes: there must be 1 to {MAX_NODES}")
    for index, node in enumerate(nodes):
        if len(node) > MAX_EDGES:
            raise UserError(f"{name}: node {index} has {len(node)} entries, at most {MAX_EDGES}")
        for entry in node:
            if entry.state >= index + INPUTS:
                raise UserError(
                    f"{entry.words(name)}: node {index} cannot read {entry.state}: before it are "
                    f"0 to {index + INPUTS - 1} (cells k-2 and k-1, then the nodes before it)"
                )
    if outputs is None:  # loose ends, as in NASNet
        read = {entry.state for node in nodes for entry in node}
        outputs = [state for state in range(INPUTS, len(nodes) + INPUTS) if state not in read]
    for state in outputs:
        if not INPUTS <= state < len(nodes) + INPUTS:
            raise UserError(
                f"{shown(f'{name}_concat')}: {state} is no node of the cell; its nodes are "
                f"{INPUTS} to {len(nodes) + INPUTS - 1}"
            )
    if not outputs:
        raise UserError(f"{shown(f'{name}_concat')}: a cell must put out one of its nodes")
    return GenotypeCell(nodes, tuple(sorted(set(outputs))))


def _states(value: Any, shown: str) -> list[int]:
    """Read the states that a cell puts out: ``range(2, 6)`` or ``[2, 3, 4, 5]``."""
    if isinstance(value, Call) and value.name == "range" and not value.fields:
        ends = value.arguments
        if len(ends) == 2 and all(type(end) is int and 0 <= end < 1000 for end in ends):
            return list(range(*ends))
    elif isinstance(value, list | tuple) and len(value) < 1000:
        if all(type(state) is int and state >= 0 for state in value):
            return list(value)
    elif type(value) is int and value >= 0:  # (5) is no tuple
        return [value]
    raise UserError(f"{shown}: must be range(2, 6) or [4, 5]")


def _nodes(value: Sequence[Any], cell: str) -> tuple[Node, ...]:
    """Group entries by node, from any of the three notations."""
    if all(_is_node(item) for item in value):
        place, nodes = 0, []
        for item in value:
            nodes.append(tuple(_entry(each, cell, place + at) for at, each in enumerate(item, 1)))
            place += len(item)
        return tuple(nodes)
    triples = [item for item in value if _is_triple(item)]
    if len(triples) == len(value):
        return _by_target(value, cell)
    entries = [_entry(item, cell, place) for place, item in enumerate(value, 1)]
    if len(entries) % 2:
        raise UserError(
            f"{cell} has {len(entries)} entries; two for each of {len(entries) // 2 + 1} nodes are "
            f"{len(entries) + 1}"
        )
    return tuple(zip(entries[::2], entries[1::2], strict=True))


def _is_node(item: Any) -> bool:
    return isinstance(item, list | tuple) and all(isinstance(each, list | tuple) for each in item)


def _is_triple(item: Any) -> bool:
    return (
        isinstance(item, list | tuple)
        and len(item) == 3
        and isinstance(item[0], str)
        and type(item[1]) is int
        and type(item[2]) is int
    )


def _by_target(value: Sequence[Any], cell: str) -> tuple[Node, ...]:
    """Group triples (operation, state of the node, state that it reads)."""
    nodes: list[list[Entry]] = []
    for place, (operation, target, state) in enumerate(value, 1):
        if not INPUTS <= target < MAX_NODES + INPUTS:
            raise UserError(f"{cell}, entry {place}: there is no node {target}; nodes begin at 2")
        while len(nodes) <= target - INPUTS:
            nodes.append([])
        nodes[target - INPUTS].append(_entry((operation, state), cell, place))
    return tuple(map(tuple, nodes))


def _entry(item: Any, cell: str, place: int) -> Entry:
    """Read an entry (operation, state), maybe with a weight behind it, which is left out."""
    pair = isinstance(item, list | tuple) and (
        len(item) == 2 or (len(item) == 3 and isinstance(item[2], float))
    )
    if pair and isinstance(item[0], str) and type(item[1]) is int and item[1] >= 0:
        return Entry(SAME_OPERATION.get(item[0], item[0]), item[1], place)
    raise UserError(
        f"{cell}: {shortened(str(item), 80)!r} is no entry (OPERATION, INPUT) of a genotype; it is "
        f"entry {place}"
    )
