"""Random search: one supernet for the whole space, then the best of many random architectures.

The baseline that every one-shot method has to beat (Li and Talwalkar, 2019).
"""

from __future__ import annotations

from typing import Any

import torch

from nasrun.budget.candidates import Candidates
from nasrun.limits import Count
from nasrun.run.monitor import Monitor
from nasrun.search_algo.base import Round
from nasrun.search_algo.pool import Found, Pool, PoolSearch
from nasrun.streams import Streams


class RandomSearch(PoolSearch):
    """Score ``evaluations`` distinct random architectures, ``batch`` of them at a time.

    A space that has fewer is scored as far as random draws reach.
    """

    rounds = 1

    def __init__(self, *, evaluations: Count, batch: Count) -> None:
        self.evaluations = evaluations
        self.batch = batch

    def start(self, candidates: Candidates, streams: Streams, device: torch.device) -> None:
        self.pool = Pool(candidates)
        self.streams = streams

    def next_round(self, monitor: Monitor) -> Round | None:
        if not self.pool.trials:
            found: Found = {}
            self.pool.sample(self.streams.numpy("random", 0), self.evaluations, found)
            self.pool.add(found)
            self.pool.pending = list(found.values())
        # A search resumed with architectures to score is still in its only round.
        pending = len(self.pool.pending)
        return Round(0, None, fresh_supernet=True, evaluations=pending) if pending else None

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state["pool"])
