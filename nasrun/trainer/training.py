"""One network under training: a loop that can be left and taken up at any step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nasrun.dataset.base import Split
from nasrun.errors import UserError
from nasrun.run.compute import Compute, is_out_of_memory
from nasrun.run.monitor import Monitor, NullMonitor
from nasrun.run.state import State, whole_number
from nasrun.search_space.base import Network
from nasrun.search_space.gates import Gates, GatesOfStep
from nasrun.streams import Streams
from nasrun.trainer.nonfinite import MOST_SKIPPED, Buffers, stop_over_loss
from nasrun.trainer.pieces import in_pieces
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.updates import Updates

if TYPE_CHECKING:
    from nasrun.trainer.trainer import Trainer

NetworkT = TypeVar("NetworkT", bound=Network)


class Training(Generic[NetworkT]):
    """A network under training: its weights, its optimiser and the number of the next step.

    rounds_done: rounds of training that are complete; step: the next step of the round under way.
    """

    def __init__(
        self,
        trainer: Trainer,
        network: NetworkT,
        split: Split,
        compute: Compute,
        streams: Streams,
        rounds: int,
        first_round: int,
        rules: StepRules,
    ) -> None:
        self.trainer = trainer
        self.network = compute.place(network)
        self.split = split
        self.compute = compute
        self.streams = streams
        self.rounds = rounds
        self.rounds_done = first_round
        self.step = 0
        self.steps_per_epoch = split.steps_per_epoch(trainer.batch_size)
        self.steps_per_round = trainer.epochs * self.steps_per_epoch
        self.steps = rounds * self.steps_per_round
        # Measured since the last line of metrics: (loss, accuracy) [2] of each step.
        self._measured: list[Tensor] = []
        self._skipped = self._skipped_in_a_row = 0
        self._at_once = compute.batch_size if isinstance(compute.batch_size, int) else None
        guarded = compute.on_nonfinite == "skip" or compute.batch_size == "auto"
        self._buffers = Buffers(self.network) if guarded else None
        self._monitor: Monitor = NullMonitor()
        self._name = "training"
        self._gates: GatesOfStep | None = None
        self.rules = rules
        self.updates = Updates(trainer, self.network, rules.momenta)

    @property
    def global_step(self) -> int:
        """The next step, counted over all rounds: it names the random streams."""
        return self.rounds_done * self.steps_per_round + self.step

    @property
    def done(self) -> bool:
        return self.rounds_done == self.rounds

    @property
    def mark(self) -> tuple[int, int]:
        """Equal marks, equal states."""
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

        epochs: stop when so many epochs of the round are trained; the next call goes on.
        Logs under ``name``, every ``log_every`` steps: loss (cross entropy with label smoothing,
        nats, auxiliary loss included), accuracy on the training batches, lr. Every step ends in a
        safe point.
        """
        self._monitor, self._name, self._gates = monitor, name, gates
        learner = self.rules.learner
        end = self.steps_per_round if epochs is None else epochs * self.steps_per_epoch
        batches = self.split.train_batches(
            self.trainer.batch_size,
            streams=self.streams,
            first_step=self.global_step,
            cutout=self.trainer.cutout,
        )
        self.network.train()
        with monitor.stage(name, self.steps_per_round) as stage:
            stage.advance(self.step - len(self._measured))
            while self.step < end:
                batch = next(batches)
                if learner:
                    learner.learn_before(self.global_step, batch, self)
                chosen = gates(self.global_step) if gates else None
                self._measured.append(self.train_step(*batch, chosen))
                if learner:
                    learner.learn_after(self.global_step)
                self.step += 1
                last = self.step == self.steps_per_round
                if self.step % self.trainer.log_every == 0 or last:
                    done = len(self._measured)
                    stage.advance(done, **self._metrics())
                if last:
                    break  # the round is complete only with the lines below
                monitor.safe_point()
        self.rest()
        if self.step == self.steps_per_round:
            self.rounds_done, self.step = self.rounds_done + 1, 0
            monitor.safe_point()

    def rest(self) -> None:
        """Leave the network as it is used: without noise, with its own statistics."""
        self.network.noise.stop()
        self.network.eval()

    def _metrics(self) -> dict[str, float]:
        """Means since the last call, which are forgotten; raises UserError over a bad loss."""
        measured = self._checked()  # the only synchronisation with the device in the loop
        self._measured = []
        last = self._gates(self.global_step - 1) if self._gates and self.rules.power else None
        metrics = {"lr": self._learning_rate(self.step - 1, last)}
        good = measured[measured[:, 0].isfinite()]
        if len(good):
            loss, accuracy = good.mean(0).tolist()
            metrics = {"loss": loss, "accuracy": accuracy, **metrics}
        if self.compute.on_nonfinite == "skip":
            metrics["skipped"] = self._skipped
        if self.compute.batch_size == "auto":
            metrics["images_at_once"] = self._at_once or self.trainer.batch_size
        if self.rules.learner:
            metrics |= self.rules.learner.pop_metrics()
        if self.rules.watch:
            self.rules.watch.logged(metrics, self.global_step / self.steps)
        return metrics

    def _checked(self) -> Tensor:
        """What was measured, [n, 2] on the CPU; NaN are the steps that were skipped.

        Raises UserError where another loss is not finite.
        """
        if not self._measured:
            return torch.zeros(0, 2)
        measured = torch.stack(self._measured).cpu()
        if self.compute.on_nonfinite == "stop":
            bad = (~measured[:, 0].isfinite()).nonzero().flatten().tolist()
            if bad:
                step = self.step - len(self._measured) + bad[0]
                self._stop_over_loss(step, measured[bad[0], 0].item())
        return measured

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
        """That of ``step`` of the round under way."""
        position, steps = self._position(step)
        power = self.rules.power(gates) if self.rules.power and gates else None
        return self.trainer.schedule.at(position, steps, self.steps_per_epoch, power)

    def _position(self, step: int) -> tuple[int, int]:
        """The step within what the schedule spans, and how many steps that has."""
        if self.trainer.schedule.spans == "round":
            return step, self.steps_per_round
        return self.rounds_done * self.steps_per_round + step, self.steps

    def train_step(self, images: Tensor, labels: Tensor, gates: list[Gates] | None) -> Tensor:
        """One update on images [B, C, H, W] and labels [B]; returns (loss, accuracy) [2].

        Where memory is short and ``batch_size=auto``, the batch is taken in pieces, and their
        gradients are added up. Raises UserError where it is short and must not be split further,
        as ghost batches never are.
        """
        paths: list[tuple[Gates, ...]] = [(path,) for path in gates] if gates else [()]
        if self._buffers:
            self._buffers.save()
        measured = self._in_pieces(images, labels, paths)
        if self.compute.on_nonfinite == "skip" and not self._finite(measured):
            self._go_back()
            self._skipped += 1
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row == MOST_SKIPPED:
                self._stop_over_loss(self.step, measured[0].item())
            return torch.full_like(measured, torch.nan)
        self._skipped_in_a_row = 0
        if self.rules.watch and gates:
            self.rules.watch.stepped(self.global_step, gates)
        momentum = self.rules.momentum(gates) if self.rules.momentum and gates else 0
        self.updates.update(self._learning_rate(self.step, gates), momentum)
        return measured

    def gradients(
        self, images: Tensor, labels: Tensor, gates: Gates, inputs: Sequence[Tensor]
    ) -> Tensor:
        """See ``Gradients``. As ``train_step`` where memory is short."""
        if self._buffers:
            self._buffers.save()
        return self._in_pieces(images, labels, [(gates,)], inputs)

    def learning_rate(self) -> float:
        """See ``Gradients``."""
        return self._learning_rate(self.step, None)

    def look_ahead(self) -> list[tuple[Tensor, Tensor]]:
        """See ``Gradients``."""
        return self.updates.look_ahead(self.learning_rate())

    def _begin_noise(self) -> None:
        position, steps = self._position(self.step)
        self.network.noise.begin_step(
            self.streams.torch("noise", self.global_step, device=self.compute.device),
            progress=(position + 1) / steps,
            drop_path_keep=self.trainer.drop_path_keep,
            dropout_keep=self.trainer.dropout_keep,
        )

    def _in_pieces(
        self,
        images: Tensor,
        labels: Tensor,
        paths: list[tuple[Gates, ...]],
        inputs: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """As ``_gradients``, in smaller pieces where the memory takes no more."""
        images = self.compute.images(images)
        while True:
            try:
                return self._gradients(images, labels, paths, inputs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Out of the handler, whose traceback would keep the memory.
            self._go_back(inputs)
            self._take_less_at_once(len(images))

    def _gradients(
        self,
        images: Tensor,
        labels: Tensor,
        paths: list[tuple[Gates, ...]],
        inputs: Sequence[Tensor] | None,
    ) -> Tensor:
        """Forward and backward over all paths and pieces; the mean (loss, accuracy) [2].

        inputs: what gets gradients, without noise; None: all that takes part.
        """
        if inputs is None:
            self._begin_noise()
        else:
            self.network.noise.stop()
        measured = torch.zeros(2, device=self.compute.device)
        pieces = in_pieces(images, labels, paths, self._at_once, self.rules.ghost_batch)
        for part, answers, trained in pieces:
            share = len(part) / len(images) / len(trained)
            targets = answers
            for path in trained:
                with self.compute.autocast():
                    logits = self.network(part, *path)
                loss = self._loss(logits, targets)
                torch.autograd.backward(loss * share, inputs=inputs)
                if self.rules.distillation and targets is answers:
                    targets = logits.detach().float().softmax(1)
                correct = (logits.detach().argmax(1) == answers).float().mean()
                measured += torch.stack([loss.detach(), correct]) * share
        return measured

    def _finite(self, measured: Tensor) -> bool:
        return bool((measured.isfinite().all() & self.updates.norm().isfinite()).item())

    def _go_back(self, inputs: Sequence[Tensor] | None = None) -> None:
        """As before the step: no gradients (of ``inputs`` only, where there are any), and the batch
        norm statistics of then."""
        if inputs is None:
            self.updates.forget()
            if self.rules.learner:
                self.rules.learner.drop_gradients()
        for tensor in inputs or ():
            tensor.grad = None
        if self._buffers:
            self._buffers.restore()

    def _take_less_at_once(self, batch: int) -> None:
        if self.rules.ghost_batch is not None:
            raise UserError(
                f"{self._name}: out of memory on {self.compute.device} at step {self.step}: ghost "
                "batches are not split: lower sampler.ghost_batch, take a larger device, or a "
                "smaller network"
            )
        now = min(self._at_once or batch, batch)
        if self.compute.batch_size != "auto" or now < 4:
            advice = (
                "take a larger device, or a smaller network"
                if self.compute.batch_size == "auto"
                else "lower the trainer's batch_size, or let batch_size=auto split the batches"
            )
            raise UserError(
                f"{self._name}: out of memory on {self.compute.device} at step {self.step} with "
                f"{now} images at once: {advice}"
            )
        self._at_once = now // 2
        if self.compute.device.type == "cuda":
            torch.cuda.empty_cache()

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

    def state_dict(self) -> State:
        """Raises UserError where a loss since the last line of metrics was not finite: weights
        that are spoilt must not replace good ones."""
        return {
            "rounds_done": self.rounds_done,
            "step": self.step,
            "epochs": self.trainer.epochs,
            "measured": self._checked(),
            "skipped": [self._skipped, self._skipped_in_a_row],
            "at_once": self._at_once,
            "network": dict(self.network.state_dict()),
            "momenta": self.updates.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; ``epochs`` may be others than they were.

        Raises UserError where fewer are left than were trained, ValueError where it does not fit.
        """
        self.rounds_done, self.step = int(state["rounds_done"]), int(state["step"])
        if state["epochs"] != self.trainer.epochs and self.rounds_done == self.rounds:
            self.rounds_done, self.step = (
                self.rounds_done - 1,
                int(state["epochs"]) * self.steps_per_epoch,
            )
        if self.step >= self.steps_per_round:
            trained = self.step / self.steps_per_epoch
            raise UserError(
                f"epochs={self.trainer.epochs}: {trained:.4g} epochs are trained already"
            )
        measured = state["measured"]
        if not 0 <= self.rounds_done <= self.rounds or not 0 <= len(measured) <= self.step:
            raise ValueError("its position is none of this training")
        if measured.shape != (len(measured), 2):
            raise ValueError("its measurements are none of this training")
        self._measured = list(measured.to(self.compute.device))
        self._skipped, self._skipped_in_a_row = map(int, state["skipped"])
        if self.compute.batch_size == "auto":
            at_once = state["at_once"]
            self._at_once = at_once and whole_number(at_once, most=self.trainer.batch_size)
        self.network.load_state_dict(state["network"])
        self.updates.load_state_dict(state["momenta"])
        self.rest()
