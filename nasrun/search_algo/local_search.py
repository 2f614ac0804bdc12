"""Local search: from the best architecture so far to a better neighbour, again and again.

Source: White et al. 2020, arXiv 2005.02960, and its released code (naszilla): a strong control on
tables, where its only settings are the number of random starts and what follows an optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from nasrun.budget.candidates import Candidates
from nasrun.limits import Count
from nasrun.run.state import whole_number
from nasrun.search_algo.counted import CountedAlgo, CountedSearch
from nasrun.search_algo.pool import ByForm
from nasrun.streams import Streams
from nasrun.values import Architecture


@dataclass(frozen=True, kw_only=True)
class LocalSearch(CountedAlgo):
    """Climbs from the best of a few random architectures, one decision at a time.

    evaluations: architectures scored in all.
    starts: random architectures, from the best of which a climb begins.
    whole_neighbourhood: whether all neighbours are scored before the best is taken; otherwise the
    first that is better is.
    at_optimum: where it goes on when no neighbour is better: from the ``next_best`` of all scored
    architectures whose neighbours are not all known, or with a ``restart`` from new random ones.

    Neighbours differ in the option of one decision, repaired where the space asks for it.
    Raises UserError if starts > evaluations.
    """

    starts: Count
    whole_neighbourhood: bool
    at_optimum: Literal["next_best", "restart"]

    def __post_init__(self) -> None:
        self.require_rest("starts", "climb")

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> Climb:
        return Climb(self, candidates, streams)


class Climb(CountedSearch):
    """The search of ``LocalSearch``.

    here: the architecture whose neighbours are scored; None: the newest start is not chosen yet.
    visited: forms of the places of this climb, ``here`` included; with ``next_best`` of all climbs.
    begun: number of random samplings so far. fresh: number of architectures of the last one.
    """

    algo: LocalSearch

    def __init__(self, algo: LocalSearch, candidates: Candidates, streams: Streams) -> None:
        super().__init__(algo, algo.starts, candidates, streams)
        self.here: Architecture | None = None
        self.visited: set[Architecture] = set()
        self.begun = self.fresh = 0
        self._around: ByForm = {}  # neighbours of ``here``, in random order

    def begin(self) -> None:
        """Sample the architectures from the best of which a climb begins; end if none is new."""
        self.fresh = len(self.sample(self.begun, min(self.algo.starts, self.left)))
        self.begun += 1
        self.here = None
        if self.algo.at_optimum == "restart":
            self.visited = set()

    def step(self) -> None:
        """Move to a better neighbour, or find one without a score, or leave the optimum."""
        if self.here is None:
            self._move(max(list(self.pool.trials)[-self.fresh :], key=self.rank_key))
        assert self.here is not None  # noqa: S101
        better: list[Architecture] = []
        for form, neighbour in self._around.items():
            scored = self.known.get(form)
            if scored is None:
                self.add({form: neighbour})
                self.pool.made(neighbour, "neighbour", [self.here])
                return
            if form not in self.visited and self.rank_key(scored) > self.rank_key(self.here):
                better.append(scored)
                if not self.algo.whole_neighbourhood:
                    break
        if better:
            self._move(max(better, key=self.rank_key))
        elif self.algo.at_optimum == "restart":
            self.begin()
        else:
            self._leave()

    def _leave(self) -> None:
        """Go to the best scored architecture that was not ``here``; if there is none, restart."""
        others = [one for form, one in self.known.items() if form not in self.visited]
        if others:
            self._move(max(others, key=self.rank_key))
        else:
            self.begin()

    def _move(self, to: Architecture) -> None:
        self.here = to
        self.visited.add(self.space.canonical(to))
        self._around = self._neighbours(to)

    def _neighbours(self, of: Architecture) -> ByForm:
        """Return the neighbours within the budget, each network once, in random order."""
        own = self.space.canonical(of)
        rng = self.streams.numpy("neighbours", *own.choices)
        found: ByForm = {}
        for index, decision in enumerate(self.space.decisions):
            for option in range(len(decision.options)):
                choices = (*of.choices[:index], option, *of.choices[index + 1 :])
                child = self.space.repair(Architecture(of.space, choices), rng)
                form = self.space.canonical(child)
                if form != own and form not in found and self.candidates.allows(child):
                    found[form] = child
        forms = list(found)
        order = rng.permutation(len(forms)).tolist()
        return {forms[place]: found[forms[place]] for place in order}

    def state_dict(self) -> dict[str, Any]:
        left = sorted(self.visited, key=lambda form: form.choices)
        return {
            **super().state_dict(),
            "here": self.here and self.here.to_json(),
            "left": [form.to_json() for form in left],
            "begun": self.begun,
            "fresh": self.fresh,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.visited = {self.space.read(form) for form in state["left"]}
        if not self.known.keys() >= self.visited:
            raise ValueError("a place that was left has no score")
        self.begun = whole_number(state["begun"], most=self.algo.evaluations + 1)
        self.fresh = whole_number(state["fresh"], most=self.algo.starts)
        self.here = None
        if state["here"] is not None:
            here = self.space.read(state["here"])
            if self.pool.trials.get(here) is None:
                raise ValueError("the place of the climb has no score")
            self._move(here)
