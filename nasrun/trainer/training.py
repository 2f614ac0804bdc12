"""The training loop of one network, which can be stopped and continued at any step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, NoReturn, TypeVar

import torch
from torch import Tensor

from nasrun.dataset.base import Split
from nasrun.errors import UserError
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor, NullMonitor
from nasrun.run.state import State, whole_number
from nasrun.search_space.base import Network
from nasrun.search_space.gates import Gates, GatesOfStep
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import Unread, read_together
from nasrun.trainer.nonfinite import MAX_SKIPPED_STEPS, stop_over_loss
from nasrun.trainer.regions import compile_regions
from nasrun.trainer.settings import TrainerSettings
from nasrun.trainer.step import BatchGradients, StepPosition
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.updates import Updates

NetworkT = TypeVar("NetworkT", bound=Network)


class Training(Generic[NetworkT]):
    """A network in training: its weights, its optimiser and the number of the next step.

    rounds_done: number of complete rounds. step: the next step of the current round. losses: of the
    last epoch's steps up to the last line of metrics, nan for a step that was skipped.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        network: NetworkT,
        split: Split,
        compute: Compute,
        streams: Streams,
        rounds: int,
        first_round: int,
        rules: StepRules,
    ) -> None:
        self.settings = settings
        self.network = compute.place(network)
        if compute.compiled:
            compile_regions(self.network)
        self.split = split
        self.compute = compute
        self.streams = streams
        self.rounds = rounds
        self.rounds_done = first_round
        self.step = 0
        self.steps_per_epoch = split.steps_per_epoch(settings.batch_size)
        self.steps_per_round = settings.epochs * self.steps_per_epoch
        self.steps = rounds * self.steps_per_round
        # (loss, accuracy) [2] of each step since the last line of metrics.
        self._measured: list[Tensor] = []
        self.losses: deque[float] = deque(maxlen=self.steps_per_epoch)
        self._skipped = self._skipped_in_a_row = self._counted = 0
        self._monitor: Monitor = NullMonitor()
        self._name = "training"
        self._gates: GatesOfStep | None = None
        self.rules = rules
        self.updates = Updates(settings, self.network, rules.momenta)
        self.batch_gradients = BatchGradients(
            settings, self.network, self.updates, compute, streams, rules, split.class_weights()
        )
        # Whether the device decides which steps are skipped, and the host learns of it with the
        # next line of metrics. What learned gates and coasting weights do next depends on it.
        self.skips_unseen = (
            compute.on_nonfinite == "skip"
            and compute.device.type != "cpu"
            and settings.idle_options == "freeze"
            and rules.learner is None
        )

    @property
    def global_step(self) -> int:
        """The next step, counted over all rounds: it names the random streams."""
        return self.rounds_done * self.steps_per_round + self.step

    @property
    def position(self) -> StepPosition:
        """The place of the next step in the training."""
        step, steps = self._position_in_schedule(self.step)
        return StepPosition(self._name, self.step, self.global_step, (step + 1) / steps)

    @property
    def done(self) -> bool:
        """Whether all rounds are complete."""
        return self.rounds_done == self.rounds

    @property
    def ended(self) -> int | None:
        """The epochs after which the learner of the gates has ended the round early, or None."""
        return self.rules.learner.ended if self.rules.learner else None

    @property
    def mark(self) -> tuple[int, int]:
        """The rounds and steps that are done: equal marks mean equal states."""
        return self.rounds_done, self.step

    def train_round(
        self,
        monitor: Monitor,
        name: str,
        gates: GatesOfStep | None = None,
        *,
        epochs: int | None = None,
    ) -> None:
        """Train to the end of the current round; ``gates`` for a supernet, None for a network.

        epochs: stop after this number of epochs of the round; the next call continues.
        A learner of gates may end the round early, before the first step of an epoch.
        Logs under ``name``, every ``log_every`` steps: loss (cross entropy with label smoothing,
        nats, auxiliary loss included), accuracy on the training batches, lr. Every step ends in a
        safe point.
        """
        self._monitor, self._name, self._gates = monitor, name, gates
        learner = self.rules.learner
        end = self.steps_per_round if epochs is None else epochs * self.steps_per_epoch
        split = self.split if self.rules.ghost_batch else self.split.of_rank(self.compute.ranks)
        batches = split.train_batches(
            self.settings.batch_size,
            streams=self.streams,
            first_step=self.global_step,
            cutout=self.settings.cutout,
        )
        self.network.train()
        with monitor.stage(name, self.steps_per_round) as stage:
            stage.advance(self.step)
            while self.step < end and self.ended is None:
                batch = next(batches)
                if learner:
                    learner.learn_before(self.global_step, batch, self)
                    if learner.ended is not None:
                        break
                chosen = gates(self.global_step) if gates else None
                measured = self.batch_gradients.add(*batch, chosen, self.position)
                self._measured.append(self.update(measured, chosen))
                if learner:
                    learner.learn_after(self.global_step)
                self.step += 1
                stage.advance()
                monitor.spend(name, steps=1, images=self.batch_gradients.pop_images_passed())
                last = self.step == self.steps_per_round
                if self.step % self.settings.log_every == 0 or last:
                    stage.advance(0, **self._metrics())
                if last:
                    break  # the round is complete only after the lines below
                monitor.safe_point()
            if self.ended is not None and self._measured:
                stage.advance(0, **self._metrics())
        self.compute.ranks.copy_first(list(self.network.buffers()))
        self.rest()
        if self.step == self.steps_per_round or self.ended is not None:
            self.rounds_done, self.step = self.rounds_done + 1, 0
            monitor.safe_point()

    def update(self, measured: Tensor, gates: list[Gates] | None) -> Tensor:
        """Move the weights by the gradients that ``batch_gradients.add`` has left.

        measured: (loss, accuracy) [2] from that call. gates: the gates of that call. If loss or
        gradients are not finite and ``on_nonfinite=skip``, the step is undone and counts as NaN.
        Returns ``measured``, or NaN [2]. Raises UserError after too many such steps in a row.
        """
        good: Tensor | None = None  # whether the step counts; None: it does
        if self.compute.on_nonfinite == "skip":
            good = self.batch_gradients.are_finite(measured)
            if not self.skips_unseen:
                if not good.item():
                    self.batch_gradients.discard()
                    self._count(self.step, measured[0].item(), skipped=True)
                    return torch.full_like(measured, torch.nan)
                self._count(self.step, skipped=False)
                good = None
        if self.rules.watch and gates:
            self.rules.watch.stepped(self.global_step, gates, good)
        if self.rules.learner:
            self.rules.learner.see_gradients()
        momentum = self.rules.momentum(gates) if self.rules.momentum and gates else 0
        self.updates.update(self._learning_rate(self.step, gates), momentum, good)
        if good is None:
            return measured
        self.batch_gradients.restore_statistics(unless=good)
        return torch.where(good, measured, torch.nan)

    def _count(self, step: int, loss: float = math.nan, *, skipped: bool) -> None:
        """Count a step; raises UserError after too many skipped ones in a row."""
        self._skipped += skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row == MAX_SKIPPED_STEPS:
            self._stop_over_loss(step, loss)

    def rest(self) -> None:
        """Switch the network to evaluation: without noise, with its running statistics."""
        self.network.noise.stop()
        self.network.eval()

    def gradients(
        self, images: Tensor, labels: Tensor, gates: Gates, inputs: Sequence[Tensor]
    ) -> Tensor:
        """See ``Gradients``; raises UserError if the memory is short."""
        return self.batch_gradients.add(images, labels, [gates], self.position, inputs)

    def learning_rate(self) -> float:
        """See ``Gradients``."""
        return self._learning_rate(self.step, None)

    def look_ahead(self) -> list[tuple[Tensor, Tensor]]:
        """See ``Gradients``."""
        return self.updates.look_ahead(self.learning_rate())

    def _metrics(self) -> dict[str, float]:
        """Return the means since the last call; raises UserError if a loss is not finite."""
        learner = self.rules.learner
        unread = learner.pop_metrics() if learner else Unread()
        # The only synchronisation with the device in the loop.
        measured, *numbers = read_together([self._stacked(), *unread.tensors])
        self._check(measured)
        self.losses.extend(measured[:, 0].tolist())
        self._measured, self._counted = [], 0
        last = self._gates(self.global_step - 1) if self._gates and self.rules.power else None
        metrics = {"lr": self._learning_rate(self.step - 1, last)}
        good = measured[measured[:, 0].isfinite()]
        if len(good):
            loss, accuracy = good.mean(0).tolist()
            metrics = {"loss": loss, "accuracy": accuracy, **metrics}
        if self.compute.on_nonfinite == "skip":
            metrics["skipped"] = self._skipped
        if self.compute.batch_size == "auto":
            at_once = self.batch_gradients.images_at_once
            metrics["images_at_once"] = at_once or self.settings.batch_size
        metrics |= unread.named(numbers)
        if self.rules.watch:
            self.rules.watch.logged(metrics, self.global_step / self.steps)
        return metrics

    def _stacked(self) -> Tensor:
        """Return (loss, accuracy) of the steps, [n, 2] on the device; NaN for skipped steps."""
        if not self._measured:
            return torch.zeros(0, 2, device=self.compute.device)
        return torch.stack(self._measured)

    def _check(self, measured: Tensor) -> None:
        """Look for losses that are not finite in (loss, accuracy) of the steps, [n, 2].

        Raises UserError if there are any, or if too many steps in a row were skipped for them.
        """
        first = self.step - len(measured)
        bad = (~measured[:, 0].isfinite()).tolist()
        if self.compute.on_nonfinite == "stop" and any(bad):
            place = bad.index(True)
            self._stop_over_loss(first + place, measured[place, 0].item())
        if self.skips_unseen:
            for place in range(self._counted, len(bad)):
                self._count(first + place, skipped=bad[place])
            self._counted = len(bad)

    def _stop_over_loss(self, step: int, loss: float) -> NoReturn:
        first = self.rounds_done * self.steps_per_round
        gates = self._gates(first + step) if self._gates else None
        stop_over_loss(
            self._monitor,
            self._name,
            step=step,
            loss=loss,
            lr=self._learning_rate(step, gates),
            gates=gates,
            skipped=self._skipped,
        )

    def _learning_rate(self, step: int, gates: list[Gates] | None) -> float:
        """Return the learning rate of ``step`` in the current round."""
        position, steps = self._position_in_schedule(step)
        power = self.rules.power(gates) if self.rules.power and gates else None
        return self.settings.schedule.learning_rate(position, steps, self.steps_per_epoch, power)

    def _position_in_schedule(self, step: int) -> tuple[int, int]:
        """Return the step within the span of the schedule, and the steps of that span."""
        if self.settings.schedule.spans == "round":
            return step, self.steps_per_round
        return self.rounds_done * self.steps_per_round + step, self.steps

    def state_dict(self) -> State:
        """Return all that a resumed run needs.

        Raises UserError if a loss since the last line of metrics was not finite, since spoilt
        weights must not replace good ones.
        """
        (measured,) = read_together([self._stacked()])
        self._check(measured)
        return {
            "rounds_done": self.rounds_done,
            "step": self.step,
            "epochs": self.settings.epochs,
            "measured": measured,
            "losses": torch.tensor(list(self.losses)),
            "skipped": [self._skipped, self._skipped_in_a_row],
            "at_once": self.batch_gradients.images_at_once,
            "network": dict(self.network.state_dict()),
            "momenta": self.updates.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; the setting ``epochs`` may have changed.

        Raises UserError if more epochs are trained than ``epochs``, ValueError if ``state`` does
        not fit.
        """
        self.rounds_done, self.step = int(state["rounds_done"]), int(state["step"])
        if state["epochs"] != self.settings.epochs and self.rounds_done == self.rounds:
            self.rounds_done, self.step = (
                self.rounds_done - 1,
                int(state["epochs"]) * self.steps_per_epoch,
            )
        if self.step >= self.steps_per_round:
            trained = self.step / self.steps_per_epoch
            raise UserError(
                f"epochs={self.settings.epochs}: {trained:.4g} epochs are trained already"
            )
        measured = state["measured"]
        if not 0 <= self.rounds_done <= self.rounds or not 0 <= len(measured) <= self.step:
            raise ValueError("its position is none of this training")
        if measured.shape != (len(measured), 2):
            raise ValueError("its measurements are none of this training")
        self._measured, self._counted = list(measured.to(self.compute.device)), len(measured)
        self.losses = deque(state["losses"].tolist(), maxlen=self.steps_per_epoch)
        self._skipped, self._skipped_in_a_row = map(int, state["skipped"])
        if self.compute.batch_size == "auto":
            at_once = state["at_once"]
            self.batch_gradients.images_at_once = at_once and whole_number(
                at_once, most=self.settings.batch_size
            )
        self.network.load_state_dict(state["network"])
        self.updates.load_state_dict(state["momenta"])
        self.rest()
