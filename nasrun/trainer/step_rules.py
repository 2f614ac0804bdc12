"""Rules of supernet training that depend on the sizes or options of a step's paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt

from nasrun.errors import UserError
from nasrun.search_space.base import SearchSpace, SizeName
from nasrun.search_space.gates import Gates, path_of
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateLearner
from nasrun.trainer.option_stats import StepWatch
from nasrun.values import Architecture, Problem

GradientRule = Literal["sum", "mean", "by_use"]
"""How the gradients of a step's paths become one (see ``PathRules``)."""


class SizePower(BaseModel):
    """Exponent of a polynomial schedule by the size of the path; small paths decay faster.

    smallest, largest: exponent for the smallest and the largest architecture of the space; linear
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
    gradients: how the gradients of a step's paths become one.
    power: gives the exponent of the polynomial schedule for the paths of a step; None: the
    schedule's own.
    momentum: gives the index of the momentum buffer that an update uses; None: there is only one.
    momenta: number of momentum buffers.
    ghost_batch: images that each path trains, in order (ghost batch norm, Hoffer et al. 2017);
    None: every path trains the whole batch.
    learner: the learner of gates, which takes a step beside each step of the weights.
    watch: an observer of the steps, which changes nothing.
    """

    distillation: bool = False
    gradients: GradientRule = "sum"
    power: Callable[[Sequence[Gates]], float] | None = None
    momentum: Callable[[Sequence[Gates]], int] | None = None
    momenta: int = 1
    ghost_batch: int | None = None
    learner: GateLearner | None = None
    watch: StepWatch | None = None


class PathRules:
    """Settings of the rules; ``bind`` turns them into the rules of a step in a search space.

    gradients: ``sum``: the gradients of a step's paths add up (FairNAS, BigNAS); ``mean``: their
    mean; ``by_use``: the mean over the paths that have used a weight, for each weight. One path a
    step: no difference. A path for each ghost batch: ``sum`` is the mean over all of its images.
    distillation: in-place distillation (Yu and Huang 2019, BigNAS 2020).
    size_power: the complexity-aware learning rate of DYNAS (CVPR 2025), from 4 to 1/4 by
    parameters. separate_momentum: whether each option of one decision has its own momentum; the
    decision is sampled once per run (DYNAS: the operation on one random edge).
    slices: slices of a step's images, each with a path of its own and its own batch norm statistics
    (ghost batches); of as many ranks each trains one of the paths.
    """

    def __init__(
        self,
        *,
        gradients: GradientRule,
        distillation: bool,
        size_power: SizePower | None,
        separate_momentum: bool,
        slices: PositiveInt = 1,
    ) -> None:
        if slices > 1 and separate_momentum:
            raise UserError(
                "path_rules.separate_momentum=true: the paths of several slices would share one "
                "update, which has one momentum; set path_rules.slices=1"
            )
        self.gradients = gradients
        self.distillation = distillation
        self.size_power = size_power
        self.separate_momentum = separate_momentum
        self.slices = slices

    def bind(
        self,
        space: SearchSpace,
        problem: Problem,
        streams: Streams,
        ghost_batch: int | None = None,
    ) -> StepRules:
        """Return the rules of a step in ``space``.

        ghost_batch: images that each path of a step trains; None: every path trains all.
        Raises UserError if distillation is on but every path trains its own images.
        """
        if self.distillation and ghost_batch is not None:
            raise UserError(
                "path_rules.distillation=true: with ghost batches each path sees images of its "
                "own, so none can teach another; set it to false"
            )
        power = None
        if self.size_power is not None:
            power = power_by_size(self.size_power, space, problem, streams)
        rules = StepRules(self.distillation, self.gradients, power, ghost_batch=ghost_batch)
        if not self.separate_momentum:
            return rules
        last = space.decisions[-1].kind  # "op" in spaces whose nodes choose operations and inputs
        among = [i for i, decision in enumerate(space.decisions) if decision.kind == last]
        chosen = among[int(streams.numpy("momentum").integers(len(among)))]
        return replace(
            rules,
            momentum=lambda paths: (path_of(paths[0][chosen : chosen + 1]) or (0,))[0],
            momenta=len(space.decisions[chosen].options),
        )


def power_by_size(
    rule: SizePower, space: SearchSpace, problem: Problem, streams: Streams
) -> Callable[[Sequence[Gates]], float]:
    """Return a function that computes the exponent for the paths of a step.

    It depends on the mean of their log sizes. If several options of a decision are open, the path
    counts as the largest network.
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
