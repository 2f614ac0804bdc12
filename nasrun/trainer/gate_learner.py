"""Gates that are learned: a step of their own beside every step of the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nasrun.dataset.base import Batch, Split
from nasrun.run.compute import Compute
from nasrun.run.state import State
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.values import Problem


class Gradients(Protocol):
    """What a training lets a learner of gates do with the network."""

    @property
    def network(self) -> nn.Module:
        """The supernet."""

    def learning_rate(self) -> float:
        """That of the weights in this step."""

    def look_ahead(self) -> list[tuple[Tensor, Tensor]]:
        """Move the weights as their next step would, given their gradients, and forget these.

        Returns each weight that can learn, in the order of the network's parameters, and what it
        was: who calls it moves them back.
        """

    def gradients(
        self, images: Tensor, labels: Tensor, gates: Gates, inputs: Sequence[Tensor]
    ) -> Tensor:
        """Add the gradients of the mean loss to the ``grad`` of ``inputs``, and of nothing else.

        images [B, C, H, W], labels [B]; returns (loss, accuracy) [2]. Dropout and drop-path rest.
        """


@dataclass(frozen=True)
class GateContext:
    """What there is to learn from.

    train, held_out: the images of the weights, and those that no weight has seen; steps: of the
    weights, in the whole training.
    """

    space: SearchSpace
    problem: Problem
    train: Split
    held_out: Split
    batch_size: int
    steps: int
    steps_per_epoch: int
    compute: Compute
    streams: Streams


class Batches:
    """The batch of a step from a split, whichever steps are asked for; an order of its own."""

    def __init__(self, split: Split, batch_size: int, streams: Streams) -> None:
        self.split, self.batch_size, self.streams = split, batch_size, streams
        self._next = -1
        self._batches: Iterator[Batch] = iter(())

    def at(self, step: int) -> Batch:
        """Images [B, C, H, W] and labels [B], augmented; always the same for a step."""
        if step != self._next:
            self._batches = self.split.train_batches(
                self.batch_size, streams=self.streams, first_step=step
            )
        self._next = step + 1
        return next(self._batches)


class RunningMeans:
    """(loss, accuracy) [2] of the gates' own steps, since they were last told."""

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    def add(self, measured: Tensor) -> None:
        self._steps.append(measured)

    def tell(self) -> dict[str, float]:
        """Their means, which are forgotten; nothing where there was no step."""
        steps, self._steps = self._steps, []
        if not steps:
            return {}
        loss, accuracy = torch.stack(steps).mean(0).tolist()
        return {"gates_loss": loss, "gates_accuracy": accuracy}

    def state(self) -> Tensor:
        return torch.stack(self._steps) if self._steps else torch.zeros(0, 2)

    def load(self, state: Tensor, device: torch.device) -> None:
        self._steps = list(state.to(device))


class GateLearner(ABC):
    """Sets the gates of every step, and learns from what comes of it.

    Its state is part of the search algorithm that it belongs to.
    """

    @abstractmethod
    def start(self, context: GateContext) -> None:
        """Called once, before the first step and before a state is loaded."""

    @abstractmethod
    def before(self, step: int, batch: Batch, training: Gradients) -> None:
        """Before the weights learn from ``batch`` in ``step``: the gates' own step."""

    @abstractmethod
    def gates(self, step: int) -> list[Gates]:
        """What the weights' step opens, one forward and backward pass for each."""

    @abstractmethod
    def state_dict(self) -> State:
        """All that a resumed run needs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; called after ``start``."""

    def after(self, step: int) -> None:  # noqa: B027 - most learn before
        """After the weights' step, whose gradients have reached the gates that require any."""

    def forget(self) -> None:  # noqa: B027 - most gates require no gradient in the weights' step
        """The gradients of the weights' step do not count: it is taken again, or skipped."""

    def metrics(self) -> dict[str, float]:
        """What is worth a line of metrics, since the last call."""
        return {}

    def doubt(self) -> str | None:
        """Why the gates as they are now give no answer, as a line for the user; None: they do."""
        return None
