"""P-DARTS: deeper and deeper supernets, with fewer and fewer options on every edge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from nasrun.dataset.base import Batch
from nasrun.errors import UserError
from nasrun.limits import Epochs
from nasrun.search_algo.gates.darts import DartsGates
from nasrun.search_algo.gates.learned import LearnedSearch
from nasrun.search_algo.gates.soft_gates import GateAdam
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.darts_cell import DartsCell
from nasrun.search_space.darts_cell.operations import OPERATION_NAMES, SKIP
from nasrun.trainer.gate_learner import GateContext, Gradients
from nasrun.values import Architecture, Problem

DECAY = 0.2
"""By which the dropout of skips falls, exponentially, in an epoch (released code)."""


class StagedSupernet(Supernet):
    """One supernet for each stage; the last one, unless a learner of gates chooses another."""

    def __init__(self, stages: list[Supernet]) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList(stages)
        for one in stages:
            one.noise = self.noise
        self.stage = len(stages) - 1

    def option_modules(self) -> Iterator[tuple[torch.nn.Module, list[tuple[int, int]]]]:
        for one in self.stages:
            yield from one.option_modules()  # type: ignore[operator]

    def forward(self, x: torch.Tensor, gates: Any) -> torch.Tensor:
        supernet = self.stages[self.stage]
        logits: torch.Tensor = supernet(x, gates)
        self.auxiliary_logits = supernet.auxiliary_logits  # type: ignore[assignment]
        return logits


class ProgressiveGates(DartsGates):
    """Stages of equal length; each begins with new logits, for the options that weighed most."""

    def __init__(
        self,
        adam: GateAdam,
        *,
        rest_epochs: float,
        spread: float,
        options: list[int],
        skip_dropout: list[float],
    ) -> None:
        super().__init__(adam, order=1, rest_epochs=rest_epochs, spread=spread, edges=False)
        self.keep, self.skip_dropout = options, skip_dropout

    def start(self, context: GateContext) -> None:
        super().start(context)
        self.stage = 0
        self.steps_of_stage = -(-context.steps // len(self.keep))
        if self.first >= self.steps_of_stage:
            raise UserError(
                f"search_algo.rest_epochs={self.rest_epochs:g} leaves nothing of a stage, which is "
                f"trainer.epochs / {len(self.keep)}, for the gates to learn in"
            )
        self._shrink(self.keep[0])

    def resting(self, step: int) -> bool:
        return step % self.steps_of_stage < self.first

    def before(self, step: int, batch: Batch, training: Gradients) -> None:
        stage, done = divmod(step, self.steps_of_stage)
        if stage > self.stage:
            self.stage = stage
            self._shrink(self.keep[stage])
            generator = self.context.streams.torch("init", stage)
            drawn = torch.randn(self.logits.shape, generator=generator)
            with torch.no_grad():
                self.logits.copy_(self.spread * drawn)
            self.optimiser.state.clear()
        network = training.network
        assert isinstance(network, StagedSupernet)  # made by PDarts.supernet  # noqa: S101
        network.stage = stage
        # Source: released code; the rate falls from the epoch in which the gates begin to learn.
        late = max(done - self.first, 0) / self.context.steps_per_epoch
        network.noise.skip_dropout = self.skip_dropout[stage] * math.exp(-DECAY * late)
        super().before(step, batch, training)

    def _shrink(self, count: int) -> None:
        """Close all but the heaviest options of every decision."""
        heaviest = self.weights().detach().cpu().topk(min(count, self.options), 1).indices
        self.opened &= torch.zeros_like(self.opened).scatter_(1, heaviest, True)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "stage": self.stage}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.stage = int(state["stage"])


class PDarts(LearnedSearch):
    """P-DARTS (Chen et al., ICCV 2019, arXiv 1904.12760), on ``darts_cell``.

    cells: of the supernet in each stage; options: of each edge, the heaviest of the stage before;
    skip_dropout: probability that an element of a skip connection is dropped as the stage begins.
    rest_epochs: at first in every stage, in which the weights learn alone. skips: skip connections
    that the normal cell may have in the end. trainer.epochs are those of all stages together.
    """

    learner: ProgressiveGates

    def __init__(
        self,
        *,
        cells: Annotated[list[Annotated[int, Field(ge=3, le=100)]], Field(min_length=1)],
        options: list[PositiveInt],
        skip_dropout: list[Annotated[float, Field(ge=0, lt=1)]],
        adam: GateAdam,
        rest_epochs: Epochs,
        spread: Annotated[float, Field(ge=0, le=10)],
        skips: NonNegativeInt,
    ) -> None:
        super().__init__()
        if not len(cells) == len(options) == len(skip_dropout):
            raise UserError(
                "search_algo: cells, options and skip_dropout have a number for each stage, here "
                f"{len(cells)}, {len(options)} and {len(skip_dropout)}"
            )
        if sorted(options, reverse=True) != options or options[-1] < 2:
            raise UserError(
                f"search_algo.options={options}: must fall from stage to stage, to two at least"
            )
        self.cells, self.skips = cells, skips
        self.learner = ProgressiveGates(
            adam,
            rest_epochs=rest_epochs,
            spread=spread,
            options=options,
            skip_dropout=skip_dropout,
        )

    def check(self, space: SearchSpace) -> None:
        if not isinstance(space, DartsCell):
            raise UserError(
                f"search_algo=p_darts makes cells deeper, and {space.name} is no space of its "
                "kind: take search_space=darts_cell"
            )

    def supernet(self, space: SearchSpace, problem: Problem, *, auxiliary: bool) -> Supernet:
        assert isinstance(space, DartsCell)  # see check  # noqa: S101
        stages = [space.of_cells(count) for count in self.cells]
        return StagedSupernet([one.supernet(problem, auxiliary=auxiliary) for one in stages])

    def derive(self) -> Architecture:
        """The heaviest genotype whose normal cell has no more than ``skips`` skip connections."""
        weights = self.learner.weights().detach().cpu().tolist()
        half = len(weights) // 2
        while True:
            found = self.space.strongest(weights)
            skips = [edge for edge in range(half) if found.choices[edge] == SKIP]
            if len(skips) <= self.skips or len(OPERATION_NAMES) < 3:
                return found
            lightest = min(skips, key=lambda edge: weights[edge][SKIP])
            weights[lightest][SKIP] = -1.0
