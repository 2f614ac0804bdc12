"""The interface of gate learners, which take a step beside every step of the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
    """The operations on a network in training that a learner of gates may use."""

    @property
    def network(self) -> nn.Module:
        """The supernet."""

    def learning_rate(self) -> float:
        """Return the learning rate of the weights in this step."""

    def look_ahead(self) -> list[tuple[Tensor, Tensor]]:
        """Move the weights as their next step would, and drop their gradients.

        Returns each trainable weight with its old value, in the order of the network's parameters;
        the caller must restore the values.
        """

    def gradients(
        self, images: Tensor, labels: Tensor, gates: Gates, inputs: Sequence[Tensor]
    ) -> Tensor:
        """Add the gradients of the mean loss to the ``grad`` of ``inputs`` only.

        images: [B, C, H, W]; labels: [B].
        Returns (loss, accuracy) [2]. Dropout and drop-path are off, skip dropout is on; it is the
        same in all calls of a step.
        """


@dataclass(frozen=True)
class GateContext:
    """The data, the schedule and the random streams for a learner of gates.

    train: the images that the weights learn from.
    held_out: images that the weights do not learn from.
    batch_size: images of a step.
    steps: steps of the weights in the whole training.
    steps_per_epoch: steps of the weights in an epoch.
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
    """Batches of a split by step number, in an order that its streams determine."""

    def __init__(self, split: Split, batch_size: int, streams: Streams) -> None:
        self.split, self.batch_size, self.streams = split, batch_size, streams
        self._next = -1
        self._batches: Iterator[Batch] = iter(())

    def batch_of_step(self, step: int) -> Batch:
        """Return augmented images [B, C, H, W] and labels [B]; always the same for a step."""
        if step != self._next:
            self._batches = self.split.train_batches(
                self.batch_size, streams=self.streams, first_step=step
            )
        self._next = step + 1
        return next(self._batches)


class Unread:
    """Numbers that may still lie on a device, and the metrics that they are once they are read.

    tensors: float32, of any shapes.
    named: returns the metrics by the numbers of each tensor, which then lie on the CPU.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor] = (),
        named: Callable[[Sequence[Tensor]], dict[str, float]] = lambda numbers: {},
    ) -> None:
        self.tensors, self.named = tensors, named

    def read(self) -> dict[str, float]:
        """Return the metrics; waits for the device."""
        return self.named(read_together(self.tensors))


def read_together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of tensors of one device and type on the CPU; waits for the device once."""
    if not tensors:
        return []
    numbers = torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu()
    parts = torch.split(numbers, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


class RunningMeans:
    """Means of (loss, accuracy) [2] over the gates' own steps since the last line of metrics."""

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    def add(self, measured: Tensor) -> None:
        self._steps.append(measured)

    def pop_tensors(self) -> list[Tensor]:
        """Return the means [2] on their device and forget the steps; empty if there was none."""
        steps, self._steps = self._steps, []
        return [torch.stack(steps).mean(0)] if steps else []

    @staticmethod
    def named(means: Sequence[Tensor]) -> dict[str, float]:
        """Return what ``pop_tensors`` gave, read, by the names of its metrics."""
        numbers = means[0].tolist() if means else ()
        return dict(zip(("gates_loss", "gates_accuracy"), numbers, strict=False))

    def to_tensor(self) -> Tensor:
        """Return the measured values [n, 2], for a state."""
        return torch.stack(self._steps) if self._steps else torch.zeros(0, 2)

    def load_tensor(self, steps: Tensor, device: torch.device) -> None:
        """Replace the measured values by those of a state, [n, 2]."""
        self._steps = list(steps.to(device))


class GateLearner(ABC):
    """Sets the gates of every step of supernet training, and learns them.

    It is ready to use when constructed. The state of its search contains its state.
    """

    @abstractmethod
    def learn_before(self, step: int, batch: Batch, training: Gradients) -> None:
        """Take the gates' own step, before the weights learn from ``batch`` in ``step``."""

    @abstractmethod
    def gates(self, step: int) -> list[Gates]:
        """Return the gates of the weights' step; each has a forward and a backward pass."""

    @abstractmethod
    def state_dict(self) -> State:
        """Return all that a resumed run needs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""

    def see_gradients(self) -> None:  # noqa: B027 - few look
        """Look at the gradients of the weights' step, before the weights change."""

    def learn_after(self, step: int) -> None:  # noqa: B027 - most learn before
        """Learn after the weights' step; gates that require gradients have them now."""

    @property
    def ended(self) -> int | None:
        """The epochs after which the training of the weights ends early; None: it goes on."""
        return None

    def drop_gradients(self) -> None:  # noqa: B027 - most gates have none in the weights' step
        """Drop the gradients of the weights' step, since it is repeated or skipped."""

    def pop_metrics(self) -> Unread:
        """Return the means measured since the last call, for a line of metrics, and forget them.

        They are read together with those of the weights.
        """
        return Unread()

    def warning(self) -> str | None:
        """Return a warning if the learned gates are still undecided, else None."""
        return None
