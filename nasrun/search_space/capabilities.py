"""Capabilities of search spaces that some methods need; any space may have them.

They are protocols: a space has a capability if it has the members, without inheriting anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from nasrun.search_space.base import SearchSpace
from nasrun.search_space.chain import Piece
from nasrun.search_space.dso_block.roles import Role
from nasrun.search_space.gates import Gates
from nasrun.search_space.layer import Layer
from nasrun.values import Architecture, Decision, Problem


@runtime_checkable
class ChainSupernet(Protocol):
    """Supernets whose paths are chains, so that equal first pieces may be computed once.

    No batch norm is in two pieces of one chain. ``SearchSpace.layers`` lists a layer for each
    piece, in their order: from them follows how much work is shared, and in how much memory.
    """

    def pieces(self, gates: Gates) -> Sequence[Piece]:
        """Return the pieces of a single path; one after the other they are ``forward``."""


@runtime_checkable
class DeeperCells(Protocol):
    """Spaces of cells with operations on edges whose stacks can be made deeper (for P-DARTS)."""

    @property
    def normal_skips(self) -> Mapping[int, int]:
        """Decisions of the normal cell -> their option that passes the input on unchanged."""

    def of_cells(self, cells: int, *, partial_channels: int | None = None) -> SearchSpace:
        """Return the space with the same decisions, and supernets of ``cells`` cells.

        partial_channels: K, 1/K of the channels go through their operations; None: as they are.
        """


@runtime_checkable
class GrowingCells(Protocol):
    """Spaces of cells of one block to several, each block with the same decisions (for PNAS).

    most_blocks: blocks of the largest cells.
    """

    most_blocks: int

    @property
    def block_decisions(self) -> Sequence[Decision]:
        """The decisions of the last block of the largest cells; earlier ones have fewer options."""

    def blocks(self, architecture: Architecture) -> Sequence[Sequence[int]]:
        """Return the choices of each block of the cell."""

    def first_cells(self) -> Iterator[Architecture]:
        """Yield all cells of one block, each network once."""

    def grown(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield all cells that have one block more than this one."""


@runtime_checkable
class OperationLevels(Protocol):
    """Spaces of blocks whose edges are on or off and whose operations have costs (for DSO-NAS).

    The operations have the names ``wiring.OPERATION_NAMES`` and ``roles.OUTPUT`` of ``dso_block``.
    """

    @property
    def sections(self) -> Mapping[str, int]:
        """Number of decisions of each section with its own decisions: blocks, then reductions."""

    @property
    def roles(self) -> Sequence[Role]:
        """The purpose of each decision, in order."""

    def layers_of_blocks(self, problem: Problem) -> list[list[Mapping[str, Layer]]]:
        """List for each section the blocks that follow it, as their operations by name."""


Places = int | Sequence["Places"]
"""A decision by index, or several places, each with its own."""


@runtime_checkable
class PlacesInLevels(Protocol):
    """Spaces whose decisions lie in levels, motifs and nodes (for hierarchical evolution).

    A mutation chooses a level, in it a motif, in that a node, and an edge into it.
    """

    @property
    def places(self) -> Places:
        """The decisions as nested sequences, the levels outermost."""

    @property
    def trivial(self) -> Architecture:
        """The architecture from which random ones are made by many mutations."""


@runtime_checkable
class TwoInputNodes(Protocol):
    """Spaces of two cells whose nodes sum two operations on earlier states (for ENAS).

    The decisions are four a node, normal cell first: x input, x operation, y input, y operation.
    nodes: number of nodes of a cell; each may read both inputs of the cell and all earlier nodes.
    operations: the options of a branch; the names of convolutions contain ``conv``.
    """

    nodes: int
    operations: tuple[str, ...]

    def cells(self, architecture: Architecture) -> Any:
        """Return the nodes of the normal and of the reduction cell."""


@runtime_checkable
class LimitedEdges(Protocol):
    """Spaces of cells whose nodes keep some of their edges (for DARTS-PT and FairDARTS).

    closed_option: the option of a decision by which nothing flows on its edge.
    """

    closed_option: int

    @property
    def edge_counts(self) -> Sequence[int]:
        """The numbers of open edges that may end in a node of an architecture, smallest first."""

    @property
    def edges_by_node(self) -> tuple[tuple[int, ...], ...]:
        """See ``SearchSpace.edges_by_node``."""


@runtime_checkable
class ClosedInMixtures(Protocol):
    """Spaces with options that an architecture may have and a mixture has not."""

    @property
    def mixed_options(self) -> Sequence[Sequence[int]]:
        """The options of each decision that mixtures open."""


@runtime_checkable
class WidthRatios(Protocol):
    """Spaces with decisions on the width of a block (for the warm-up of widths)."""

    @property
    def width_ratios(self) -> Mapping[int, Sequence[float]]:
        """Decisions on a width, by index -> the ratio of each option, wider ones being larger."""


@runtime_checkable
class SuperKernels(Protocol):
    """Spaces whose options in a layer may be parts of one kernel (for Single-Path NAS).

    Their supernets have ``norms()``: the squared norm of each part of the kernel of a decision, by
    index: [rings, groups of channels].
    """

    @property
    def kernel_parts(self) -> Mapping[int, Sequence[tuple[int, int] | None]]:
        """Decisions on parts of a kernel, by index -> the part that each option has.

        A part is the largest ring and the last group of channels; None: the option passes its
        input on. Empty: there is no such decision.
        """


def has_deeper_cells(space: type) -> bool:
    """Return whether a class of search spaces meets ``DeeperCells``."""
    return _has_all(space, "normal_skips", "of_cells")


def has_growing_cells(space: type) -> bool:
    """Return whether a class of search spaces meets ``GrowingCells``."""
    return _has_all(space, "first_cells", "grown", "blocks", "block_decisions")


def has_operation_levels(space: type) -> bool:
    """Return whether a class of search spaces meets ``OperationLevels``."""
    return _has_all(space, "sections", "roles", "layers_of_blocks")


def has_width_ratios(space: type) -> bool:
    """Return whether a class of search spaces meets ``WidthRatios``."""
    return _has_all(space, "width_ratios")


def has_super_kernels(space: type) -> bool:
    """Return whether a class of search spaces meets ``SuperKernels``."""
    return _has_all(space, "kernel_parts")


def has_limited_edges(space: type) -> bool:
    """Return whether a class of search spaces meets ``LimitedEdges``."""
    return _has_all(space, "edge_counts", "closed_option")


def has_edges_by_node(space: type) -> bool:
    """Return whether a class of search spaces has nodes in which several edges may end."""
    found = getattr(space, "edges_by_node", SearchSpace.edges_by_node)
    return found is not SearchSpace.edges_by_node


def _has_all(space: type, *members: str) -> bool:
    return all(hasattr(space, member) for member in members)
