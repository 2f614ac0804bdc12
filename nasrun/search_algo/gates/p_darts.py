"""P-DARTS and DrNAS: stages of deeper or wider supernets, with fewer options on every edge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Batch
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.search_algo.gates.mixed_gates import MixedGates
from nasrun.search_algo.gates.regulariser import skip_dropout_rate
from nasrun.search_algo.gates.settings import GateSettings
from nasrun.search_algo.gates.widening import widen
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.capabilities import DeeperCells, has_deeper_cells
from nasrun.trainer.gate_learner import GateContext, Gradients
from nasrun.values import Architecture, Problem


class StagedSupernet(Supernet):
    """One supernet per stage; the last is active, unless a learner of gates chooses another."""

    def __init__(self, stages: list[Supernet]) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList(stages)
        for supernet in stages:
            supernet.noise = self.noise
        self.stage = len(stages) - 1

    def option_modules(self) -> Iterator[tuple[torch.nn.Module, list[tuple[int, int]]]]:
        for supernet in self.stages:
            yield from supernet.option_modules()  # type: ignore[operator]

    def forward(self, x: torch.Tensor, gates: Any) -> torch.Tensor:
        supernet = self.stages[self.stage]
        logits: torch.Tensor = supernet(x, gates)
        self.auxiliary_logits = supernet.auxiliary_logits  # type: ignore[assignment]
        return logits


class ProgressiveGates(MixedGates):
    """Learns in stages of equal length, each with the heaviest options of the one before.

    A stage begins with new weights and logits, or goes on with those of the stage before
    (``carry``).
    """

    def __init__(
        self, algo: PDarts, context: GateContext, candidates: Candidates, space: DeeperCells
    ) -> None:
        super().__init__(algo, context, **algo.costs(candidates))
        self.staged, self.skips = algo, space.normal_skips
        self.stage = 0
        self.steps_of_stage = -(-context.steps // len(algo.options))
        if self.first >= self.steps_of_stage:
            raise UserError(
                f"search_algo.rest_epochs={algo.rest_epochs:g} leaves nothing of a stage, which is "
                f"trainer.epochs / {len(algo.options)}, for the gates to learn in"
            )
        self._close_lightest(algo.options[0])

    def is_resting(self, step: int) -> bool:
        rests = self.stopped is not None or not self.ready
        return rests or step % self.steps_of_stage < self.first

    def learn_before(self, step: int, batch: Batch, training: Gradients) -> None:
        stage, done = divmod(step, self.steps_of_stage)
        network = training.network
        assert isinstance(network, StagedSupernet)  # made by PDarts.supernet  # noqa: S101
        if stage > self.stage:
            self.stage = stage
            self._close_lightest(self.staged.options[stage])
            generator = self.context.streams.torch("init", stage)
            if self.staged.carry:
                narrow, wide = network.stages[stage - 1], network.stages[stage]
                widen(narrow, wide, generator)  # type: ignore[arg-type]
            else:
                noise = torch.randn(self.logits.shape, generator=generator)
                with torch.no_grad():
                    self.logits.copy_(self.spread * noise)
                self.optimiser.state.clear()
        network.stage = stage
        network.noise.skip_dropout = self.skip_dropout(stage, done)
        super().learn_before(step, batch, training)

    def skip_dropout(self, stage: int, done: int) -> float:
        """Return the rate of skip dropout after ``done`` steps of a stage."""
        return skip_dropout_rate(
            self.staged.skip_dropout[stage],
            done,
            resting=self.first,
            steps=self.steps_of_stage,
            steps_per_epoch=self.context.steps_per_epoch,
        )

    def _close_lightest(self, count: int) -> None:
        """Close all but the heaviest options of every decision."""
        heaviest = self.weights().detach().cpu().topk(min(count, self.options), 1).indices
        self.opened &= torch.zeros_like(self.opened).scatter_(1, heaviest, True)

    def derive_from(self, weights: list[list[float]]) -> Architecture:
        """Return the heaviest genotype with at most ``skips`` skips in the normal cell."""
        weights = [list(row) for row in weights]
        while True:
            found = self.space.strongest(weights)
            skips = [edge for edge, option in self.skips.items() if found.choices[edge] == option]
            left = [edge for edge in skips if weights[edge][self.skips[edge]] >= 0]
            if len(skips) <= self.staged.skips or not left:
                return found
            lightest = min(left, key=lambda edge: weights[edge][self.skips[edge]])
            weights[lightest][self.skips[lightest]] = -1.0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "stage": self.stage}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.stage = int(state["stage"])


@dataclass(frozen=True, kw_only=True)
class PDarts(GateSettings):
    """P-DARTS (Chen et al., ICCV 2019, arXiv 1904.12760), on spaces with ``DeeperCells``.

    Also DrNAS' two stages (Chen et al., ICLR 2021, arXiv 2006.10355, §3.3), with ``carry``.

    cells: number of cells of the supernet in each stage.
    partial_channels: K of the supernet in each stage, so that 1/K of the channels go through its
    operations; None: that of the space.
    carry: whether weights and logits of a stage go on in the next, see ``widen``.
    options: number of options of each edge in each stage; the heaviest of the previous stage stay.
    skip_dropout: probability that an element of a skip connection of stride 1 is dropped, in each
    stage; how it falls: ``skip_dropout_rate``.
    rest_epochs: epochs at the start of every stage in which only the weights learn.
    skips: upper bound of the skip connections of the final normal cell.
    Other settings: see ``GateSettings``.

    trainer.epochs counts the epochs of all stages together.
    """

    cells: Annotated[list[Annotated[int, Field(ge=3, le=100)]], Field(min_length=1)]
    options: list[PositiveInt]
    skip_dropout: list[Annotated[float, Field(ge=0, lt=1)]]
    skips: NonNegativeInt
    partial_channels: list[PositiveInt] | None = None
    carry: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        stops = self.stop.rule in ("skips", "eigenvalue")
        if self.relaxation == "binary" or self.selection.rule != "largest" or stops:
            raise UserError(
                "search_algo=p_darts has no place for relaxation=binary, for selection.rule="
                "perturbation, and for stop.rule=skips or eigenvalue, after which a later stage "
                "would learn nothing: leave them out"
            )
        cells, options, skip_dropout = self.cells, self.options, self.skip_dropout
        if not len(cells) == len(options) == len(skip_dropout):
            raise UserError(
                "search_algo: cells, options and skip_dropout have a number for each stage, here "
                f"{len(cells)}, {len(options)} and {len(skip_dropout)}"
            )
        if sorted(options, reverse=True) != options or options[-1] < 2:
            raise UserError(
                f"search_algo.options={options}: must fall from stage to stage, to two at least"
            )

        widths = self.partial_channels or [1] * len(cells)
        if len(widths) != len(cells):
            raise UserError(
                "search_algo.partial_channels has a number for each stage, as cells has, or is "
                f"null; here {len(widths)} and {len(cells)}"
            )
        if self.carry and (len(set(cells)) > 1 or sorted(widths, reverse=True) != widths):
            raise UserError(
                "search_algo.carry=true lets the weights of a stage go on in the next: cells must "
                f"be the same in all stages, here {cells}, and partial_channels must not rise"
            )

    def check(self, space: SearchSpace) -> None:
        self._stages(space)
        super().check(space)

    def _stages(self, space: SearchSpace) -> list[SearchSpace]:
        """Return the space of each stage; raises UserError if there is none."""
        deeper = self._deeper(space)
        if self.partial_channels is None:
            return [deeper.of_cells(count) for count in self.cells]
        widths = zip(self.cells, self.partial_channels, strict=True)
        return [deeper.of_cells(count, partial_channels=width) for count, width in widths]

    def _deeper(self, space: SearchSpace) -> DeeperCells:
        """Return the space; raises UserError if it does not have ``DeeperCells``."""
        if not isinstance(space, DeeperCells):
            raise MissingCapabilityError(
                f"search_algo=p_darts makes cells deeper, and {space.name} is no space of its kind",
                group="search_space",
                has=has_deeper_cells,
            )
        return space

    def supernet(self, space: SearchSpace, problem: Problem, *, auxiliary: bool) -> Supernet:
        return StagedSupernet(
            [stage.supernet(problem, auxiliary=auxiliary) for stage in self._stages(space)]
        )

    def make_learner(self, context: GateContext, candidates: Candidates) -> ProgressiveGates:
        return ProgressiveGates(self, context, candidates, self._deeper(context.space))
