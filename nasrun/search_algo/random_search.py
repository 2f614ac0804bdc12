"""Random search: one supernet of the whole space, then the best of many random samples.

The baseline that every one-shot method has to beat (Li and Talwalkar, 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nasrun.budget.candidates import Candidates
from nasrun.limits import Count
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.pool import ByForm, PoolSearch
from nasrun.streams import Streams


@dataclass(frozen=True, kw_only=True)
class RandomSearch(SearchAlgo):
    """Scores ``evaluations`` distinct random architectures, ``batch`` of them at a time.

    In a space that has fewer, it scores all that random samples find.
    """

    rounds = 1

    evaluations: Count
    batch: Count

    def scored_in(self, round_: int) -> int:
        return self.evaluations

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> RandomPool:
        return RandomPool(self, candidates, streams)


class RandomPool(PoolSearch):
    """The search of ``RandomSearch``."""

    def __init__(self, algo: RandomSearch, candidates: Candidates, streams: Streams) -> None:
        super().__init__(candidates, streams, algo.batch)
        self.algo = algo

    def begin_round(self) -> Round | None:
        if not self.pool.trials:
            found: ByForm = {}
            self.pool.sample(self.streams.numpy("random", 0), self.algo.evaluations, found)
            self.pool.add_pending(found)
        return self.only_round(0)

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state["pool"])
