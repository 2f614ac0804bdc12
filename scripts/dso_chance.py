"""Blocks of DSO-NAS by chance: random pruning to as many edges, and how many edges two share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import mean

import numpy as np

from nasrun.search_space.dso_block import DsoBlock
from nasrun.search_space.dso_block.wiring import open_edges, wire
from nasrun.values import Architecture

Kept = frozenset[int]
"""The places of the edges of blocks that are left; reductions are not counted."""


def prune_at_random(space: DsoBlock, like: Architecture, rng: np.random.Generator) -> Architecture:
    """Take edges from the complete network in a random order, down to as many as ``like`` has.

    Every block with edges of its own, and every reduction, keeps as many as there. Edges that lead
    nowhere count as taken.
    """
    choices: list[int] = []
    start = 0
    for section, count in space.sections.items():
        wanted = sum(like.choices[start : start + count])
        start += count
        if section.startswith("reduction"):
            choices += _first(rng.permutation(count), wanted)
        else:
            choices += _prune_block(space, wanted, rng)
    return Architecture(space.name, tuple(choices))


def _first(order: np.ndarray, count: int) -> list[int]:
    """Return off and on for all places, on for the first ``count`` of ``order``."""
    return [int(place < count) for place in np.argsort(order)]


def _prune_block(space: DsoBlock, wanted: int, rng: np.random.Generator) -> list[int]:
    while True:
        order = rng.permutation(space.edges.count)
        low, high = wanted, space.edges.count  # the fewest edges of which ``wanted`` lead somewhere
        while low < high:
            middle = (low + high) // 2
            if sum(_live(space, _first(order, middle))) < wanted:
                low = middle + 1
            else:
                high = middle
        live = _live(space, _first(order, low))
        if sum(live) == wanted:  # one edge may bring several others to life
            return live


def _live(space: DsoBlock, opened: Sequence[int]) -> list[int]:
    return open_edges(wire([on == 1 for on in opened], space.edges), space.edges)


def kept_by(space: DsoBlock, architecture: Architecture) -> Kept:
    """Return the edges of blocks that are left."""
    edges = sum(n for name, n in space.sections.items() if not name.startswith("reduction"))
    return frozenset(i for i, on in enumerate(architecture.choices[:edges]) if on)


def shared(kept: Sequence[Kept]) -> float:
    """Mean number of edges that two of them have in common."""
    return mean(len(a & b) for a, b in combinations(kept, 2))


def jaccard(kept: Sequence[Kept]) -> float:
    """Mean share of the edges of either of two that both have; of two without edges: 1."""
    return mean(len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(kept, 2))


def hypergeometric(kept: Sequence[Kept], edges: int) -> float:
    """Mean number of edges that two random sets of the same sizes share, of ``edges`` in all."""
    return mean(len(a) * len(b) / edges for a, b in combinations(kept, 2))
