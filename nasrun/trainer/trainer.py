"""The one training loop, for supernets and stand-alone networks alike."""

from __future__ import annotations

import math
from typing import Annotated, Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from nasrun.dataset.base import Split
from nasrun.errors import UserError
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import Gates, GatesOfStep, Network
from nasrun.streams import Streams
from nasrun.trainer.schedule import Schedule

NetworkT = TypeVar("NetworkT", bound=Network)

Keep = Annotated[float, Field(gt=0, le=1)]
"""A probability of keeping; 1 switches the noise off."""


class Trainer:
    """How a network is trained; units and sources of the arguments stand in ``conf/trainer``."""

    def __init__(
        self,
        *,
        epochs: PositiveInt,
        batch_size: Annotated[int, Field(ge=2)],
        schedule: Schedule,
        momentum: Annotated[float, Field(ge=0, lt=1)],
        nesterov: bool,
        weight_decay: NonNegativeFloat,
        decay_norm_and_bias: bool,
        clip: NonNegativeFloat,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)],
        dropout_keep: Keep,
        drop_path_keep: Keep,
        auxiliary_weight: NonNegativeFloat,
        cutout: NonNegativeInt,
        log_every: PositiveInt,
    ) -> None:
        if nesterov and momentum == 0:
            raise UserError("nesterov=true needs a momentum above 0")
        self.epochs = epochs
        self.batch_size = batch_size
        self.schedule = schedule
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.decay_norm_and_bias = decay_norm_and_bias
        self.clip = clip
        self.label_smoothing = label_smoothing
        self.dropout_keep = dropout_keep
        self.drop_path_keep = drop_path_keep
        self.auxiliary_weight = auxiliary_weight
        self.cutout = cutout
        self.log_every = log_every

    @property
    def auxiliary(self) -> bool:
        """Whether the network needs its auxiliary head."""
        return self.auxiliary_weight > 0

    def start(
        self,
        network: NetworkT,
        split: Split,
        compute: Compute,
        streams: Streams,
        *,
        rounds: int = 1,
        first_step: int = 0,
    ) -> Training[NetworkT]:
        """Begin to train ``network``, in ``rounds`` rounds of ``epochs`` epochs each.

        first_step: number of the first step, for a network that starts afresh in a later round.
        """
        return Training(self, network, split, compute, streams, rounds, first_step)


class Training(Generic[NetworkT]):
    """A network under training: its weights, its optimiser and the number of the next step."""

    def __init__(
        self,
        trainer: Trainer,
        network: NetworkT,
        split: Split,
        compute: Compute,
        streams: Streams,
        rounds: int,
        first_step: int,
    ) -> None:
        self.trainer = trainer
        self.network = compute.place(network)
        self.split = split
        self.compute = compute
        self.streams = streams
        self.step = first_step
        self.steps_per_epoch = split.steps_per_epoch(trainer.batch_size)
        self.steps_per_round = trainer.epochs * self.steps_per_epoch
        self.steps = rounds * self.steps_per_round
        decay_all = trainer.decay_norm_and_bias
        parameters = list(self.network.parameters())
        self.groups = [
            [parameter for parameter in parameters if decay_all or parameter.dim() >= 2],
            [parameter for parameter in parameters if not decay_all and parameter.dim() < 2],
        ]
        self.optimiser = torch.optim.SGD(
            [
                {"params": self.groups[0], "weight_decay": trainer.weight_decay},
                {"params": self.groups[1], "weight_decay": 0.0},
            ],
            lr=trainer.schedule.lr,
            momentum=trainer.momentum,
            nesterov=trainer.nesterov,
        )

    def train_round(self, monitor: Monitor, name: str, gates: GatesOfStep | None = None) -> None:
        """Train to the end of the current round; ``gates`` for a supernet, None for a network.

        Logs under ``name``, every ``log_every`` steps: loss (cross entropy with label smoothing,
        nats, auxiliary loss included), accuracy on the training batches, lr.
        """
        end = (self.step // self.steps_per_round + 1) * self.steps_per_round
        begin = end - self.steps_per_round
        batches = self.split.train_batches(
            self.trainer.batch_size,
            streams=self.streams,
            first_step=self.step,
            cutout=self.trainer.cutout,
        )
        self.network.train()
        with monitor.stage(name, self.steps_per_round) as stage:
            stage.advance(self.step - begin)
            totals, since = torch.zeros(2, device=self.compute.device), self.step
            while self.step < end:
                images, labels = next(batches)
                lr = self._set_learning_rate()
                totals += self.train_step(images, labels, gates(self.step) if gates else None)
                self.step += 1
                if self.step % self.trainer.log_every == 0 or self.step == end:
                    # the only synchronisation with the device in this loop
                    loss, accuracy = (totals / (self.step - since)).tolist()
                    if not math.isfinite(loss):
                        raise UserError(
                            f"{name}: the loss is {loss} at step {self.step} with learning rate "
                            f"{lr:.3g}: lower the learning rate (schedule.lr) or set clip"
                        )
                    stage.advance(self.step - since, loss=loss, accuracy=accuracy, lr=lr)
                    totals, since = torch.zeros_like(totals), self.step
        self.network.noise.stop()
        self.network.eval()

    def _set_learning_rate(self) -> float:
        step, steps = self._position(self.trainer.schedule.spans)
        lr = self.trainer.schedule.at(step, steps, self.steps_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        return lr

    def _position(self, spans: str) -> tuple[int, int]:
        """The step within the round or the run, and how many that has."""
        if spans == "round":
            return self.step % self.steps_per_round, self.steps_per_round
        return self.step, self.steps

    def train_step(self, images: Tensor, labels: Tensor, gates: list[Gates] | None) -> Tensor:
        """One update on images [B, C, H, W] and labels [B]; returns (loss, accuracy) [2]."""
        step, steps = self._position(self.trainer.schedule.spans)
        self.network.noise.begin_step(
            self.streams.torch("noise", self.step, device=self.compute.device),
            progress=(step + 1) / steps,
            drop_path_keep=self.trainer.drop_path_keep,
            dropout_keep=self.trainer.dropout_keep,
        )
        images = self.compute.images(images)
        paths: list[tuple[Gates, ...]] = [(path,) for path in gates] if gates else [()]
        measured = torch.zeros(2, device=self.compute.device)
        for path in paths:
            with self.compute.autocast():
                logits = self.network(images, *path)
            loss = self._loss(logits, labels)
            torch.autograd.backward(loss / len(paths))
            correct = (logits.detach().argmax(1) == labels).float().mean()
            measured += torch.stack([loss.detach(), correct]) / len(paths)
        self._update()
        return measured

    def _update(self) -> None:
        """Clip, step, and forget the gradients, of those parameters that have one.

        Options that were not drawn have none: they get no update, no decay and no momentum. The
        optimiser is shown the others only; a supernet has thousands that it would pass over.
        """
        active = [[p for p in group if p.grad is not None] for group in self.groups]
        if self.trainer.clip > 0:
            torch.nn.utils.clip_grad_norm_(active[0] + active[1], self.trainer.clip)
        for group, parameters in zip(self.optimiser.param_groups, active, strict=True):
            group["params"] = parameters
        self.optimiser.step()
        for group, parameters in zip(self.optimiser.param_groups, self.groups, strict=True):
            group["params"] = parameters
        for parameter in active[0] + active[1]:
            parameter.grad = None

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        def cross_entropy(logits: Tensor) -> Tensor:
            return F.cross_entropy(
                logits.float(), labels, label_smoothing=self.trainer.label_smoothing
            )

        loss = cross_entropy(logits)
        auxiliary = self.network.auxiliary_logits
        if auxiliary is not None and self.trainer.auxiliary:
            loss = loss + self.trainer.auxiliary_weight * cross_entropy(auxiliary)
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
