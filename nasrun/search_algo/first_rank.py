"""A search that the first of several ranks carries out; the others follow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nasrun.run.monitor import Monitor
from nasrun.run.ranks import Ranks
from nasrun.search_algo.base import BlockHistory, Round, Search
from nasrun.search_space.gates import Gates
from nasrun.trainer.gate_learner import GateContext, GateLearner
from nasrun.values import Architecture, Trial


class FirstRankSearch(Search):
    """Gives all ranks the rounds, questions and results of the first rank's search.

    A predictor that the search trains need not end with the same bits on every rank, and a single
    other question would lead the ranks apart. While the first rank trains it, the others wait.
    """

    def __init__(self, search: Search, ranks: Ranks) -> None:
        super().__init__(search.candidates, search.streams)
        self.search, self.ranks = search, ranks

    @property
    def mark(self) -> Any:
        """The mark of the search itself, if it has one."""
        return getattr(self.search, "mark", None)

    def _first(self, ask: Callable[[], Any]) -> Any:
        """Return what ``ask`` returns on the first rank, a JSON value."""
        return self.ranks.agree(ask() if self.ranks.writes else None)

    def next_round(self, monitor: Monitor) -> Round | None:
        found = self._first(lambda: _round_to_json(self.search.next_round(monitor)))
        return None if found is None else _round_from_json(found)

    def begin_round(self) -> Round | None:
        return self.search.begin_round()

    def ask(self) -> list[Architecture]:
        found = self._first(lambda: [one.to_json() for one in self.search.ask()])
        return [Architecture.from_json(one) for one in found]

    def tell(self, trials: Sequence[Trial]) -> None:
        if self.ranks.writes:
            self.search.tell(trials)

    def best(self, count: int) -> list[Trial]:
        found = self._first(lambda: [trial.to_json() for trial in self.search.best(count)])
        return [Trial.from_json(trial) for trial in found]

    def bind_learner(self, context: GateContext) -> GateLearner | None:
        return self.search.bind_learner(context)

    def gates(self, architecture: Architecture) -> Gates:
        return self.search.gates(architecture)

    def origin(self, architecture: Architecture) -> dict[str, Any]:
        return self.search.origin(architecture) if self.ranks.writes else {}

    def block_history(self) -> BlockHistory | None:
        return self.search.block_history() if self.ranks.writes else None

    def front(self) -> list[Trial] | None:
        return self.search.front() if self.ranks.writes else None

    def report(self) -> dict[str, Any]:
        return self.search.report() if self.ranks.writes else {}

    def costs(self, trial: Trial) -> dict[str, float]:
        return self.search.costs(trial) if self.ranks.writes else {}

    def state_dict(self) -> dict[str, Any]:
        return self.search.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.search.load_state_dict(state)


def _round_to_json(round_: Round | None) -> dict[str, Any] | None:
    if round_ is None:
        return None
    pool = None if round_.pool is None else [one.to_json() for one in round_.pool]
    return {
        "index": round_.index,
        "pool": pool,
        "fresh_supernet": round_.fresh_supernet,
        "evaluations": round_.evaluations,
    }


def _round_from_json(value: dict[str, Any]) -> Round:
    pool = value["pool"]
    pool = None if pool is None else tuple(Architecture.from_json(one) for one in pool)
    return Round(value["index"], pool, value["fresh_supernet"], value["evaluations"])
