"""The gradients of one training step: noise, microbatches, short memory, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nasrun.errors import UserError
from nasrun.run.compute import Compute, is_out_of_memory
from nasrun.search_space.base import Network
from nasrun.search_space.gates import Gates, are_learned
from nasrun.search_space.noise import Rows
from nasrun.streams import Streams
from nasrun.trainer.by_use import MeansByUse
from nasrun.trainer.joint_norm import joint_statistics
from nasrun.trainer.nonfinite import Copies
from nasrun.trainer.parts import Part, Paths, add_gradients, check_parts, leaves_of, part_of
from nasrun.trainer.settings import TrainerSettings
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.updates import Updates


@dataclass(frozen=True)
class StepPosition:
    """The place of a step in its training.

    name: name of the training, for messages. step: number in its round. global_step: number over
    all rounds, which names the random stream of the noise. progress: share of the schedule's steps
    that are done after this step, in (0, 1].
    """

    name: str
    step: int
    global_step: int
    progress: float


class BatchGradients:
    """Computes the gradients of the weights on the images of one step; changes no weight.

    images_at_once: images that go through the network together; None: the whole batch. If memory
    is short and ``batch_size=auto``, it is halved until they fit.
    Of several ranks each computes its part of the images, and all get the sum (``parts.py``).
    """

    def __init__(
        self,
        settings: TrainerSettings,
        network: Network,
        updates: Updates,
        compute: Compute,
        streams: Streams,
        rules: StepRules,
        class_weights: Tensor | None = None,
    ) -> None:
        """Make the gradients of a training; class_weights: of the loss, [K], None: all are 1.

        Raises UserError if several ranks cannot share the batches.
        """
        self.settings, self.network, self.updates = settings, network, updates
        self.compute, self.streams, self.rules = compute, streams, rules
        self.class_weights = None if class_weights is None else class_weights.to(compute.device)
        given = compute.batch_size
        self.images_at_once = given if isinstance(given, int) else None
        guarded = compute.on_nonfinite == "skip" or given == "auto"
        self._buffers = Copies(network.buffers()) if guarded else None
        self._images_passed = 0
        self._joint = compute.sync_batch_norm and compute.ranks.size > 1
        check_parts(compute, settings.batch_size, rules.ghost_batch, joint=self._joint)

    def pop_images_passed(self) -> int:
        """Return how many images passed forward and backward since the last call, on all ranks.

        An image counts once for each path; passes that found no memory are left out.
        """
        passed, self._images_passed = self._images_passed, 0
        return passed

    def add(
        self,
        images: Tensor,
        labels: Tensor,
        gates: Sequence[Gates] | None,
        position: StepPosition,
        inputs: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Add the gradients of the loss over all paths and microbatches to ``grad``.

        The loss is a mean over the images, and a sum or mean over the paths (``StepRules``). Of
        several ranks, or with means by use, no gradients may be there before.

        images: [B, C, H, W]. labels: [B]. gates: one for each path; None: the network needs no
        gates.
        inputs: the only tensors that get gradients, for a step of learned gates, without noise but
        skip dropout; None: all weights that are used.
        Returns the mean (loss, accuracy) [2] over images and paths.
        Raises UserError if the memory is short and the batch must not be split further; ghost
        batches are never split.
        """
        paths: Paths = [(path,) for path in gates] if gates else [()]
        if self._buffers:
            self._buffers.save()
        images = self.compute.images(images)
        ranks, ghost_batch = self.compute.ranks, self.rules.ghost_batch
        while True:
            means = None
            if inputs is None and self.rules.gradients == "by_use":
                means = MeansByUse(self.updates.parameters)
            try:
                part = part_of(images, labels, paths, self.images_at_once, ghost_batch, ranks)
                if inputs is None:
                    self._begin_noise(position, part)
                else:
                    self._begin_gates_noise(position, part)
                measured = torch.zeros(2, device=self.compute.device)
                with self._statistics(part):
                    for microbatch, answers, trained in part.microbatches:
                        images_share = len(microbatch) / part.whole
                        share = images_share / len(trained)
                        factor = images_share if self.rules.gradients == "sum" else share
                        targets = answers
                        for path in trained:
                            # In bf16 a sixth of the signs of small gates' gradients turned.
                            learns = inputs is not None or any(map(are_learned, path))
                            with self.compute.autocast(exact=learns):
                                logits = self.network(microbatch, *path)
                            loss = self._loss(logits, targets)
                            torch.autograd.backward(loss * factor, inputs=inputs)
                            if means is not None:
                                means.passed(share)
                            if self.rules.distillation and targets is answers:
                                targets = logits.detach().float().softmax(1)
                            correct = (logits.detach().argmax(1) == answers).float().mean()
                            measured += torch.stack([loss.detach(), correct]) * share
                    if means is not None:
                        means.put_back()
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Done outside the handler, whose traceback would keep memory.
            self.discard(inputs)
            self._halve_images_at_once(len(images), position)
        self._images_passed += len(images) * (len(paths) if ghost_batch is None else 1)
        if ranks.size > 1:
            own = [*self.updates.parameters, *leaves_of(gates or ())] if inputs is None else inputs
            add_gradients(ranks, own, measured)
        if means is not None:
            means.divide(ranks)
        return measured

    def _statistics(self, part: Part) -> AbstractContextManager[None]:
        """Return the context in which batch norm looks at the images of all ranks, if it does."""
        together = self._joint and part.rows is not None
        return joint_statistics(self.compute.ranks) if together else nullcontext()

    def are_finite(self, measured: Tensor) -> Tensor:
        """Tell, on the device, whether the loss in ``measured`` and all gradients are finite."""
        return measured.isfinite().all() & self.updates.norm().isfinite()

    def discard(self, inputs: Sequence[Tensor] | None = None) -> None:
        """Forget the gradients, and restore the batch norm statistics that ``add`` found.

        inputs: the only tensors whose gradients are forgotten; None: all weights.
        """
        if inputs is None:
            self.updates.forget_gradients()
            if self.rules.learner:
                self.rules.learner.drop_gradients()
        for tensor in inputs or ():
            tensor.grad = None
        if self._buffers:
            self._buffers.restore()

    def restore_statistics(self, unless: Tensor) -> None:
        """Restore the batch norm statistics that ``add`` found, unless a truth value is true."""
        if self._buffers:
            self._buffers.restore(unless)

    def _begin_noise(self, position: StepPosition, part: Part) -> None:
        self.network.noise.begin_step(
            self._generator("noise", position),
            progress=position.progress,
            drop_path_keep=self.settings.drop_path_keep,
            dropout_keep=self.settings.dropout_keep,
            rows=self._rows(part),
        )

    def _begin_gates_noise(self, position: StepPosition, part: Part) -> None:
        generator = self._generator("gates_noise", position)
        self.network.noise.begin_gates_step(generator, rows=self._rows(part))

    @property
    def _noise_of_rank(self) -> bool:
        """Whether the ranks sample noise by themselves.

        Otherwise each samples it for the whole batch, as one process would, and takes its rows.
        """
        whole = self.rules.ghost_batch is None and self.images_at_once is None
        return self.compute.ranks.size > 1 and not whole

    def _generator(self, stream: str, position: StepPosition) -> torch.Generator:
        rank = [self.compute.ranks.rank] if self._noise_of_rank else []
        return self.streams.torch(stream, position.global_step, *rank, device=self.compute.device)

    def _rows(self, part: Part) -> Rows | None:
        return None if part.rows is None or self._noise_of_rank else Rows(*part.rows, part.whole)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy with label smoothing, auxiliary loss included, nats."""
        loss = self._cross_entropy(logits, labels)
        auxiliary = self.network.auxiliary_logits
        if auxiliary is not None and self.settings.auxiliary:
            loss = loss + self.settings.auxiliary_weight * self._cross_entropy(auxiliary, labels)
        return loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross entropy; labels: classes [B], or their probabilities [B, K]."""
        soft = labels.is_floating_point()  # the outputs of a teacher, which are smooth already
        smoothing = 0.0 if soft else self.settings.label_smoothing
        if self.class_weights is None:
            return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        # The mean over the images, not over their weights: microbatches then add up to the batch.
        each = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="none")
        weights = labels @ self.class_weights if soft else self.class_weights[labels]
        return (each * weights).mean()

    def _halve_images_at_once(self, batch: int, position: StepPosition) -> None:
        where = f"{position.name}: out of memory on {self.compute.device} at step {position.step}"
        if self.rules.ghost_batch is not None:
            raise UserError(
                f"{where}: ghost batches are not split: make them smaller (sampler.ghost_batch, or "
                "more path_rules.slices), take a larger device, or a smaller network"
            )
        now = min(self.images_at_once or batch, batch)
        if self.compute.batch_size != "auto" or now < 4:
            advice = (
                "take a larger device, or a smaller network"
                if self.compute.batch_size == "auto"
                else "lower the trainer's batch_size, or let batch_size=auto split the batches"
            )
            raise UserError(f"{where} with {now} images at once: {advice}")
        self.images_at_once = now // 2
        if self.compute.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.compute.device.type == "mps":
            torch.mps.empty_cache()
