"""Searches that learn gates while the supernet trains; the final gates give the winner."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.search_algo.base import BlockHistory, Round, Search, SearchAlgo
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateContext, GateLearner
from nasrun.values import Architecture, Trial


class ArchitectureLearner(GateLearner):
    """A learner whose gates favour one architecture."""

    @abstractmethod
    def derive(self) -> Architecture:
        """Return the architecture that the gates favour at the end of the training."""

    def gates_to_score(self, architecture: Architecture) -> Gates:
        """Return the gates by which the supernet scores the derived architecture."""
        return architecture.choices

    def block_history(self) -> BlockHistory | None:
        """See ``Search.block_history``."""
        return None

    def note(self) -> str | None:
        """Return a line about how the learning ended, else None."""
        return None

    def report(self) -> dict[str, int]:
        """See ``Search.report``."""
        return {}


class LearnedAlgo(SearchAlgo):
    """Settings of an algorithm that learns gates, for one round of supernet training."""

    rounds = 1
    learns_gates = True

    @abstractmethod
    def make_learner(self, context: GateContext, candidates: Candidates) -> ArchitectureLearner:
        """Make the learner of a training; raises UserError if the training is too short for it."""

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> LearnedSearch:
        """Make the search; raises UserError if there is a budget, which it could not keep."""
        if candidates.bounds:
            names = ", ".join(bound.name for bound in candidates.bounds)
            raise UserError(
                f"budget ({names}): learned gates end with one architecture, whatever it costs: "
                "leave the budget out, or take search_algo=evolution or random"
            )
        return LearnedSearch(self, candidates, streams)


class LearnedSearch(Search):
    """One round of supernet training; then one architecture, which is scored once."""

    def __init__(self, algo: LearnedAlgo, candidates: Candidates, streams: Streams) -> None:
        super().__init__(candidates, streams)
        self.algo = algo
        self.trial: Trial | None = None
        self._learner: ArchitectureLearner | None = None

    def bind_learner(self, context: GateContext) -> ArchitectureLearner:
        self._learner = self.algo.make_learner(context, self.candidates)
        return self._learner

    @property
    def learner(self) -> ArchitectureLearner:
        """The learner of the gates; raises RuntimeError before it is bound."""
        if self._learner is None:
            raise RuntimeError("the gates have no learner: bind_learner makes it")
        return self._learner

    def begin_round(self) -> Round | None:
        return Round(0, None, fresh_supernet=True, evaluations=1) if self.trial is None else None

    def ask(self) -> list[Architecture]:
        if self.trial is not None:
            return []
        architecture = self.learner.derive()
        if note := self.learner.note():
            self.monitor.say(note)
        if warning := self.learner.warning():
            self.monitor.say(warning, "yellow")
        return [architecture]

    def tell(self, trials: Sequence[Trial]) -> None:
        (self.trial,) = trials

    def best(self, count: int) -> list[Trial]:
        return [self.trial] if self.trial is not None else []

    def gates(self, architecture: Architecture) -> Gates:
        return self.learner.gates_to_score(architecture)

    def block_history(self) -> BlockHistory | None:
        return self.learner.block_history()

    def report(self) -> dict[str, Any]:
        return self.learner.report()

    def state_dict(self) -> dict[str, Any]:
        trial = self.trial and self.trial.to_json()
        return {"gates": self.learner.state_dict(), "trial": trial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["gates"])
        self.trial = state["trial"] and Trial.from_json(state["trial"])
