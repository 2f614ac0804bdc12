"""Local search: from the best architecture so far to a better neighbour, again and again.

Source: White et al. 2020, arXiv 2005.02960, and its released code (naszilla): a strong control on
tables, where its only settings are the number of random starts and what follows an optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.pool import ByForm, PoolSearch
from nasrun.streams import Streams
from nasrun.values import Architecture


@dataclass(frozen=True, kw_only=True)
class LocalSearch(SearchAlgo):
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

    rounds = 1

    evaluations: Count
    starts: Count
    whole_neighbourhood: bool
    at_optimum: Literal["next_best", "restart"]

    def __post_init__(self) -> None:
        if self.starts > self.evaluations:
            raise UserError(
                f"search_algo.starts={self.starts} is more than search_algo.evaluations="
                f"{self.evaluations}: nothing would climb; lower it, or raise the evaluations"
            )

    def scored_in(self, round_: int) -> int:
        return self.evaluations

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> Climb:
        return Climb(self, candidates, streams)


class Climb(PoolSearch):
    """The search of ``LocalSearch``.

    here: the architecture whose neighbours are scored; None: the newest start is not chosen yet.
    left: forms of the places of this climb, ``here`` included; with ``next_best`` of all climbs.
    begun: number of random samplings so far. fresh: number of architectures of the last one.
    """

    def __init__(self, algo: LocalSearch, candidates: Candidates, streams: Streams) -> None:
        super().__init__(candidates, streams, batch=algo.starts)
        self.algo = algo
        self.here: Architecture | None = None
        self.left: set[Architecture] = set()
        self.begun = self.fresh = 0
        self.exhausted = False
        self.known: ByForm = {}
        self._around: ByForm = {}  # neighbours of ``here``, in random order

    def begin_round(self) -> Round | None:
        if not self.pool.trials:
            self._start()
        if not self.pool.pending and self._is_over():
            return None
        left = self.algo.evaluations - len(self.pool.trials)
        return Round(0, None, fresh_supernet=True, evaluations=len(self.pool.pending) + left)

    def ask(self) -> list[Architecture]:
        while self.begun and not self.pool.pending and not self._is_over():
            self._step()
        return super().ask()

    def _is_over(self) -> bool:
        return self.exhausted or len(self.pool.trials) >= self.algo.evaluations

    def _start(self) -> None:
        """Sample the architectures from the best of which a climb begins; end if none is new."""
        count = min(self.algo.starts, self.algo.evaluations - len(self.pool.trials))
        found: ByForm = {}
        self.pool.sample(self.streams.numpy("random", self.begun), count, found)
        self.begun, self.fresh, self.exhausted = self.begun + 1, len(found), not found
        self._add(found)
        self.here = None
        if self.algo.at_optimum == "restart":
            self.left = set()

    def _step(self) -> None:
        """Move to a better neighbour, or find one without a score, or leave the optimum."""
        if self.here is None:
            self._move(max(list(self.pool.trials)[-self.fresh :], key=self._rank_key))
        assert self.here is not None  # noqa: S101
        better: list[Architecture] = []
        for form, neighbour in self._around.items():
            scored = self.known.get(form)
            if scored is None:
                self._add({form: neighbour})
                self.pool.made(neighbour, "neighbour", [self.here])
                return
            if form not in self.left and self._rank_key(scored) > self._rank_key(self.here):
                better.append(scored)
                if not self.algo.whole_neighbourhood:
                    break
        if better:
            self._move(max(better, key=self._rank_key))
        elif self.algo.at_optimum == "restart":
            self._start()
        else:
            self._leave()

    def _leave(self) -> None:
        """Go to the best scored architecture that was not ``here``; if there is none, restart."""
        others = [one for form, one in self.known.items() if form not in self.left]
        if others:
            self._move(max(others, key=self._rank_key))
        else:
            self._start()

    def _move(self, to: Architecture) -> None:
        self.here = to
        self.left.add(self.space.canonical(to))
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

    def _rank_key(self, architecture: Architecture) -> tuple[float, float]:
        trial = self.pool.trials[architecture]
        assert trial is not None  # noqa: S101
        return trial.rank_key

    def _add(self, found: ByForm) -> None:
        self.pool.add_pending(found)
        self.known.update(found)

    def state_dict(self) -> dict[str, Any]:
        return {
            "pool": self.pool.state_dict(),
            "here": self.here and self.here.to_json(),
            "left": [form.to_json() for form in sorted(self.left, key=lambda form: form.choices)],
            "begun": self.begun,
            "fresh": self.fresh,
            "exhausted": self.exhausted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError or ValueError if it does not fit."""
        self.pool.load_state_dict(state["pool"])
        self.known = {self.space.canonical(one): one for one in self.pool.trials}
        self.left = {self.space.read(form) for form in state["left"]}
        if not self.known.keys() >= self.left:
            raise ValueError("a place that was left has no score")
        self.begun = whole_number(state["begun"], most=self.algo.evaluations + 1)
        self.fresh = whole_number(state["fresh"], most=self.algo.starts)
        self.exhausted = bool(state["exhausted"])
        self.here = None
        if state["here"] is not None:
            here = self.space.read(state["here"])
            if self.pool.trials.get(here) is None:
                raise ValueError("the place of the climb has no score")
            self._move(here)
