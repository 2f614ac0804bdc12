"""Rules of supernet training that depend on the paths of a step: their sizes or options."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

from nasrun.errors import UserError
from nasrun.search_space.base import SearchSpace, SizeName
from nasrun.search_space.gates import Gates, path_of
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateLearner
from nasrun.trainer.option_stats import StepWatch
from nasrun.values import Architecture, Problem


class SizePower(BaseModel):
    """The power of a polynomial schedule by the size of the path; small paths decay faster.

    smallest, largest: the power for the smallest and the largest architecture of the space; linear
    in log(size) between them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: SizeName
    smallest: NonNegativeFloat
    largest: NonNegativeFloat


@dataclass(frozen=True)
class StepRules:
    """The rules that a training step follows for its paths.

    distillation: the first path learns the labels, the others its soft outputs (Sandwich).
    power: of the polynomial schedule, by the paths of the step; None: the schedule's own.
    momentum: which of ``momenta`` buffers an update uses; None: there is one.
    ghost_batch: images that each path trains, the first ones the first path and so on (ghost batch
    norm, Hoffer et al. 2017); None: every path trains the whole batch.
    learner: of the gates, which takes a step of its own beside that of the weights.
    watch: is told of every step and changes nothing.
    """

    distillation: bool = False
    power: Callable[[Sequence[Gates]], float] | None = None
    momentum: Callable[[Sequence[Gates]], int] | None = None
    momenta: int = 1
    ghost_batch: int | None = None
    learner: GateLearner | None = None
    watch: StepWatch | None = None


class PathRules:
    """The configured rules; ``bind`` turns them into those of a step in one search space.

    distillation: in-place distillation (Yu and Huang 2019, BigNAS 2020).
    size_power: the complexity-aware learning rate of DYNAS (CVPR 2025), from 4 to 1/4 by
    parameters. separate_momentum: a momentum for each option of one decision, which is sampled
    once for the run (DYNAS: the operation on one random edge).
    """

    def __init__(
        self, *, distillation: bool, size_power: SizePower | None, separate_momentum: bool
    ) -> None:
        self.distillation = distillation
        self.size_power = size_power
        self.separate_momentum = separate_momentum

    def bind(
        self,
        space: SearchSpace,
        problem: Problem,
        streams: Streams,
        ghost_batch: int | None = None,
    ) -> StepRules:
        """Return the rules of a step in ``space``.

        ghost_batch: images that each path of a step trains; None: every path trains all.
        Raises UserError if distillation has no two paths that see the same images.
        """
        if self.distillation and ghost_batch is not None:
            raise UserError(
                "path_rules.distillation=true: with ghost batches each path sees images of its "
                "own, so none can teach another; set it to false"
            )
        power = None
        if self.size_power is not None:
            power = power_by_size(self.size_power, space, problem, streams)
        if not self.separate_momentum:
            return StepRules(self.distillation, power, ghost_batch=ghost_batch)
        last = space.decisions[-1].kind  # "op", where edges have operations and inputs
        among = [i for i, decision in enumerate(space.decisions) if decision.kind == last]
        chosen = among[int(streams.numpy("momentum").integers(len(among)))]
        return StepRules(
            self.distillation,
            power,
            lambda paths: (path_of(paths[0][chosen : chosen + 1]) or (0,))[0],
            len(space.decisions[chosen].options),
            ghost_batch,
        )


def power_by_size(
    rule: SizePower, space: SearchSpace, problem: Problem, streams: Streams
) -> Callable[[Sequence[Gates]], float]:
    """Return a function that gives the power for the paths of a step.

    It goes by the mean of their log sizes. Where several options of a decision are open, the
    network counts as the largest.
    """
    size = space.sizer(rule.size, problem)

    def log_size(architecture: Architecture) -> float:
        return math.log(max(size(architecture), 1))

    low, high = map(log_size, space.extremes(size, streams))

    def power(paths: Sequence[Gates]) -> float:
        sizes = [
            high if (path := path_of(gates)) is None else log_size(Architecture(space.name, path))
            for gates in paths
        ]
        share = (sum(sizes) / len(sizes) - low) / (high - low) if high > low else 1.0
        return rule.smallest + min(max(share, 0.0), 1.0) * (rule.largest - rule.smallest)

    return power
