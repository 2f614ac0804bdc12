"""PNAS' search: all cells of one block, then beams of cells with one block more each.

Source: Liu et al., ECCV 2018, arXiv 1712.00559, Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.limits import Count
from nasrun.run.memory import check_fits, network_bytes
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.nao.epd_training import one_thread
from nasrun.search_algo.pnas.surrogate import Member, Surrogate, SurrogateSettings
from nasrun.search_algo.pool import ByForm, PoolSearch
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import GrowingCells, has_growing_cells
from nasrun.streams import Streams
from nasrun.values import Architecture

BYTES_OF_A_CHILD = 1000
"""Memory that a grown cell takes while it waits to be chosen, roughly."""


@dataclass(frozen=True, kw_only=True)
class Pnas(SearchAlgo):
    """Progressive search among cells.

    first: cells of one block that are scored: all, or as many random ones.
    beam: K, cells of each larger size that are scored: of all children of the size before, those
    for which the surrogate predicts the highest scores.
    blocks: blocks of the largest cells.
    batch: architectures scored between two checkpoints.
    surrogate: see these settings.

    Where fewer children are within the budget, random cells of any size fill the beam.
    """

    rounds = 1

    first: Count
    beam: Count
    blocks: Annotated[int, Field(gt=0, le=100)]
    batch: Count
    surrogate: SurrogateSettings

    def check(self, space: SearchSpace) -> None:
        if not isinstance(space, GrowingCells):
            raise MissingCapabilityError(
                "search_algo=pnas lets cells grow block by block, and architectures of "
                f"{space.name} have one size",
                group="search_space",
                has=has_growing_cells,
            )
        if self.blocks > space.most_blocks:
            raise UserError(
                f"search_algo.blocks={self.blocks}: cells of {space.name} have at most "
                f"{space.most_blocks} blocks; lower it, or raise search_space.blocks"
            )

    def scored_in(self, round_: int) -> int:
        return self.first + self.beam * (self.blocks - 1)

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> PnasSearch:
        """Make the search; raises UserError if the space has no growing cells.

        Or if the surrogate is too large for the memory. It is small and stays on the CPU.
        """
        self.check(candidates.space)
        cells = cast(GrowingCells, candidates.space)
        weights = network_bytes(lambda: Member(self.surrogate, cells))
        # Two copies of each member, and for each weight in training a gradient and two numbers.
        check_fits(
            (2 * self.surrogate.members + 3) * weights,
            "search_algo.surrogate",
            "search_algo.surrogate.hidden, embedding or members",
        )
        return PnasSearch(self, candidates, streams)


class PnasSearch(PoolSearch):
    """The search of ``Pnas``.

    level: blocks of the newest cells; 0 at first. newest: the cells of that many blocks that are
    parents of the next.
    """

    def __init__(self, algo: Pnas, candidates: Candidates, streams: Streams) -> None:
        super().__init__(candidates, streams, algo.batch)
        self.algo = algo
        self.cells = cast(GrowingCells, candidates.space)
        self.surrogate = Surrogate(algo.surrogate, self.cells, streams)
        self.level = 0
        self.newest: list[Architecture] = []

    def begin_round(self) -> Round | None:
        if self.level == 0:
            self._begin()
        return self.only_round((self.algo.blocks - self.level) * self.algo.beam)

    def ask(self) -> list[Architecture]:
        while not self.pool.pending and 0 < self.level < self.algo.blocks:
            self._grow()
        return super().ask()

    def _begin(self) -> None:
        """Take the cells of one block, or random ones of them if there are too many."""
        cells = list(self.cells.first_cells())
        order = self.streams.numpy("first").permutation(len(cells)).tolist()
        found: ByForm = {}
        if len(cells) <= self.algo.first:
            order.sort()
        self.pool.collect((cells[place] for place in order), self.algo.first, found)
        self._take(found, 1)

    @one_thread()
    def _grow(self) -> None:
        """Train the surrogate on the newest cells, and take the best of their children."""
        found: ByForm = {}
        parents = self._grown() if self.newest else {}
        if parents:
            children = list(parents)
            predicted = self.surrogate.predict([self.cells.blocks(child) for child in children])
            order = predicted.argsort(descending=True, stable=True).tolist()
            self.pool.collect((children[place] for place in order), self.algo.beam, found)
        for child in found.values():
            self.pool.made(child, "grown", [parents[child]])
        self.pool.sample(self.streams.numpy("random", self.level), self.algo.beam, found)
        self._take(found, self.level + 1)

    def _grown(self) -> dict[Architecture, Architecture]:
        """Train the surrogate; returns the children of the newest cells, each with a parent."""
        trials = [self.pool.trials[cell] for cell in self.newest]
        scores = [trial.score for trial in trials if trial is not None]
        blocks = [self.cells.blocks(cell) for cell in self.newest]
        self.surrogate.fit(self.level, blocks, scores, self.monitor)
        of_one = sum(1 for _ in self.cells.grown(self.newest[0]))
        check_fits(
            BYTES_OF_A_CHILD * of_one * len(self.newest),
            "the children of the beam",
            "search_algo.beam",
        )
        return {child: cell for cell in self.newest[::-1] for child in self.cells.grown(cell)}

    def _take(self, found: ByForm, level: int) -> None:
        self.pool.add_pending(found)
        self.level = level
        self.newest = [cell for cell in found.values() if len(self.cells.blocks(cell)) == level]

    def state_dict(self) -> dict[str, Any]:
        return {
            "pool": self.pool.state_dict(),
            "surrogate": self.surrogate.state_dict(),
            "level": self.level,
            "newest": [cell.to_json() for cell in self.newest],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError or ValueError if it does not fit."""
        self.pool.load_state_dict(state["pool"])
        self.surrogate.load_state_dict(state["surrogate"])
        self.level = whole_number(state["level"], most=self.algo.blocks)
        self.newest = [self.space.read(cell) for cell in state["newest"]]
        if not self.pool.trials.keys() >= set(self.newest):
            raise ValueError("a parent of the next cells is not in the pool")
        if any(len(self.cells.blocks(cell)) != self.level for cell in self.newest):
            raise ValueError("a parent of the next cells is of another size")
