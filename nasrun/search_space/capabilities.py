"""Capabilities of search spaces that some methods need; any space may have them.

They are protocols: a space has a capability if it has the members, without inheriting anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from nasrun.search_space.base import SearchSpace
from nasrun.search_space.dso_block.roles import Role
from nasrun.search_space.layer import Layer
from nasrun.values import Architecture, Problem


@runtime_checkable
class DeeperCells(Protocol):
    """Stacks of cells that can be made deeper, with operations on edges (for P-DARTS)."""

    @property
    def normal_skips(self) -> Mapping[int, int]:
        """Decisions of the normal cell -> their option that passes the input on unchanged."""

    def of_cells(self, cells: int) -> SearchSpace:
        """The same decisions, with supernets of so many cells."""


@runtime_checkable
class OperationLevels(Protocol):
    """Blocks of on-off edges to levels of operations with costs of their own (for DSO-NAS).

    The operations have the names ``wiring.OPERATION_NAMES`` and ``roles.OUTPUT`` of ``dso_block``.
    """

    @property
    def sections(self) -> Mapping[str, int]:
        """Decisions of each section that has its own: the blocks, then the reductions."""

    @property
    def roles(self) -> Sequence[Role]:
        """The purpose of each decision, in order."""

    def layers_of_blocks(self, problem: Problem) -> list[list[Mapping[str, Layer]]]:
        """For each section the blocks that follow it, and of each block its operations by name."""


@runtime_checkable
class TwoInputNodes(Protocol):
    """Two cells of nodes that sum two operations on two earlier states (for ENAS' controller).

    The decisions are four a node, normal cell first: x input, x operation, y input, y operation.
    nodes: of a cell, each of which may read the two inputs of the cell and all nodes before it.
    operations: the options of a branch; the names of convolutions contain ``conv``.
    """

    nodes: int
    operations: tuple[str, ...]

    def cells(self, architecture: Architecture) -> Any:
        """The nodes of the normal and of the reduction cell."""


def has_deeper_cells(space: type) -> bool:
    """Return whether a class of search spaces meets ``DeeperCells``."""
    return _has_all(space, "normal_skips", "of_cells")


def has_operation_levels(space: type) -> bool:
    """Return whether a class of search spaces meets ``OperationLevels``."""
    return _has_all(space, "sections", "roles", "layers_of_blocks")


def _has_all(space: type, *members: str) -> bool:
    return all(hasattr(space, member) for member in members)
