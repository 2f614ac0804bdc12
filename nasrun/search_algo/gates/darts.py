"""DARTS: mixtures of all options, learned by gradient descent on held-out images."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.errors import MissingCapabilityError
from nasrun.limits import Epochs
from nasrun.search_algo.gates.learned import LearnedSearch
from nasrun.search_algo.gates.soft_gates import GateAdam, SoftGates
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import has_mixtures
from nasrun.trainer.gate_learner import Gradients
from nasrun.values import Architecture

FAR = 0.01
"""The length of the step along the gradient by which second derivatives are told (DARTS, §2.3)."""


def check_mixtures(name: str, space: SearchSpace) -> None:
    """Raises UserError where the space opens one option of a decision at a time."""
    if "mix" not in space.gate_kinds:
        raise MissingCapabilityError(
            f"search_algo={name} learns mixtures, and {space.name} opens one option of a decision "
            "at a time",
            group="search_space",
            has=has_mixtures,
        )


class DartsGates(SoftGates):
    """One step of the logits on held-out images before each of the weights."""

    def __init__(
        self, adam: GateAdam, *, order: int, rest_epochs: float, spread: float, edges: bool
    ) -> None:
        super().__init__(adam, rest_epochs=rest_epochs, spread=spread, edges=edges)
        self.order = order

    def learn(self, step: int, batch: Batch, training: Gradients) -> None:
        weights = self.weights()
        held_out = self.batches.at(step)
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
    """The gradient [D, K] of the held-out loss after a step of the network on ``batch``, by the
    gates' ``weights``; and (loss, accuracy) [2] on the held-out images.

    The second derivatives come from two gradients a little way to either side. Source: DARTS
    (Liu et al. 2019), Eq. 6-8; the step has momentum and weight decay as in its released code.
    """
    parameters = [p for p in training.network.parameters() if p.requires_grad]
    rate = training.learning_rate()

    def by_gates(images_and_labels: Batch) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Of the loss: its gradients by the gates and, beside them, by the parameters."""
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
    far = FAR / norm.clamp(min=1e-12)
    sides = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for (parameter, saved), along in zip(before, direction, strict=True):
                parameter.copy_(saved if along is None else saved + sign * far * along)
        sides.append(by_gates(batch)[0])
    with torch.no_grad():
        for parameter, saved in before:
            parameter.copy_(saved)
    return direct - rate * (sides[0] - sides[1]) / (2 * far), measured


class Darts(LearnedSearch):
    """DARTS (Liu et al., ICLR 2019, arXiv 1806.09055); with ``edges`` PC-DARTS' edge normalisation.

    order: 1: the weights count as if they were the best already; 2: after one more step of theirs.
    adam: of the logits. rest_epochs, spread, edges: see ``SoftGates``.
    """

    learner: DartsGates

    def __init__(
        self,
        *,
        order: Literal[1, 2],
        adam: GateAdam,
        rest_epochs: Epochs,
        spread: Annotated[float, Field(ge=0, le=10)],
        edges: bool,
    ) -> None:
        super().__init__()
        self.learner = DartsGates(
            adam, order=order, rest_epochs=rest_epochs, spread=spread, edges=edges
        )

    def check(self, space: SearchSpace) -> None:
        check_mixtures("darts", space)

    def derive(self) -> Architecture:
        return self.learner.derive()
