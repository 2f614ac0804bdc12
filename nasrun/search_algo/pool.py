"""The pool of architectures that a search has found, with or without a score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nasrun.budget.candidates import Candidates
from nasrun.search_algo.base import Round, Search
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

MAX_FRUITLESS_SAMPLES = 10_000
"""A space counts as exhausted after this number of random samples without a new one."""

ByForm = dict[Architecture, Architecture]
"""Canonical form -> architecture as it was found, in the order of finding."""


Origin = tuple[str, tuple[str, ...]]
"""How an architecture was made, in words, and the digests of those that it was made from."""


class Pool:
    """Distinct architectures in the order of finding, each with its newest trial.

    Two architectures with equal canonical forms count as the same. A dropped architecture stays
    known, so it cannot enter again.

    origins: of pending architectures that were made from others.
    """

    def __init__(self, candidates: Candidates) -> None:
        self.candidates, self.space = candidates, candidates.space
        self.trials: dict[Architecture, Trial | None] = {}
        self.pending: list[Architecture] = []
        self.origins: dict[Architecture, Origin] = {}
        self._seen: set[Architecture] = set()

    def collect(self, candidates: Iterable[Architecture], count: int, found: ByForm) -> None:
        """Put candidates that are new and within the budget into ``found``.

        A candidate is new if it is neither in the pool nor in ``found``. Stops when ``found`` has
        ``count`` elements; does not change the pool.
        """
        for architecture in candidates:
            if len(found) >= count:
                return
            form = self.space.canonical(architecture)
            new = form not in self._seen and form not in found
            if new and self.candidates.allows(architecture):
                found[form] = architecture

    def sample(self, rng: np.random.Generator, count: int, found: ByForm) -> None:
        """Fill ``found`` up to ``count`` with random unseen architectures.

        Ends with fewer if ``MAX_FRUITLESS_SAMPLES`` samples in a row bring nothing new.
        """
        fruitless = 0
        while len(found) < count and fruitless < MAX_FRUITLESS_SAMPLES:
            before = len(found)
            architecture = self.candidates.sample(rng)
            if architecture is None:
                return  # too rare within the budget: the space counts as exhausted
            self.collect([architecture], count, found)
            fruitless = 0 if len(found) > before else fruitless + 1

    def add(self, found: ByForm) -> None:
        """Add ``found`` to the pool, neither scored nor pending."""
        self.trials.update(dict.fromkeys(found.values()))
        self._seen.update(found)

    def add_pending(self, found: ByForm) -> None:
        """Add ``found`` to the pool, as architectures that wait for a score."""
        self.add(found)
        self.pending = list(found.values())

    def made(self, architecture: Architecture, by: str, parents: Iterable[Architecture]) -> None:
        """Note how a new architecture was made: by which step, and from which others."""
        self.origins[architecture] = by, tuple(parent.digest for parent in parents)

    def drop(self, architectures: Iterable[Architecture]) -> None:
        """Drop architectures of the pool."""
        for architecture in architectures:
            del self.trials[architecture]

    def ask(self, batch: int) -> list[Architecture]:
        """Return the next ``batch`` pending architectures; the same until they have scores."""
        return self.pending[:batch]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add scores; raises ValueError if an architecture is not pending."""
        for trial in trials:
            self.pending.remove(trial.architecture)
            self.trials[trial.architecture] = trial
            self.origins.pop(trial.architecture, None)

    def best(self, count: int) -> list[Trial]:
        """Return the best newest trials, best first; of equally good ones the earlier found first.

        Of equal scores, the higher ``tie_break`` is the better.
        """
        scored = [trial for trial in self.trials.values() if trial is not None]
        return sorted(scored, key=lambda trial: trial.rank_key, reverse=True)[:count]

    def state_dict(self) -> dict[str, Any]:
        """Return the pool as JSON values."""
        state = {
            "architectures": [architecture.to_json() for architecture in self.trials],
            "trials": [trial and trial.to_json() for trial in self.trials.values()],
            "pending": [architecture.to_json() for architecture in self.pending],
            # Sets have no order; sorting them makes equal states give equal files.
            "seen": [form.to_json() for form in sorted(self._seen, key=lambda form: form.choices)],
        }
        if self.origins:
            state["origins"] = [
                [architecture.to_json(), by, list(parents)]
                for architecture, (by, parents) in self.origins.items()
            ]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``.

        Raises UserError if it belongs to another search space, ValueError if architectures
        and trials do not match.
        """
        read = self.space.read
        self.trials = {
            read(architecture): trial and Trial.from_json(trial)
            for architecture, trial in zip(state["architectures"], state["trials"], strict=True)
        }
        self.pending = [read(architecture) for architecture in state["pending"]]
        self._seen = {read(form) for form in state["seen"]}
        self.origins = {
            read(architecture): (str(by), tuple(map(str, parents)))
            for architecture, by, parents in state.get("origins", [])
        }
        waiting = set(self.pending)
        for architecture, trial in self.trials.items():
            if trial is None and architecture not in waiting:
                raise ValueError("an architecture has no score and waits for none")
            if trial is not None and trial.architecture != architecture:
                raise ValueError("a score belongs to another architecture")
        if not self.trials.keys() >= waiting:
            raise ValueError("an architecture that is not in the pool waits for a score")


class PoolSearch(Search):
    """A search whose architectures all pass through a pool; ``batch`` are asked for at once."""

    def __init__(self, candidates: Candidates, streams: Streams, batch: int) -> None:
        super().__init__(candidates, streams)
        self.pool, self.batch = Pool(candidates), batch

    def only_round(self, left: int) -> Round | None:
        """Return the round of a search that has one; None: it is over.

        left: architectures that it will ask for besides those that wait for their scores.
        """
        evaluations = len(self.pool.pending) + left
        return Round(0, None, fresh_supernet=True, evaluations=evaluations) if evaluations else None

    def ask(self) -> list[Architecture]:
        return self.pool.ask(self.batch)

    def tell(self, trials: Sequence[Trial]) -> None:
        self.pool.tell(trials)

    def origin(self, architecture: Architecture) -> dict[str, Any]:
        by, parents = self.pool.origins.get(architecture, ("", ()))
        return {"by": by, "parents": list(parents)} if by else {}

    def best(self, count: int) -> list[Trial]:
        return self.pool.best(count)
