"""DSO-NAS: train the complete network while an L1 penalty removes its edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.budget.latency import Latency
from nasrun.dataset.base import Batch, Split, Splits
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.limits import Epochs, Strength
from nasrun.search_algo.base import BlockHistory
from nasrun.search_algo.dso.apg import ApgNag
from nasrun.search_algo.dso.penalty import Costs, Penalty, latency_costs
from nasrun.search_algo.gates.learned import ArchitectureLearner, LearnedAlgo
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import OperationLevels, has_operation_levels
from nasrun.search_space.dso_block.roles import OUTPUT
from nasrun.search_space.dso_block.wiring import OPERATION_NAMES
from nasrun.search_space.gates import Gates, Weight, is_binary
from nasrun.trainer.gate_learner import Batches, GateContext, Gradients, RunningMeans, Unread
from nasrun.values import Architecture

LearnOn = Literal["held_out", "train"]
Adaptive = Literal["flops", "mac", "latency", "none"]
StepsInTurn = Annotated[int, Field(ge=1, le=1000)]


@dataclass(frozen=True, kw_only=True)
class Dso(LearnedAlgo):
    """DSO-NAS (Zhang et al., arXiv 1811.01567), by its released code.

    pretrain_epochs: epochs of the complete network, before any gate learns.
    ratio: x weight steps, then y steps of the gates, of every x + y steps of the search.
    learn_on: images that the gates learn from: held out, or all images, and the weights as well.
    loss_gradient: whether the loss moves the gates; otherwise the penalty alone does.
    lr, momentum, clip, non_negative: settings of APG-NAG.
    penalty: γ; 0: nothing is removed.
    prune_epochs: epochs between two prunings.
    adaptive: what γ depends on: the size of the block (``flops``, Eq. 9), or the cost of the
    operation (``mac`` or latency, Eq. 10); alternatives, as in the released code.
    mac: the memory access of each operation relative to the largest.
    """

    pretrain_epochs: Epochs
    ratio: tuple[StepsInTurn, StepsInTurn]
    learn_on: LearnOn
    loss_gradient: bool
    lr: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    clip: Strength
    non_negative: bool
    penalty: Strength
    prune_epochs: Annotated[float, Field(gt=0, le=1_000_000)]
    adaptive: Adaptive
    mac: dict[str, PositiveFloat]
    latency: Latency

    def __post_init__(self) -> None:
        if set(self.mac) != {*OPERATION_NAMES, OUTPUT}:
            raise UserError(
                f"search_algo.mac needs a number for each of {', '.join(OPERATION_NAMES)}, output"
            )

    def check(self, space: SearchSpace) -> None:
        if not space.binary or "mix" not in space.gate_kinds:
            raise MissingCapabilityError(
                f"search_algo=dso removes what may be off or on, and {space.name} has no such "
                "decisions",
                group="search_space",
                has=is_binary,
            )
        if self.adaptive != "none" and not isinstance(space, OperationLevels):
            raise MissingCapabilityError(
                f"search_algo: {space.name} has no levels of operations whose costs could be "
                "weighed: set adaptive=none, or",
                group="search_space",
                has=has_operation_levels,
            )

    def training_images(self, splits: Splits) -> Split:
        return splits.train if self.learn_on == "held_out" else splits.train_and_validation()

    def make_learner(self, context: GateContext, candidates: Candidates) -> SparseGates:
        return SparseGates(self, context)

    def make_penalty(self, context: GateContext) -> Penalty | None:
        """Make the penalty by costs; None if the space has no costs of operations."""
        space, device = context.space, context.compute.device
        if not isinstance(space, OperationLevels):
            return None
        costs: list[Costs] | None = None
        if self.adaptive == "mac":
            costs = [self.mac] * len(space.sections)
        elif self.adaptive == "latency":
            costs = latency_costs(
                space, context.problem, lambda layer: self.latency.time(layer, context.compute)
            )
        by_flops = self.adaptive == "flops"
        return Penalty(space, self.penalty, device, by_flops=by_flops, costs=costs)


class SparseGates(ArchitectureLearner):
    """Learns a value λ for every on-off decision by APG-NAG; a decision with λ = 0 stays closed.

    Steps and epochs are those of the weights. The gates' own steps come in between, after the
    weights' steps that ``ratio`` names, each with a batch of its own and at fixed weights.

    history: for each pruning the step and the multiply-adds of each block after it.
    """

    def __init__(self, algo: Dso, context: GateContext) -> None:
        self.algo, self.context, self.space = algo, context, context.space
        count = len(self.space.decisions)
        self.apg = ApgNag(
            count,
            context.compute.device,
            rate=algo.lr,
            momentum=algo.momentum,
            clip=algo.clip,
            non_negative=algo.non_negative,
        )
        self.first = round(algo.pretrain_epochs * context.steps_per_epoch)
        if self.first + algo.ratio[0] > context.steps:
            raise UserError(
                f"search_algo.pretrain_epochs={algo.pretrain_epochs:g} leaves nothing of "
                "trainer.epochs to search in, which counts both: the gates learn after "
                f"{algo.ratio[0]} steps of the weights; raise trainer.epochs"
            )
        self.prune_every = max(round(algo.prune_epochs * context.steps_per_epoch), 1)
        split = context.held_out if algo.learn_on == "held_out" else context.train
        self.batches = Batches(split, context.batch_size, context.streams)
        self.penalty = algo.make_penalty(context)
        self.history: list[tuple[int, list[int]]] = []
        self._training: Gradients | None = None
        self.measured = RunningMeans()
        self._open([1] * count)
        self._record(self.first)

    def _open(self, opened: Sequence[int]) -> None:
        self.opened = list(opened)
        self._mask = torch.tensor(self.opened, device=self.apg.values.device)
        architecture = Architecture(self.space.name, tuple(self.opened))
        self.macs = self.space.cost(architecture, self.context.problem).macs

    def _gates(self, values: Tensor) -> Gates:
        weights: Sequence[Weight] = values.unbind()
        return [{1: w} if on else 0 for w, on in zip(weights, self.opened, strict=True)]

    def learn_before(self, step: int, batch: Batch, training: Gradients) -> None:
        searched = step - self.first
        self._training = training
        if searched > 0 and searched % self.prune_every == 0:
            self.prune(step)

    def learn_after(self, step: int) -> None:
        """Take the gates' steps of the ratio, if the weights' steps of it are complete."""
        weight_steps, own_steps = self.algo.ratio
        groups, rest = divmod(step + 1 - self.first, weight_steps)
        if groups < 1 or rest:
            return
        for index in range((groups - 1) * own_steps, groups * own_steps):
            self._learn(index)

    def _learn(self, index: int) -> None:
        """Take one step of the gates, the one after ``index`` others."""
        if not any(self.opened):
            return
        measured: Tensor | None = None
        if self.algo.loss_gradient:
            assert self._training is not None  # learn_before came first  # noqa: S101
            measured = self._training.gradients(
                *self.batches.batch_of_step(index), self._gates(self.apg.values), [self.apg.values]
            )
        else:
            self.apg.values.grad = torch.zeros_like(self.apg.values)
        gradient = self.apg.values.grad
        skip = self.context.compute.on_nonfinite == "skip"
        if skip and gradient is not None and not gradient.isfinite().all():
            self.apg.values.grad = None
            return
        penalty = self.penalty.strengths_of(self.apg.values) if self.penalty else self.algo.penalty
        self.apg.step(penalty, self._mask)
        if measured is not None:
            self.measured.add(measured)

    def gates(self, step: int) -> list[Gates]:
        return [self._gates(self.apg.values.detach())]

    def prune(self, step: int) -> None:
        """Close the edges whose value is exactly 0, and all edges that then lead nowhere."""
        left = tuple((self.apg.values.detach() != 0).int().tolist())
        self._open(self.space.canonical(Architecture(self.space.name, left)).choices)
        self.apg.close(self._mask)
        self._record(step)

    def _record(self, step: int) -> None:
        costs = self.space.block_costs(self.architecture, self.context.problem)
        if self.history and self.history[-1][0] == step:
            self.history.pop()
        self.history.append((step, [cost.macs for cost in costs.values()]))

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.space.name, tuple(self.opened))

    def derive(self) -> Architecture:
        self.prune(self.context.steps)
        return self.architecture

    def gates_to_score(self, architecture: Architecture) -> Gates:
        return self.gates(0)[0]

    def warning(self) -> str | None:
        """Return a warning if no edge is left, else None."""
        if any(self.opened):
            return None
        return "all edges were removed, so blocks are their shortcuts: lower search_algo.penalty"

    def block_history(self) -> BlockHistory | None:
        """Return the multiply-adds of each block at each pruning (DSO-NAS, Fig. 5a)."""
        names = list(self.space.block_costs(self.architecture, self.context.problem))
        if not names:
            return None
        epochs = [step / self.context.steps_per_epoch for step, _ in self.history]
        macs = zip(*(macs for _, macs in self.history), strict=True)
        return BlockHistory(epochs, dict(zip(names, macs, strict=True)))

    def pop_metrics(self) -> Unread:
        found = {
            "edges": float(sum(self.opened)),
            "macs_M": self.macs / 1e6,
            "parameter_free": self.space.free_share(self.architecture),
        }
        means = self.measured.pop_tensors()
        return Unread(means, lambda numbers: {**found, **self.measured.named(numbers)})

    def state_dict(self) -> dict[str, Any]:
        return {
            "apg": self.apg.state_dict(),
            "opened": self.opened,
            "history": [[step, macs] for step, macs in self.history],
            "measured": self.measured.to_tensor(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.apg.load_state_dict(state["apg"])
        opened = Architecture(self.space.name, tuple(map(int, state["opened"])))
        self._open(self.space.check(opened).choices)
        self.history = [(int(step), list(map(int, macs))) for step, macs in state["history"]]
        self.measured.load_tensor(state["measured"], self.apg.values.device)
