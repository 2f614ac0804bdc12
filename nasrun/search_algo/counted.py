"""Searches of one round that go on until a number of architectures have a score.

What they have in common: settings, the loop of asking, what is known, and their state.
"""

# Annotations are not postponed here: classes of other modules inherit these fields, and the types
# of a constructor are looked up in the module of its own class.

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.pool import MAX_FRUITLESS_SAMPLES, ByForm, PoolSearch
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


@dataclass(frozen=True, kw_only=True)
class CountedAlgo(SearchAlgo):
    """Settings of such a search. evaluations: architectures scored in all."""

    rounds = 1

    evaluations: Count

    def scored_in(self, round_: int) -> int:
        return self.evaluations

    def require_rest(self, name: str, wanted: str) -> None:
        """Raise UserError if the setting ``name``, of the first architectures, leaves no others.

        wanted: what the others would be, for the message.
        """
        first = getattr(self, name)
        if first > self.evaluations:
            raise UserError(
                f"search_algo.{name}={first} is more than search_algo.evaluations="
                f"{self.evaluations}: nothing would {wanted}; lower it, or raise the evaluations"
            )


class CountedSearch(PoolSearch):
    """The search of a ``CountedAlgo``. Nothing is scored twice.

    first: architectures that are asked for at once, at most; ``step`` finds one or more.
    known: architectures that were asked for. exhausted: whether nothing new could be found.
    """

    algo: CountedAlgo

    def __init__(
        self, algo: CountedAlgo, first: int, candidates: Candidates, streams: Streams
    ) -> None:
        super().__init__(candidates, streams, batch=first)
        self.algo = algo
        self.known: ByForm = {}
        self.exhausted = False

    @property
    def left(self) -> int:
        """The number of architectures that are still to be asked for; 0 if none is new."""
        return 0 if self.exhausted else max(self.algo.evaluations - len(self.pool.trials), 0)

    def begin(self) -> None:
        """Find the first architectures; by default they are random."""
        self.sample(0, self.batch)

    @abstractmethod
    def step(self) -> None:
        """Find new architectures by the scores of all before; calls are repeated until it does."""

    def begin_round(self) -> Round | None:
        if not self.pool.trials:
            self.begin()
        return self.only_round(self.left)

    def ask(self) -> list[Architecture]:
        while self.pool.trials and not self.pool.pending and self.left:
            self.step()
        return super().ask()

    def sample(self, number: int, count: int) -> ByForm:
        """Ask for random new architectures; if there are none, the search is over.

        number: names the random stream. count: of architectures, at most. Returns them.
        """
        found: ByForm = {}
        self.pool.sample(self.streams.numpy("random", number), count, found)
        self.exhausted = not found
        self.add(found)
        return found

    def add(self, found: ByForm) -> None:
        """Ask for new architectures."""
        self.pool.add_pending(found)
        self.known.update(found)

    def trial(self, scored: Architecture) -> Trial:
        """Return the trial of an architecture, as it was asked for."""
        trial = self.pool.trials[scored]
        assert trial is not None  # see the caller  # noqa: S101
        return trial

    def rank_key(self, scored: Architecture) -> tuple[float, float]:
        """Return by what architectures are ranked."""
        return self.trial(scored).rank_key

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool.state_dict(), "exhausted": self.exhausted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError or ValueError if it does not fit."""
        self.pool.load_state_dict(state["pool"])
        self.known = {self.space.canonical(one): one for one in self.pool.trials}
        self.exhausted = bool(state["exhausted"])


class CycleSearch(CountedSearch):
    """A search in cycles, in each of which a parent has a child. cycles: number of them so far.

    It ends early after ``MAX_FRUITLESS_SAMPLES`` cycles in a row without a new child.
    """

    def __init__(
        self, algo: CountedAlgo, first: int, candidates: Candidates, streams: Streams
    ) -> None:
        super().__init__(algo, first, candidates, streams)
        self.cycles = 0

    @abstractmethod
    def parent(self, rng: np.random.Generator) -> Architecture:
        """Choose the parent of a cycle, which has a score."""

    @abstractmethod
    def child(self, parent: Architecture, rng: np.random.Generator) -> Architecture:
        """Make a child of it."""

    def step(self) -> None:
        """Run cycles until a new child waits for its score."""
        for _ in range(MAX_FRUITLESS_SAMPLES):
            rng = self.streams.numpy("cycle", self.cycles)
            self.cycles += 1
            parent = self.parent(rng)
            child = self.child(parent, rng)
            found: ByForm = {}
            self.pool.collect([child], 1, found)
            if found:
                self.add(found)
                self.pool.made(child, "mutation", [self.known[self.space.canonical(parent)]])
                return
            self.again(child)
        self.exhausted = True

    def again(self, child: Architecture) -> None:
        """Take a child that is known already, or outside the budget."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "cycles": self.cycles}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError or ValueError if it does not fit."""
        super().load_state_dict(state)
        most = MAX_FRUITLESS_SAMPLES * self.algo.evaluations
        self.cycles = whole_number(state["cycles"], most=most)
