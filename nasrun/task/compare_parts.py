"""What ``nasrun compare`` is told besides the parts of every run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nasrun.errors import UserError
from nasrun.evaluator.base import Evaluator
from nasrun.limits import Count
from nasrun.search_algo.base import SearchAlgo
from nasrun.search_space.base import SearchSpace

Seeds = Annotated[int, Field(ge=2, le=100_000)]


class Compare:
    """algorithms: by the names that the table has for them; control: the one that all others are
    tested against.

    evaluations: distinct architectures that each search may have scored. seeds: searches of each
    algorithm, from the run's seed upwards; fewer_seeds: at most, by name, of those that are slow
    themselves.
    truth: the evaluator that judges what was found; None: the scores of the search do.
    resamples, confidence: of the bootstrap intervals over seeds.
    """

    def __init__(
        self,
        *,
        algorithms: dict[str, SearchAlgo],
        control: str,
        evaluations: Count,
        seeds: Seeds,
        fewer_seeds: dict[str, Seeds],
        resamples: Annotated[int, Field(ge=0, le=1_000_000)],
        confidence: Annotated[float, Field(gt=0, lt=1)],
        truth: Evaluator | None = None,
    ) -> None:
        for key, name in [("control", control), *(("fewer_seeds", name) for name in fewer_seeds)]:
            if name not in algorithms:
                raise UserError(
                    f"compare.{key}: {name} is none of the algorithms, which are "
                    f"{', '.join(algorithms)}"
                )
        if control in fewer_seeds:
            raise UserError(
                f"compare.fewer_seeds.{control}: it is the control, which needs all of the seeds"
            )
        self.algorithms = algorithms
        self.control = control
        self.evaluations = evaluations
        self.resamples = resamples
        self.confidence = confidence
        self.truth = truth
        self.seeds = {name: min(fewer_seeds.get(name, seeds), seeds) for name in algorithms}

    def check(self, space: SearchSpace) -> None:
        """Raises UserError where an algorithm means nothing in ``space``, or without a supernet."""
        for name, algo in self.algorithms.items():
            if algo.learns_gates:
                raise UserError(
                    f"compare.algorithms.{name}: {type(algo).__name__} learns while a supernet "
                    f"trains, and compare trains none; leave it out: ~compare.algorithms.{name}"
                )
            algo.check(space)
