"""The cell of NAS-Bench-201: four nodes, six edges, its notation, and equality of cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nasrun.search_space.literals import LiteralError, read_literal, skip_space
from nasrun.search_space.operation import OPERATIONS, Operation

NODE_COUNT = 4
EDGES = tuple((node, source) for node in range(1, NODE_COUNT) for source in range(node))
"""(node, the earlier node that it reads): 1←0, 2←0, 2←1, 3←0, 3←1, 3←2."""

EDGE_OPERATIONS: Mapping[str, Operation] = {
    "none": OPERATIONS["zero"],
    "skip_connect": OPERATIONS["identity"],
    "nor_conv_1x1": OPERATIONS["conv_1x1"],
    "nor_conv_3x3": OPERATIONS["conv_3x3"],
    "avg_pool_3x3": OPERATIONS["avg_pool_3x3"],
}
"""The operations by their published names, in the order of the digits 0 to 4."""

OPERATION_NAMES = tuple(EDGE_OPERATIONS)
NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(len(EDGE_OPERATIONS))


def write_string(choices: Sequence[int]) -> str:
    """Write the published notation: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
    nodes = (
        "".join(
            f"{OPERATION_NAMES[choice]}~{source}|"
            for (target, source), choice in zip(EDGES, choices, strict=True)
            if target == node
        )
        for node in range(1, NODE_COUNT)
    )
    return "+".join(f"|{terms}" for terms in nodes)


def read_string(text: str) -> list[int] | None:
    """Read the choices from a string of ``write_string``; None if it has another form.

    It may stand in quotes or in ``Structure(4 nodes with ...)``; or be a tuple for each node,
    ``((('nor_conv_3x3', 0),), (('none', 0), ('skip_connect', 1)), ...)`` (AutoDL-Projects).
    """
    text = _plain_string(text)
    names = re.findall(r"(\w+)~", text)
    if len(names) != len(EDGES) or not EDGE_OPERATIONS.keys() >= set(names):
        return None
    choices = [OPERATION_NAMES.index(name) for name in names]
    return choices if write_string(choices) == text else None


def _plain_string(text: str) -> str:
    """Return the string of ``write_string`` that stands in another notation."""
    whole = re.fullmatch(r"_?Structure\(\s*[0-9]{1,2} nodes with (\|[^()]{1,400}\|)\s*\)", text)
    if whole is not None:
        return whole[1]
    try:
        value, end = read_literal(text)
    except LiteralError:
        return text
    if skip_space(text, end) != len(text):
        return text
    if isinstance(value, str):
        return value
    try:
        nodes = ("".join(f"{name}~{source}|" for name, source in node) for node in value)
        return "+".join(f"|{terms}" for terms in nodes)
    except (TypeError, ValueError):  # no pairs in it
        return text


class Term(NamedTuple):
    """One term of the sum that a node holds.

    text: the term as an expression of the cell's input x.
    uses: the edges of the convolutions in it, each as often as it occurs in the expression.
    """

    text: str
    uses: Counter[int]


Meaning = tuple[str, tuple[tuple[str, int], ...]]
"""A cell's output as an expression, and its convolutions with how often each occurs in it."""


def meaning(choices: Sequence[int]) -> Meaning:
    """Return a value that is equal for two cells exactly if their outputs are equal.

    Outputs are equal if they are the same expression of the cell's input x.

    Skips, missing connections, dead ends and the order of summands make no difference. But two
    convolutions with the same text may be one, used twice, or two with different weights. The
    counts tell such cells apart. A convolution of zeros is not zero: it is the shift of its batch
    norm. The identity of an average of a sum with the sum of averages is not used.
    """
    nodes: list[list[Term]] = [[Term("x", Counter())]]
    texts: dict[int, str] = {}
    for node in range(1, NODE_COUNT):
        terms: list[Term] = []
        for edge, ((target, source), choice) in enumerate(zip(EDGES, choices, strict=True)):
            inputs = nodes[source] if target == node else []
            if target != node or choice == NONE:
                continue
            if choice == SKIP:
                terms += inputs
            elif choice != POOL or inputs:
                text = f"{OPERATION_NAMES[choice]}({' + '.join(term.text for term in inputs)})"
                uses = sum((term.uses for term in inputs), Counter[int]())
                if choice != POOL:
                    uses[edge] += 1
                    texts[edge] = text
                terms.append(Term(text, uses))
        nodes.append(sorted(terms, key=lambda term: term.text))
    output = nodes[-1]
    uses = sum((term.uses for term in output), Counter[int]())
    return (
        " + ".join(term.text for term in output),
        tuple(sorted((texts[edge], count) for edge, count in uses.items())),
    )
