"""Learned mixtures: a logit for every option of every decision, and the weights they give."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.limits import Strength
from nasrun.run.state import load_optimiser_state, optimiser_state
from nasrun.search_space.gates import Gates
from nasrun.trainer.gate_learner import Batches, GateContext, GateLearner, Gradients, RunningMeans
from nasrun.values import Architecture

Beta = Annotated[float, Field(ge=0, lt=1)]


UNDECIDED = 0.999
"""Share of the largest entropy from which on gates say nothing: of five options of which one weighs
a fifth more than the others the entropy is 0.998 of it."""


class GateAdam(BaseModel):
    """Adam on the logits. beta1, beta2: of its means; weight_decay: L2, in the gradient."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: PositiveFloat
    beta1: Beta
    beta2: Beta
    weight_decay: Strength


class SoftGates(GateLearner):
    """logits [D, K] of D decisions with at most K options; closed options count as minus infinity.

    rest_epochs: at first, in which the weights learn alone. spread: standard deviation of the
    logits at the start. edges: whether each decision also has a weight among those of its group
    (``SearchSpace.groups``), which multiplies those of its options (PC-DARTS).
    """

    def __init__(
        self, adam: GateAdam, *, rest_epochs: float, spread: float, edges: bool = False
    ) -> None:
        self.adam, self.rest_epochs, self.spread, self.edges = adam, rest_epochs, spread, edges

    def start(self, context: GateContext) -> None:
        self.context, self.space = context, context.space
        device = context.compute.device
        counts = [len(decision.options) for decision in self.space.decisions]
        self.options = max(counts)
        generator = context.streams.torch("init")
        drawn = torch.randn(len(counts), self.options + 1, generator=generator)
        logits = (self.spread * drawn).to(device)
        self.logits = logits[:, :-1].clone().requires_grad_()
        self.edge_logits = logits[:, -1].clone().requires_grad_()
        places = torch.arange(self.options)[None]
        # On the CPU, where it is read in every step without waiting for a GPU.
        self.opened = places < torch.tensor(counts)[:, None]
        learned = [self.logits, self.edge_logits] if self.edges else [self.logits]
        self.optimiser = torch.optim.Adam(
            learned,
            lr=self.adam.lr,
            betas=(self.adam.beta1, self.adam.beta2),
            weight_decay=self.adam.weight_decay,
        )
        self.first = round(self.rest_epochs * context.steps_per_epoch)
        self.batches = Batches(context.held_out, context.batch_size, context.streams)
        self.measured = RunningMeans()

    def resting(self, step: int) -> bool:
        """Whether the weights learn alone in that step."""
        return step < self.first

    def closed_out(self, logits: Tensor) -> Tensor:
        """The logits [D, K], minus infinity where an option is closed."""
        return logits.masked_fill(~self.opened.to(logits.device), -torch.inf)

    def weights(self) -> Tensor:
        """The share of every option of every decision, [D, K]; 0 of closed ones."""
        shares = self.closed_out(self.logits).softmax(1)
        if not self.edges:
            return shares
        among = torch.empty_like(self.edge_logits)
        for group in self.space.groups:
            index = list(group)
            # Source: PC-DARTS, Eq. 4; weights of the edges that end in one node add up to 1.
            among = among.index_put(
                (torch.tensor(index, device=among.device),), self.edge_logits[index].softmax(0)
            )
        return shares * among[:, None]

    def gates_by(self, weights: Tensor) -> Gates:
        """weights [D, K]: gates that open every option that is not closed, times its weight."""
        rows = [row.unbind() for row in weights.unbind()]
        return [
            {option: row[option] for option, on in enumerate(opened) if on}
            for row, opened in zip(rows, self.opened.tolist(), strict=True)
        ]

    def gates(self, step: int) -> list[Gates]:
        return [self.gates_by(self.weights().detach())]

    def before(self, step: int, batch: Batch, training: Gradients) -> None:
        if not self.resting(step):
            self.learn(step, batch, training)

    @abstractmethod
    def learn(self, step: int, batch: Batch, training: Gradients) -> None:
        """The logits' own step; batch: what the weights learn from next."""

    def update(
        self, weights: Tensor, gradient: Tensor | None, measured: Tensor | None = None
    ) -> None:
        """A step of Adam, given the gradient of the loss by ``weights``, which follow from the
        logits; measured: (loss, accuracy) [2]. Nothing where the gradient is not finite and such
        steps are skipped."""
        if gradient is None:
            return
        if self.context.compute.on_nonfinite == "skip" and not gradient.isfinite().all():
            self.optimiser.zero_grad(set_to_none=True)
            return
        torch.autograd.backward(weights, gradient)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if measured is not None:
            self.measured.add(measured)

    def derive(self) -> Architecture:
        """The architecture that the weights favour."""
        return self.space.strongest(self.weights().detach().cpu().tolist())

    def entropy(self) -> float:
        """Of the options' shares, the mean over the decisions, nats; log K: all alike."""
        return self._entropy(self.logits.detach())

    def _entropy(self, logits: Tensor) -> float:
        shares = self.closed_out(logits).softmax(1)
        return float(torch.special.entr(shares).sum(1).mean())

    def doubt(self) -> str | None:
        """Where the shares are still all alike, as they were at the start."""
        found, most = self.entropy(), self._entropy(torch.zeros_like(self.logits))
        if found < UNDECIDED * most or most == 0:
            return None
        return (
            f"the gates have hardly learned: their entropy is {found:.4f} of at most {most:.4f} "
            "nats, so what they favour is chance: train for longer (trainer.epochs), or raise "
            "search_algo.adam.lr"
        )

    def metrics(self) -> dict[str, float]:
        found = {
            "gates_entropy": self.entropy(),
            "parameter_free": self.space.free_share(self.derive()),
        }
        return {**found, **self.measured.tell()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "logits": self.logits.detach(),
            "edge_logits": self.edge_logits.detach(),
            "opened": self.opened,
            "optimiser": optimiser_state(self.optimiser),
            "measured": self.measured.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where the state is of another search space."""
        with torch.no_grad():
            for own, name in (
                (self.logits, "logits"),
                (self.edge_logits, "edge_logits"),
                (self.opened, "opened"),
            ):
                if own.shape != state[name].shape:
                    raise ValueError("the gates are of another search space")
                own.copy_(state[name])
        load_optimiser_state(self.optimiser, state["optimiser"])
        self.measured.load(state["measured"], self.logits.device)
