"""Logits of options: their optimiser, the shares that they stand for, their state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.limits import Strength
from nasrun.run.state import load_optimiser_state, optimiser_state
from nasrun.search_algo.gates.learned import ArchitectureLearner
from nasrun.search_algo.gates.relaxation import Relaxation, Softmax
from nasrun.search_space.capabilities import ClosedInMixtures
from nasrun.search_space.gates import Gates
from nasrun.search_space.genotype import NONE
from nasrun.trainer.gate_learner import Batches, GateContext, Gradients, RunningMeans, Unread
from nasrun.values import Architecture

Beta = Annotated[float, Field(ge=0, lt=1)]

UNDECIDED_ENTROPY_SHARE = 0.999
"""Gates count as undecided if their entropy exceeds this share of the largest entropy.

If one of five options weighs a fifth more than the others, the entropy is 0.998 of the largest.
"""


class GateAdam(BaseModel):
    """Adam on the logits.

    beta1, beta2: decay rates of its means.
    weight_decay: L2, in the gradient.
    clip: largest norm of the gradient of all logits together, before the decay; 0: no clipping.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: PositiveFloat
    beta1: Beta
    beta2: Beta
    weight_decay: Strength
    clip: Strength = 0.0


class SoftGates(ArchitectureLearner):
    """Gates by logits [D, K] of D decisions with at most K options.

    Closed options count as minus infinity.

    relaxation: how logits become weights.
    adam: the optimiser of the logits.
    rest_epochs: epochs at the start in which only the weights learn.
    centre, spread: mean and standard deviation of the logits at the start.
    edges: whether each decision also has a weight among the edges of its node
    (``SearchSpace.edges_by_node``), by which the weights of its options are multiplied (PC-DARTS).
    """

    def __init__(
        self,
        context: GateContext,
        adam: GateAdam,
        *,
        rest_epochs: float,
        spread: float,
        centre: float = 0.0,
        edges: bool = False,
        relaxation: Relaxation | None = None,
    ) -> None:
        self.context, self.space = context, context.space
        self.spread, self.edges = spread, edges
        self.relaxation = relaxation or Softmax()
        device = context.compute.device
        counts = [len(decision.options) for decision in self.space.decisions]
        self.options = max(counts)
        generator = context.streams.torch("init")
        noise = torch.randn(len(counts), self.options + 1, generator=generator)
        logits = (spread * noise).to(device)
        self.logits = (logits[:, :-1] + centre).requires_grad_()
        self.edge_logits = logits[:, -1].clone().requires_grad_()
        places = torch.arange(self.options)[None]
        # Kept on the CPU, since it is read in every step, without waiting for a GPU.
        self.opened = places < torch.tensor(counts)[:, None]
        if isinstance(self.space, ClosedInMixtures):
            mixed = [torch.isin(places[0], torch.tensor(one)) for one in self.space.mixed_options]
            self.opened &= torch.stack(mixed)
        if not self.relaxation.competes:
            for row, decision in enumerate(self.space.decisions):
                if NONE in decision.options:
                    self.opened[row, decision.options.index(NONE)] = False
        # On the device once: an index that comes from the host is copied in every step.
        by_node = self.space.edges_by_node if edges else ()
        self.by_node = [torch.tensor(group, device=device) for group in by_node]
        self.learned = [self.logits, self.edge_logits] if edges else [self.logits]
        self.clip = adam.clip
        self.optimiser = torch.optim.Adam(
            self.learned,
            lr=adam.lr,
            betas=(adam.beta1, adam.beta2),
            weight_decay=adam.weight_decay,
        )
        self.first = round(rest_epochs * context.steps_per_epoch)
        self.batches = Batches(context.held_out, context.batch_size, context.streams)
        self.measured = RunningMeans()

    def is_resting(self, step: int) -> bool:
        """Tell whether only the weights learn in that step."""
        return step < self.first

    def mask_closed(self, logits: Tensor) -> Tensor:
        """Return the logits [D, K], minus infinity for closed options."""
        return logits.masked_fill(~self.opened.to(logits.device), -torch.inf)

    def weights(self) -> Tensor:
        """Return the expected weight of every option, [D, K], without noise; closed: 0."""
        return self.with_edges(self.relaxation.shares(self.mask_closed(self.logits)))

    def with_edges(self, shares: Tensor) -> Tensor:
        """Multiply weights [D, K] by those of the edges, if ``edges`` is on."""
        if not self.edges:
            return shares
        among = torch.empty_like(self.edge_logits)
        for index in self.by_node:
            # Source: PC-DARTS, Eq. 4; weights of the edges that end in one node add up to 1.
            among = among.index_put((index,), self.edge_logits[index].softmax(0))
        return shares * among[:, None]

    def gates_by(self, weights: Tensor, opened: Tensor | None = None) -> Gates:
        """Return gates that open all options that are not closed, with the weights [D, K].

        opened: [D, K] on the CPU, whether each option is open; None: as now.
        """
        rows = [row.unbind() for row in weights.unbind()]
        places = (self.opened if opened is None else opened).tolist()
        return [
            {option: row[option] for option, on in enumerate(open_) if on}
            for row, open_ in zip(rows, places, strict=True)
        ]

    def gates(self, step: int) -> list[Gates]:
        return [self.gates_by(self.weights().detach())]

    def learn_before(self, step: int, batch: Batch, training: Gradients) -> None:
        if not self.is_resting(step):
            self.learn(step, batch, training)

    @abstractmethod
    def learn(self, step: int, batch: Batch, training: Gradients) -> None:
        """Take a step of the logits. batch: the images from which the weights learn next."""

    def update(
        self, weights: Tensor, gradient: Tensor | None, measured: Tensor | None = None
    ) -> None:
        """Take a step of Adam by the gradient of the loss with respect to ``weights``.

        weights: [D, K], computed from the logits. measured: (loss, accuracy) [2]. A gradient that
        is not finite is dropped if ``on_nonfinite=skip``.
        """
        if gradient is None:
            return
        if self.context.compute.on_nonfinite == "skip" and not gradient.isfinite().all():
            self.optimiser.zero_grad(set_to_none=True)
            return
        torch.autograd.backward(weights, gradient)
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.learned, self.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if measured is not None:
            self.measured.add(measured)

    def derive(self) -> Architecture:
        return self.derive_from(self.weights().detach().cpu().tolist())

    def derive_from(self, weights: list[list[float]]) -> Architecture:
        """Return the architecture that the weights [D][K] favour."""
        return self.space.strongest(weights)

    def entropy(self) -> float:
        """Return the entropy of the options' shares, mean over decisions, nats; log K: uniform."""
        return self._entropy(self.logits.detach()).item()

    def _entropy(self, logits: Tensor) -> Tensor:
        shares = self.relaxation.probabilities(self.mask_closed(logits))
        entropy: Tensor = torch.special.entr(shares).sum(1).mean()
        return entropy

    def warning(self) -> str | None:
        """Return a warning if the shares are still nearly uniform, as at the start, else None."""
        found, most = self.entropy(), self._entropy(torch.zeros_like(self.logits)).item()
        if found < UNDECIDED_ENTROPY_SHARE * most or most == 0:
            return None
        return (
            f"the gates have hardly learned: their entropy is {found:.4f} of at most {most:.4f} "
            "nats, so what they favour is chance: train for longer (trainer.epochs), or raise "
            "search_algo.adam.lr"
        )

    def pop_metrics(self) -> Unread:
        entropy, weights = self._entropy(self.logits.detach()), self.weights().detach()
        return Unread([entropy, weights, *self.measured.pop_tensors()], self._named)

    def _named(self, numbers: Sequence[Tensor]) -> dict[str, float]:
        entropy, weights, *means = numbers
        return {
            "gates_entropy": entropy.item(),
            "parameter_free": self.space.free_share(self.derive_from(weights.tolist())),
            **self.measured.named(means),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "logits": self.logits.detach(),
            "edge_logits": self.edge_logits.detach(),
            "opened": self.opened,
            "optimiser": optimiser_state(self.optimiser),
            "measured": self.measured.to_tensor(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is of another search space."""
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
        self.measured.load_tensor(state["measured"], self.logits.device)
