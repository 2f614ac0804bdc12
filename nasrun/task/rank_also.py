"""A second way to score the supernet that is ranked: beside the first, and against the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import ScoreAxis, Scorer
from nasrun.metrics.bootstrap import Estimate, bootstrap
from nasrun.metrics.ranking import kendall
from nasrun.run.run import Run
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams
from nasrun.task.rank_parts import Rank
from nasrun.task.scoring import ScoresByEpoch

Agreement = dict[str, Estimate]
"""τ-b of the second scores: ``with_truth``, and ``with_scores``, the first."""


class Also:
    """The second scores of a ranking and how they agree with the first and with the truth."""

    def __init__(self, scorer: Scorer, axis: ScoreAxis) -> None:
        self.scorer, self.axis = scorer, axis
        self.scores = ScoresByEpoch()
        self.agreement: dict[int, Agreement] = {}

    @staticmethod
    def over(wanted: Rank, space: SearchSpace, splits: Splits, run: Run) -> Also | None:
        """None where no second way is wanted; UserError where it cannot score this space."""
        if wanted.also is None:
            return None
        try:
            scorer = wanted.also.bind(space, splits, run.compute, run.streams)
        except UserError as error:
            raise UserError(f"rank.also: {error}") from error
        return Also(scorer, wanted.also.axis("rank.also"))

    def compare(
        self,
        scores: ScoresByEpoch,
        truth: npt.ArrayLike,
        epochs: Sequence[int],
        wanted: Rank,
        streams: Streams,
    ) -> None:
        """τ-b with intervals over architectures, after each measured epoch."""

        def agreement(also: Any, first: Any, true: Any) -> Any:
            return {"with_truth": kendall(also, true), "with_scores": kendall(also, first)}

        for epoch in epochs:
            self.agreement[epoch] = bootstrap(
                agreement,
                *(self.scores.of(epoch), scores.of(epoch), truth),
                resamples=wanted.resamples,
                confidence=wanted.confidence,
                rng=streams.numpy("bootstrap/also", epoch),
            )

    @property
    def last(self) -> Agreement:
        return list(self.agreement.values())[-1]

    def to_json(self) -> dict[str, Any]:
        """{"axis", "logarithm", "epochs": {EPOCH: {NAME: {"value", "low", "high"}}}}."""
        return {
            "axis": self.axis.label,
            "logarithm": self.axis.logarithm,
            "epochs": {
                str(epoch): {name: found.to_json() for name, found in agreement.items()}
                for epoch, agreement in self.agreement.items()
            },
        }

    def result(self) -> dict[str, float]:
        """What stands in result.json, as far as it is defined."""
        return {
            f"also_{name}{suffix}": value
            for name, found in self.last.items()
            for suffix, value in (("", found.value), ("_low", found.low), ("_high", found.high))
            if math.isfinite(value)
        }

    def plot(
        self,
        run: Run,
        scores: npt.ArrayLike,
        truth: npt.ArrayLike,
        params: npt.NDArray[np.int64],
    ) -> None:
        """also.png and .svg: the first scores, and the truth, against the second."""
        from nasrun.report import figures  # matplotlib: not before it is needed

        found = self.scores.of(list(self.agreement)[-1])
        x = np.log(np.maximum(found, 1e-300)) if self.axis.logarithm else np.asarray(found)
        panels = [
            figures.Panel("", x, y, params / 1e6, self.last[name], label)
            for label, y, name in (
                ("supernet accuracy", scores, "with_scores"),
                ("true accuracy", truth, "with_truth"),
            )
        ]
        figures.panels(panels, run.directory / "also", x=self.axis.label)

    def say(self, run: Run) -> None:
        """One line."""
        words = [
            f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}) {words}"
            for words, found in (
                ("with the scores", self.last["with_scores"]),
                ("with the truth", self.last["with_truth"]),
            )
        ]
        run.say(f"τ-b of rank.also     {', '.join(words)} (also.png)")
