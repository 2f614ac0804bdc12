"""Links the scores of several supernets: their offsets are measured on common architectures.

A supernet that trains each path for longer gives higher scores to all of them (35 steps for each of
1,000 architectures, then 117 for each of 300), so scores of two supernets are on two scales. The
*anchors* put them on one: architectures that every round trains and scores.

- Anchors are a random sample. The best by one supernet were also lucky in it, so that they fall
  in the next, and the newer architectures would seem better than they are.
- Anchors are trained along. A path that a supernet has not trained scores too low in it, with the
  same effect.
- A rank or z-score within the round needs no anchors, but takes the rounds for equally good. They
  are not: later ones come from the ascent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean, stdev
from typing import Any

from nasrun.run.state import whole_number
from nasrun.search_algo.pool import Pool
from nasrun.values import Architecture, Trial


@dataclass(frozen=True)
class Offset:
    """How much higher a round scores than the first one.

    mean: mean difference over the anchors, in units of the score; 0 without anchors.
    error: its standard error; None for fewer than two anchors.
    anchors: number of anchors that have a score in both rounds.
    """

    mean: float
    error: float | None
    anchors: int


class Linking:
    """The scores of a pool, shifted to the scale of the first round.

    anchors: architectures of the first round that every round scores; they stay in the pool.
    rounds: round of the newest score of an architecture.
    scores: scores of the anchors, round by round; None: not scored, or not finite.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.anchors: list[Architecture] = []
        self.rounds: dict[Architecture, int] = {}
        self.scores: list[list[float | None]] = []

    def choose(self, count: int) -> None:
        """Take the first ``count`` of the first pool, a random sample as the pool itself is."""
        self.anchors = list(islice(self.pool.trials, count))

    def take(self, trials: Sequence[Trial], round_index: int) -> None:
        """Take the scores of a round; the pool has them already."""
        place = {architecture: index for index, architecture in enumerate(self.anchors)}
        while len(self.scores) <= round_index:
            self.scores.append([None] * len(place))
        for trial in trials:
            self.rounds[trial.architecture] = round_index
            if trial.architecture in place and not _not_finite(trial):
                self.scores[round_index][place[trial.architecture]] = trial.score

    def offset(self, round_index: int) -> Offset:
        """Return the difference of a round to the first one."""
        differences = [
            later - first
            for first, later in zip(self.scores[0], self.scores[round_index], strict=True)
            if first is not None and later is not None
        ]
        count = len(differences)
        return Offset(
            fmean(differences) if differences else 0.0,
            stdev(differences) / count**0.5 if count > 1 else None,
            count,
        )

    def ranked(self) -> list[Architecture]:
        """Return the architectures by their scores on the first round's scale, the best first.

        Of equal scores the earlier found comes first.
        """
        ranked = sorted(self.trials(), key=lambda trial: -trial.score)
        return [trial.architecture for trial in ranked]

    def trials(self) -> list[Trial]:
        """Return the newest trials in the order of the pool, scores on the first round's scale.

        A trial whose outputs were not finite keeps the worst score.
        """
        offsets = [self.offset(index).mean for index in range(len(self.scores))]

        def shifted(trial: Trial) -> Trial:
            offset = offsets[self.rounds[trial.architecture]]
            return trial if _not_finite(trial) else replace(trial, score=trial.score - offset)

        return [shifted(trial) for trial in self.pool.trials.values() if trial is not None]

    def newest(self) -> list[Trial]:
        """Return the trials of the last round that has scores, as they are, the highest first."""
        last = len(self.scores) - 1
        return [
            trial
            for trial in self.pool.best(len(self.pool.trials))
            if self.rounds[trial.architecture] == last
        ]

    def report(self) -> list[dict[str, Any]]:
        """Return the offset of each later round, for result.json."""
        return [{"round": i, **vars(self.offset(i))} for i in range(1, len(self.scores))]

    def say(self) -> str:
        """Return a line about the last round that has scores."""
        last = len(self.scores) - 1
        offset = self.offset(last)
        error = "" if offset.error is None else f" ± {100 * offset.error:.2f}"
        return (
            f"round {last} scores {100 * offset.mean:+.2f}{error} points against round 0 on "
            f"{offset.anchors} common architectures; this is taken off"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state, rounds in the order of the pool; None: without a score."""
        return {
            "anchors": [architecture.to_json() for architecture in self.anchors],
            "rounds": [self.rounds.get(architecture) for architecture in self.pool.trials],
            "scores": [list(scores) for scores in self.scores],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it does not fit the pool, read before."""
        self.anchors = [self.pool.space.read(architecture) for architecture in state["anchors"]]
        if not self.pool.trials.keys() >= set(self.anchors):
            raise ValueError("an anchor is not in the pool")
        self.scores = [
            [None if score is None else float(score) for score in scores]
            for scores in state["scores"]
        ]
        if any(len(scores) != len(self.anchors) for scores in self.scores):
            raise ValueError(f"the rounds do not have {len(self.anchors)} anchors each")
        last = len(self.scores) - 1
        self.rounds = {}
        for trial, index in zip(self.pool.trials.values(), state["rounds"], strict=True):
            if (trial is None) != (index is None):
                raise ValueError("a score without a round, or a round without a score")
            if trial is not None:
                self.rounds[trial.architecture] = whole_number(index, most=last)


def _not_finite(trial: Trial) -> bool:
    """Return whether the outputs were not finite, so that the trial has the worst score."""
    return bool(trial.evaluation.get("nonfinite"))
