"""A search whose gates are learned while the supernet trains: what they end as is the winner."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.run.monitor import Monitor, NullMonitor
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateLearner
from nasrun.values import Architecture, Trial


class LearnedSearch(SearchAlgo):
    """One round of supernet training; then one architecture, which is scored once."""

    rounds = 1
    learner: GateLearner

    def __init__(self) -> None:
        self.trial: Trial | None = None
        self.monitor: Monitor = NullMonitor()

    @abstractmethod
    def derive(self) -> Architecture:
        """What the gates have come to."""

    def start(self, candidates: Candidates, streams: Streams, device: torch.device) -> None:
        """Raises UserError where there is a budget, which no such search keeps to."""
        self.candidates, self.space = candidates, candidates.space
        if candidates.bounds:
            names = ", ".join(bound.name for bound in candidates.bounds)
            raise UserError(
                f"budget ({names}): search_algo {type(self).__name__} ends with one architecture, "
                "whatever it costs: leave the budget out, or take search_algo=evolution or random"
            )

    def next_round(self, monitor: Monitor) -> Round | None:
        self.monitor = monitor
        if self.trial is not None:
            return None
        return Round(0, None, fresh_supernet=True, evaluations=1)

    def ask(self) -> list[Architecture]:
        if self.trial is not None:
            return []
        if doubt := self.learner.doubt():
            self.monitor.say(doubt, "yellow")
        return [self.derive()]

    def tell(self, trials: Sequence[Trial]) -> None:
        (self.trial,) = trials

    def best(self, count: int) -> list[Trial]:
        return [self.trial] if self.trial is not None else []

    def state_dict(self) -> dict[str, Any]:
        trial = self.trial and self.trial.to_json()
        return {"gates": self.learner.state_dict(), "trial": trial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["gates"])
        self.trial = state["trial"] and Trial.from_json(state["trial"])
