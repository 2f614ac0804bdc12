"""Learning of controllers from rewards: what all ways share, and REINFORCE as ENAS has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.limits import Strength
from nasrun.run.state import load_optimiser_state, optimiser_state
from nasrun.search_algo.enas.controller import Controller, Positive, Sample

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class ReinforceSettings:
    """Settings of the controller's steps; units and sources stand in the YAML file."""

    steps: Annotated[int, Field(ge=0, le=1_000_000)]
    aggregate: Annotated[int, Field(gt=0, le=10_000)]
    lr: Positive
    beta1: Share
    epsilon: Positive
    baseline_decay: Share
    entropy_weight: Strength


class ControllerLearner:
    """A controller, Adam, and the moving average of rewards that is their baseline.

    baseline: None before the first reward.
    """

    def __init__(self, controller: Controller, optimiser: torch.optim.Adam) -> None:
        self.controller, self.optimiser = controller, optimiser
        self.baseline: float | None = None

    def step(self, loss: Tensor, settings: str, max_norm: float = 0.0) -> None:
        """Take a step of Adam. max_norm: of the gradient; 0: any.

        Raises UserError if the weights are no longer finite; settings: place of those to blame.
        """
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if max_norm:
            nn.utils.clip_grad_norm_(self.controller.parameters(), max_norm)
        self.optimiser.step()
        if not all(weight.isfinite().all() for weight in self.controller.parameters()):
            raise UserError(
                "the weights of the controller are no longer finite: lower "
                f"search_algo.{settings}.lr or search_algo.{settings}.entropy_weight"
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "controller": dict(self.controller.state_dict()),
            "optimiser": optimiser_state(self.optimiser),
            "baseline": self.baseline,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it does not fit this controller."""
        self.controller.load_state_dict(state["controller"])
        load_optimiser_state(self.optimiser, state["optimiser"])
        self.baseline = None if state["baseline"] is None else float(state["baseline"])
        if self.baseline is not None and not math.isfinite(self.baseline):
            raise ValueError("the baseline is not finite")


class EnasLearning(ControllerLearner):
    """Trains a controller by Williams' gradient estimate.

    The baseline is the exponential moving average of the rewards, entropy included, from 0 on.
    """

    def __init__(self, controller: Controller, settings: ReinforceSettings) -> None:
        betas = settings.beta1, 0.999
        adam = torch.optim.Adam(
            controller.parameters(), lr=settings.lr, betas=betas, eps=settings.epsilon
        )
        super().__init__(controller, adam)
        self.settings = settings

    @staticmethod
    def loss(log_prob: Tensor, advantages: Tensor) -> Tensor:
        """Return a loss whose gradient estimates that of minus the expected reward; inputs: [N]."""
        return -(advantages * log_prob).mean()

    def update(self, sample: Sample, accuracies: Sequence[float]) -> Tensor:
        """Take one step by N architectures and the accuracy of each, in [0, 1].

        Returns the means of reward and baseline, the mean entropy and the loss [4]. A reward
        enters the baseline before the baseline is subtracted from it, as in the released code.
        Raises UserError if the weights are no longer finite.
        """
        settings = self.settings
        baseline = self.baseline or 0.0
        rewards, baselines = [], []
        for accuracy, entropy in zip(accuracies, sample.entropy.tolist(), strict=True):
            reward = accuracy + settings.entropy_weight * entropy
            baseline += (1 - settings.baseline_decay) * (reward - baseline)
            rewards.append(reward)
            baselines.append(baseline)
        self.baseline = baseline
        loss = self.loss(sample.log_prob, torch.tensor(rewards) - torch.tensor(baselines))
        self.step(loss, "reinforce")
        means = (sum(rewards) / len(rewards), sum(baselines) / len(baselines))
        return torch.tensor([*means, sample.entropy.mean().item(), loss.item()])
