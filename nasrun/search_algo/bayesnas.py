"""BayesNAS: automatic relevance determination says which edges and operations remain.

Source: Zhou et al., ICML 2019, arXiv 1905.04722, and its released code (BayesNAS/BayesNAS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Batch
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.limits import Epochs, Strength
from nasrun.search_algo.dso.apg import ApgNag
from nasrun.search_algo.gates.learned import ArchitectureLearner, LearnedAlgo
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import Gates, has_mixtures
from nasrun.trainer.gate_learner import Batches, GateContext, Gradients, Unread
from nasrun.values import Architecture

NOTHING = ("none", "zero")
"""Names of options that add nothing; they have no switch."""

PROBE_LENGTH = 0.01
"""Length by which switches, which begin at 1, are moved for finite differences of gradients."""

SMALLEST_WEIGHT = 1e-6
"""Lower bound of ω, so that a switch without any curvature has a finite relevance."""


@dataclass(frozen=True, kw_only=True)
class BayesNas(LearnedAlgo):
    """BayesNAS, by its released code, on mixtures and on what is off or on.

    rest_epochs: epochs of the complete network, before any switch learns.
    lr, momentum: of the switches.
    edge_strength, option_strength: λ of the switches of edges, and of the options on them. In
    spaces of on-off decisions each decision is an edge.
    update_epochs: epochs between two updates of ω and γ.
    probes: held-out batches by which the curvature is estimated.
    threshold: γ below which a switch is not relevant.
    """

    rest_epochs: Epochs
    lr: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    edge_strength: PositiveFloat
    option_strength: PositiveFloat
    update_epochs: Annotated[float, Field(gt=0, le=1_000_000)]
    probes: Annotated[int, Field(gt=0, le=10_000)]
    threshold: Strength

    def check(self, space: SearchSpace) -> None:
        if "mix" not in space.gate_kinds:
            raise MissingCapabilityError(
                f"search_algo=bayesnas learns how much of each option flows, and {space.name} "
                "opens one option of a decision at a time",
                group="search_space",
                has=has_mixtures,
            )

    def make_learner(self, context: GateContext, candidates: Candidates) -> RelevanceGates:
        return RelevanceGates(self, context)


def reweighted(
    values: Tensor, gamma: Tensor, curvature: Tensor, strength: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ω and γ after an update, from switches s, γ, curvatures H >= 0 and λ; all are [n].

    With the posterior variance C = 1 / (1 / γ + H / λ)::

        ω = sqrt(1 / γ - C / γ²) = sqrt((H / λ) / (1 + γ H / λ));   γ = |s| / ω

    The loss then has the penalty λ Σ ω |s|. On a loss H (s - a)² / 2 minimising it in turn with
    this update ends at γ = max(a² - λ / H, 0), the maximum of the evidence.
    """
    precision = curvature / strength
    omega = (precision / (1 + gamma * precision)).sqrt().clamp(min=SMALLEST_WEIGHT)
    return omega, values.abs() / omega


class RelevanceGates(ArchitectureLearner):
    """Learns a switch s for each edge and each option on it; the gate is their product.

    Switches learn in the weights' own steps, on the same images, by a proximal gradient for the
    penalty λ ω |s| (APG-NAG); then ω and the relevances γ are computed anew. An option is no more
    relevant than its edge: 1 / γ = 1 / γ_option + 1 / γ_edge.

    options: (decision, option) of each switch of an option. opened: whether each has a weight that
    was not 0 at the last update. edge_of: its edge, by index; the switches
    of the edges come first. Where all decisions are off or on there are no edges beside them.
    """

    def __init__(self, algo: BayesNas, context: GateContext) -> None:
        self.algo, self.context, self.space = algo, context, context.space
        device = context.compute.device
        decisions = self.space.decisions
        self.options = [
            (place, option)
            for place, decision in enumerate(decisions)
            for option, name in enumerate(decision.options)
            if (option == 1 if self.space.binary else name not in NOTHING)
        ]
        self.edges = 0 if self.space.binary else len(decisions)
        self.edge_of = torch.tensor([place for place, _ in self.options], device=device)
        strengths = [algo.edge_strength] * self.edges
        strengths += [algo.edge_strength if self.space.binary else algo.option_strength] * len(
            self.options
        )
        self.strength = torch.tensor(strengths, device=device)
        self.apg = ApgNag(
            len(strengths), device, rate=algo.lr, momentum=algo.momentum, clip=0, non_negative=False
        )
        self.omega = torch.ones(len(strengths), device=device)
        self.gamma = torch.ones(len(strengths), device=device)
        self.opened = [True] * len(self.options)
        self.first = round(algo.rest_epochs * context.steps_per_epoch)
        self.every = max(round(algo.update_epochs * context.steps_per_epoch), 1)
        if self.first + self.every > context.steps:
            raise UserError(
                f"search_algo.rest_epochs={algo.rest_epochs:g} and update_epochs="
                f"{algo.update_epochs:g} are more than trainer.epochs, which counts both, so that "
                "no relevance would be computed: raise trainer.epochs"
            )
        self.batches = Batches(context.held_out, context.batch_size, context.streams)
        self._training: Gradients | None = None
        self._weights: Tensor | None = None
        self._leaf: Tensor | None = None

    def weights_by(self, switches: Tensor) -> Tensor:
        """Return the weights of the options [options] from all switches [n]."""
        own = switches[self.edges :]
        return own * switches[self.edge_of] if self.edges else own

    def gates_by(self, weights: Tensor) -> Gates:
        """Return the gates from the weights [options]; options that were closed stay so."""
        found: list[dict[int, Tensor | float]] = [{} for _ in self.space.decisions]
        for (place, option), weight, on in zip(
            self.options, weights.unbind(), self.opened, strict=True
        ):
            if on:
                found[place][option] = weight
        return [gate or self._nothing(place) for place, gate in enumerate(found)]

    def _nothing(self, place: int) -> Any:
        """Return the gate of a decision whose options are all closed."""
        return 0 if self.space.binary else {0: 0.0}

    def is_resting(self, step: int) -> bool:
        """Tell whether only the weights learn in that step."""
        return step < self.first

    def learn_before(self, step: int, batch: Batch, training: Gradients) -> None:
        self._training = training

    def gates(self, step: int) -> list[Gates]:
        if self.is_resting(step):
            return [self.gates_by(self.weights_by(self.apg.values.detach()))]
        self._weights = self.weights_by(self.apg.values)
        self._leaf = self._weights.detach().requires_grad_()
        return [self.gates_by(self._leaf)]

    def learn_after(self, step: int) -> None:
        """Take a step of the switches by the gradient of the weights' step; then update γ."""
        if self._weights is None or self._leaf is None or self._leaf.grad is None:
            return
        gradient = self._leaf.grad
        if not (self.context.compute.on_nonfinite == "skip" and not gradient.isfinite().all()):
            torch.autograd.backward(self._weights, gradient)
            self.apg.step(self.strength * self.omega, self._alive())
        self._weights = self._leaf = None
        if (step + 1 - self.first) % self.every == 0:
            self._update((step + 1 - self.first) // self.every)

    def drop_gradients(self) -> None:
        if self._leaf is not None:
            self._leaf.grad = None

    def _alive(self) -> Tensor:
        """Return 1 for each switch that learns [n]: one that has become 0 stays there."""
        return (self.apg.values.detach() != 0).float()

    @torch.no_grad()
    def _update(self, number: int) -> None:
        """Compute ω and γ anew from the switches and the curvature of the held-out loss."""
        values = self.apg.values
        self.omega, gamma = reweighted(values, self.gamma, self.curvature(number), self.strength)
        if self.edges:
            own, edge = gamma[self.edges :], gamma[self.edge_of]
            gamma[self.edges :] = torch.where(own * edge > 0, own * edge / (own + edge), 0.0)
        self.gamma = gamma
        self._close()

    def _close(self) -> None:
        """Close what has the weight 0; of on-off decisions also what is not relevant.

        And what then leads nowhere. The host waits for the device here alone.
        """
        if self.space.binary:
            left = self.space.canonical(self._relevant())
            self.apg.close(torch.tensor(left.choices, device=self.apg.values.device))
        self.opened = (self.weights_by(self.apg.values.detach()) != 0).tolist()

    def curvature(self, number: int) -> Tensor:
        """Estimate the diagonal of the Hessian of the held-out loss by the switches, [n], >= 0.

        By Hutchinson's estimate: the mean of v · (H v) over random signs v, a batch each, where H v
        is a finite difference of two gradients. It is exact if the Hessian is diagonal.
        """
        total = torch.zeros_like(self.gamma)
        for index in range(self.algo.probes):
            place = (number - 1) * self.algo.probes + index
            generator = self.context.streams.torch("probe", place)
            signs = 2.0 * torch.randint(2, total.shape, generator=generator) - 1
            signs = signs.to(total) * self._alive()
            batch = self.batches.batch_of_step(place)
            ahead, behind = (
                self._gradient(batch, self.apg.values.detach() + side * PROBE_LENGTH * signs)
                for side in (1, -1)
            )
            total += signs * (ahead - behind) / (2 * PROBE_LENGTH)
        return (total / self.algo.probes).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)

    def _gradient(self, batch: Batch, switches: Tensor) -> Tensor:
        """Return the gradient [n] of the loss on a batch by the switches [n], at their values."""
        assert self._training is not None  # learn_before came first  # noqa: S101
        with torch.enable_grad():
            at = switches.requires_grad_()
            weights = self.weights_by(at)
            leaf = weights.detach().requires_grad_()
            self._training.gradients(*batch, self.gates_by(leaf), [leaf])
            if leaf.grad is None:
                return torch.zeros_like(switches)
            torch.autograd.backward(weights, leaf.grad)
        return torch.zeros_like(switches) if at.grad is None else at.grad

    def relevances(self) -> list[list[float]]:
        """Return γ of each option of each decision, 0 where it has no switch or was closed."""
        return self._by_decision(self._own_relevances())

    def _own_relevances(self) -> Tensor:
        """Return γ of each option that has a switch, 0 if it was closed, on the device."""
        weights = self.weights_by(self.apg.values.detach())
        return torch.where(weights != 0, self.gamma[self.edges :], 0.0)

    def _by_decision(self, own: Tensor) -> list[list[float]]:
        found = [[0.0] * len(decision.options) for decision in self.space.decisions]
        for (place, option), gamma in zip(self.options, own.tolist(), strict=True):
            found[place][option] = gamma
        return found

    def _relevant(self) -> Architecture:
        """Return the on-off decisions that are on and whose γ reaches the threshold."""
        on = (row[1] > 0 and row[1] >= self.algo.threshold for row in self.relevances())
        return Architecture(self.space.name, tuple(map(int, on)))

    def derive(self) -> Architecture:
        """Return the relevant decisions, or for each decision the most relevant option.

        An option that adds nothing is taken where no other reaches the threshold.
        """
        if self.space.binary:
            self._close()
            return self.space.canonical(self._relevant())
        rows = self.relevances()
        for row, decision in zip(rows, self.space.decisions, strict=True):
            for option, name in enumerate(decision.options):
                if name in NOTHING:
                    row[option] = self.algo.threshold
        return self.space.strongest(rows)

    def gates_to_score(self, architecture: Architecture) -> Gates:
        if self.space.binary:
            return self.gates_by(self.weights_by(self.apg.values.detach()))
        return architecture.choices

    def warning(self) -> str | None:
        """Return a warning if nothing is relevant, else None."""
        if any(max(row) >= self.algo.threshold for row in self.relevances()):
            return None
        return (
            "no option is relevant: lower search_algo.edge_strength, option_strength or threshold"
        )

    def pop_metrics(self) -> Unread:
        return Unread([self._own_relevances()], self._named)

    def _named(self, numbers: Sequence[Tensor]) -> dict[str, float]:
        rows = self._by_decision(numbers[0])
        relevant = sum(gamma >= self.algo.threshold for row in rows for gamma in row if gamma > 0)
        return {"relevant": float(relevant)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "apg": self.apg.state_dict(),
            "omega": self.omega,
            "gamma": self.gamma,
            "opened": self.opened,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is of another search space."""
        self.apg.load_state_dict(state["apg"])
        for name in ("omega", "gamma"):
            if state[name].shape != self.gamma.shape:
                raise ValueError("the relevances are of another search space")
        if len(state["opened"]) != len(self.options):
            raise ValueError("the opened options are of another search space")
        self.omega, self.gamma = state["omega"].to(self.gamma), state["gamma"].to(self.gamma)
        self.opened = list(map(bool, state["opened"]))
