"""DARTS: mixtures of all options, learned by gradient descent on held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Batch
from nasrun.errors import MissingCapabilityError
from nasrun.limits import Epochs
from nasrun.search_algo.gates.learned import LearnedAlgo
from nasrun.search_algo.gates.soft_gates import GateAdam, SoftGates
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import has_edges_by_node
from nasrun.search_space.gates import has_mixtures
from nasrun.trainer.gate_learner import GateContext, Gradients

DIFFERENCE_LENGTH = 0.01
"""Length of the step along the gradient for finite differences of gradients (DARTS, §2.3)."""


def check_mixtures(name: str, space: SearchSpace) -> None:
    """Raise UserError if the space opens one option of a decision at a time."""
    if "mix" not in space.gate_kinds:
        raise MissingCapabilityError(
            f"search_algo={name} learns mixtures, and {space.name} opens one option of a decision "
            "at a time",
            group="search_space",
            has=has_mixtures,
        )


def check_edges(space: SearchSpace) -> None:
    """Raise UserError if no two edges end in one node, so that weights of edges would all be 1."""
    if all(len(edges) == 1 for edges in space.edges_by_node):
        raise MissingCapabilityError(
            "search_algo.edges=true shares a weight among the edges that end in one node, and "
            f"{space.name} has no such nodes: set search_algo.edges=false, or",
            group="search_space",
            has=has_edges_by_node,
        )


class DartsGates(SoftGates):
    """Takes a step of the logits on held-out images before each step of the weights."""

    def __init__(
        self,
        context: GateContext,
        adam: GateAdam,
        *,
        order: int,
        rest_epochs: float,
        spread: float,
        edges: bool,
    ) -> None:
        super().__init__(context, adam, rest_epochs=rest_epochs, spread=spread, edges=edges)
        self.order = order

    def learn(self, step: int, batch: Batch, training: Gradients) -> None:
        weights = self.weights()
        held_out = self.batches.batch_of_step(step)
        if self.order == 1:
            leaf = weights.detach().requires_grad_()
            measured = training.gradients(*held_out, self.gates_by(leaf), [leaf])
            self.update(weights, leaf.grad, measured)
        else:
            gradient, measured = second_order(training, batch, held_out, weights.detach(), self)
            self.update(weights, gradient, measured)


def second_order(
    training: Gradients, batch: Batch, held_out: Batch, weights: Tensor, gates: SoftGates
) -> tuple[Tensor, Tensor]:
    """Compute the gradient of the held-out loss after one more step of the network on ``batch``.

    weights: weights of the gates, [D, K], with respect to which the gradient is taken.
    Returns the gradient [D, K], and (loss, accuracy) [2] on the held-out images.

    The second derivatives come from finite differences of two gradients. Source: DARTS
    (Liu et al. 2019), Eq. 6-8; the step has momentum and weight decay as in its released code.
    """
    parameters = [p for p in training.network.parameters() if p.requires_grad]
    rate = training.learning_rate()

    def by_gates(images_and_labels: Batch) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Return the gate gradients, (loss, accuracy) [2], and the gradients of the parameters."""
        leaf = weights.clone().requires_grad_()
        measured = training.gradients(*images_and_labels, gates.gates_by(leaf), [leaf, *parameters])
        found = [p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        by_leaf = torch.zeros_like(weights) if leaf.grad is None else leaf.grad
        return by_leaf, measured, found

    training.gradients(*batch, gates.gates_by(weights), parameters)
    before = training.look_ahead()
    direct, measured, direction = by_gates(held_out)
    norm = torch.stack([g.square().sum() for g in direction if g is not None]).sum().sqrt()
    length = DIFFERENCE_LENGTH / norm.clamp(min=1e-12)
    sides = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for (parameter, saved), along in zip(before, direction, strict=True):
                parameter.copy_(saved if along is None else saved + sign * length * along)
        sides.append(by_gates(batch)[0])
    with torch.no_grad():
        for parameter, saved in before:
            parameter.copy_(saved)
    return direct - rate * (sides[0] - sides[1]) / (2 * length), measured


@dataclass(frozen=True, kw_only=True)
class Darts(LearnedAlgo):
    """DARTS (Liu et al., ICLR 2019, arXiv 1806.09055).

    order: 1: the gradient at the present weights; 2: after one more step of the weights.
    adam: the optimiser of the logits.
    rest_epochs, spread: see ``SoftGates``.
    edges: whether PC-DARTS' edge normalisation is used.
    """

    order: Literal[1, 2]
    adam: GateAdam
    rest_epochs: Epochs
    spread: Annotated[float, Field(ge=0, le=10)]
    edges: bool

    def check(self, space: SearchSpace) -> None:
        check_mixtures("darts", space)
        if self.edges:
            check_edges(space)

    def make_learner(self, context: GateContext, candidates: Candidates) -> DartsGates:
        return DartsGates(
            context,
            self.adam,
            order=self.order,
            rest_epochs=self.rest_epochs,
            spread=self.spread,
            edges=self.edges,
        )
