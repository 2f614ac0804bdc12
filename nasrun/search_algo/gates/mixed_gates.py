"""The learner of gates, put together from its parts: what it does in a step of the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nasrun.dataset.base import Batch
from nasrun.errors import UserError
from nasrun.search_algo.gates.agreement import Agreement
from nasrun.search_algo.gates.bilevel import second_order
from nasrun.search_algo.gates.perturbation import perturb_against, perturb_at_random
from nasrun.search_algo.gates.probe import Probe
from nasrun.search_algo.gates.readiness import varied_paths
from nasrun.search_algo.gates.regulariser import skip_dropout_rate
from nasrun.search_algo.gates.resource import ExpectedCost
from nasrun.search_algo.gates.selection import PerturbationSelection, without_light
from nasrun.search_algo.gates.settings import GateSettings
from nasrun.search_algo.gates.skips import skip_options
from nasrun.search_algo.gates.soft_gates import SoftGates
from nasrun.search_algo.gates.stop import rule_of
from nasrun.search_space.capabilities import LimitedEdges
from nasrun.search_space.gates import Gates
from nasrun.trainer.gate_learner import GateContext, Gradients
from nasrun.values import Architecture


@dataclass(frozen=True)
class Sample:
    """The gates of one pass, by which the logits learn.

    weights: as a function of the logits. leaf: of the same shape, a leaf whose gradient the loss
    gives. open_by: the gates of the network for such weights.
    """

    weights: Tensor
    leaf: Tensor
    open_by: Callable[[Tensor], Gates]

    @property
    def gates(self) -> Gates:
        """The gates, made of ``leaf``."""
        return self.open_by(self.leaf)


class MixedGates(SoftGates):
    """Learns logits by the rules of its settings, from held-out images or the weights' own.

    algo: the settings, one for each part.
    resource: the expected cost for the penalty; factor: that for the factor of the loss.
    """

    def __init__(
        self,
        algo: GateSettings,
        context: GateContext,
        *,
        resource: ExpectedCost | None = None,
        factor: ExpectedCost | None = None,
    ) -> None:
        super().__init__(
            context,
            algo.adam,
            rest_epochs=algo.rest_epochs,
            spread=algo.spread,
            centre=algo.centre,
            edges=algo.edges,
            relaxation=algo.relaxation_rule(),
        )
        self.algo, self.resource, self.factor = algo, resource, factor
        self._sample: Sample | None = None  # of the weights' step, if the gates learn from it
        self._perturbed: tuple[int, Tensor] | None = None  # a step, and its weights
        self.stop_rule = rule_of(algo.stop)
        self.stopped: int | None = None  # the epochs after which the gates stopped
        self.agreement: Agreement | None = None
        if algo.stop.rule == "agreement":
            self.agreement = Agreement(algo.stop.agreement, algo.stop.looks)
        self.ready = algo.rest == "epochs"
        count = 0 if self.ready else algo.paths
        self.paths = varied_paths(self.space, count, context.streams)
        self.correlation: float | None = None
        self.selection: PerturbationSelection | None = None
        if algo.selection.rule == "perturbation":
            self.selection = self._plan_selection()
        self._skips = torch.zeros_like(self.logits, requires_grad=False)
        for decision, option in skip_options(self.space).items():
            self._skips[decision, option] = 1.0

    def _plan_selection(self) -> PerturbationSelection:
        context, epochs = self.context, self.algo.selection.epochs
        first = context.steps - max(round(epochs * context.steps_per_epoch), 1)
        if first <= self.first:
            raise UserError(
                f"search_algo.selection.epochs={epochs:g} leaves nothing of trainer.epochs for the "
                "gates to learn in"
            )
        return PerturbationSelection(self.space, context.streams, first, context.steps)

    def is_resting(self, step: int) -> bool:
        return self.stopped is not None or not self.ready or super().is_resting(step)

    @property
    def ended(self) -> int | None:
        return self.stopped if self.algo.stop.then == "end" else None

    def progress(self, step: int) -> float:
        """Return the share of the training's steps that are done before ``step``."""
        return step / self.context.steps

    # The weights' step.

    def gates(self, step: int) -> list[Gates]:
        if self.algo.levels == 1:
            self._sample = self.sample(step, self.relaxation.stream, step)
            return [self._sample.gates]
        return [self.training_gates(step)]

    def training_gates(self, step: int) -> Gates:
        """Return the gates from which only the weights learn."""
        weights = self.relaxed(step, self.relaxation.stream, step).detach()
        if self.relaxation.hard:
            path: list[int] = weights.argmax(1).tolist()
            return path
        return self.gates_by(self.flowing(step, self.perturbed(step, weights)).detach())

    def perturbed(self, step: int, weights: Tensor) -> Tensor:
        """Return the weights [D, K] as the perturbation of the weights' step leaves them."""
        if self._perturbed is not None and self._perturbed[0] == step:
            return self._perturbed[1]
        if self.algo.perturbation.kind != "random":
            return weights
        generator = self.context.streams.torch("perturbation", step)
        radius = self.algo.perturbation.radius(self.progress(step))
        return perturb_at_random(weights, self.opened.to(weights.device), radius, generator)

    def learn_after(self, step: int) -> None:
        sample, self._sample = self._sample, None
        if sample is not None and not self.is_resting(step):
            self.take_step(step, sample, sample.leaf.grad)

    def drop_gradients(self) -> None:
        if self._sample is not None:
            self._sample.leaf.grad = None

    def see_gradients(self) -> None:
        if self.agreement is not None:
            self.agreement.compare()

    # The gates' own step.

    def learn_before(self, step: int, batch: Batch, training: Gradients) -> None:
        self.look(step, training)
        super().learn_before(step, batch, training)
        if self.algo.perturbation.kind == "adversarial":
            self._perturb_against(step, batch, training)

    def learn(self, step: int, batch: Batch, training: Gradients) -> None:
        algo = self.algo
        if algo.levels == 1 or (step - self.first) % algo.every:
            return
        for turn in range(step * algo.steps, (step + 1) * algo.steps):
            sample = self.sample(step, f"{self.relaxation.stream}_gates", turn)
            held_out = self.batches.batch_of_step(turn)
            if algo.order == 1:
                operations = self.agreement.parameters if self.agreement else []
                inputs = [sample.leaf, *operations]
                measured = training.gradients(*held_out, sample.gates, inputs)
                gradient = sample.leaf.grad
                if self.agreement is not None:
                    self.agreement.take_held_out()
            else:
                now = sample.leaf.detach()
                gradient, measured = second_order(training, batch, held_out, now, sample.open_by)
            self.take_step(step, sample, gradient, measured)

    def sample(self, step: int, stream: str, number: int) -> Sample:
        """Sample the gates of a pass with the ``number`` of the stream's generator."""
        weights = self.flowing(step, self.relaxed(step, stream, number))
        leaf = weights.detach().requires_grad_()
        if self.relaxation.opens_all:
            return Sample(weights, leaf, self.gates_by)
        path = weights.detach().argmax(1).tolist()

        def open_chosen(values: Tensor) -> Gates:
            return [{option: row[option]} for option, row in zip(path, values, strict=True)]

        return Sample(weights, leaf, open_chosen)

    def relaxed(self, step: int, stream: str, number: int) -> Tensor:
        """Return the weights [D, K] by the relaxation alone, differentiable in the logits."""
        generator = self.context.streams.torch(stream, number)
        logits = self.mask_closed(self.logits)
        return self.relaxation.weights(logits, self.temperature(step), generator)

    def temperature(self, step: int) -> float:
        """Return the temperature of the relaxation in ``step``."""
        return self.algo.temperature.at(step, self.context.steps, self.context.steps_per_epoch)

    def flowing(self, step: int, weights: Tensor) -> Tensor:
        """Return the weights [D, K] times those of edges, plus the auxiliary skips."""
        weights = self.with_edges(weights)
        if not self.algo.regulariser.auxiliary_skip:
            return weights
        left = self.algo.regulariser.auxiliary_skip * (1 - self.progress(step))
        return weights + left * self._skips

    def take_step(
        self, step: int, sample: Sample, gradient: Tensor | None, measured: Tensor | None = None
    ) -> None:
        """Change the logits by the loss' ``gradient`` with respect to the sample's weights.

        measured: (loss, accuracy) [2] of the gates' own step.
        """
        if gradient is None:
            return
        if self.resource is not None:
            expected = self.resource.expected_of(self.shares())
            torch.autograd.backward(self.algo.resource.weight * expected / self.resource.largest)
        if self.factor is not None and measured is not None:
            of_sample = self.algo.cost.of_sample
            expected = self.factor.expected_of(sample.weights if of_sample else self.shares())
            factor = self.algo.cost.factor_of(expected)
            gradient = gradient * factor.detach()
            # Decided on the device, for which the host does not wait then.
            loss = torch.where(measured.isfinite().all(), measured[0], 0.0)
            torch.autograd.backward(loss * factor, retain_graph=of_sample)
        if self.algo.regulariser.penalises:
            logits = self.mask_closed(self.logits)
            progress = self.progress(step)
            penalty = self.algo.regulariser.penalty(logits, self.relaxation, progress)
            torch.autograd.backward(penalty)
        self.keep_gradients()
        self.update(sample.weights, gradient, measured)

    def derive_from(self, weights: list[list[float]]) -> Architecture:
        found = super().derive_from(weights)
        if self.algo.selection.rule == "threshold" and isinstance(self.space, LimitedEdges):
            return without_light(self.space, found, weights, self.algo.selection.threshold)
        return found

    def shares(self) -> Tensor:
        """Return the expected weights [D, K] of the options, without those of edges."""
        return self.relaxation.shares(self.mask_closed(self.logits))

    def keep_gradients(self) -> None:
        """Drop the penalties' gradients of logits that the step must not change; here of none."""

    def _perturb_against(self, step: int, batch: Batch, training: Gradients) -> None:
        """Find the worst weights for the step's training images."""

        def loss_at(weights: Tensor) -> tuple[Tensor, Tensor]:
            leaf = weights.detach().requires_grad_()
            gates = self.gates_by(self.flowing(step, leaf))
            measured = training.gradients(*batch, gates, [leaf])
            return measured[0], torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

        weights = self.relaxed(step, self.relaxation.stream, step).detach()
        found = perturb_against(
            weights,
            self.opened.to(weights.device),
            self.algo.perturbation.radius(self.progress(step)),
            self.algo.perturbation.steps,
            loss_at,
            self.context.streams.torch("perturbation", step),
        )
        self._perturbed = step, found

    # Between the steps.

    def look(self, step: int, training: Gradients) -> None:
        """Measure what the parts ask for before ``step``, and do what they decide by it."""
        algo, per_epoch = self.algo, self.context.steps_per_epoch
        probe = Probe(
            *(self, training, step),
            images=algo.selection.images,
            iterations=algo.stop.iterations,
        )
        if algo.regulariser.skip_dropout:
            probe.network.noise.skip_dropout = skip_dropout_rate(
                algo.regulariser.skip_dropout,
                step,
                resting=self.first,
                steps=self.context.steps,
                steps_per_epoch=per_epoch,
            )
        if self.agreement is not None:
            self.agreement.begin(probe.network)
        if self.selection is not None and self.selection.decide(step, self.opened, probe.accuracy):
            self.reread()
        epoch, rest = divmod(step, per_epoch)
        if rest == 0 and epoch > 0:
            self._look_after(epoch, probe)

    def _look_after(self, epoch: int, probe: Probe) -> None:
        """Decide after an epoch whether the gates begin, or stop."""
        if not self.ready:
            self.correlation = probe.correlation(self.paths)
            self.ready = self.correlation is not None and self.correlation > 0
        elif self.stop_rule is not None and not self.is_resting(probe.step):
            logits = self.stop_rule.look(epoch, probe)
            if logits is not None:
                self.stopped = epoch
                with torch.no_grad():
                    self.logits.copy_(logits)
                self.reread()

    def reread(self) -> None:
        """Called when logits or open options have changed outside of a step of the optimiser."""

    # What is told and kept.

    def warning(self) -> str | None:
        if not self.ready:
            told = "none" if self.correlation is None else f"{self.correlation:.2f}"
            return (
                "the gates never began to learn: the correlation of the loss of random paths with "
                f"their share of parameter-free operations was {told}, and search_algo.rest="
                "until_ready waits until it is above 0: train for longer (trainer.epochs)"
            )
        return super().warning()

    def note(self) -> str | None:
        """Return a line about gates that stopped before the end, else None."""
        if self.stopped is None:
            return None
        told = f"the gates stopped learning after epoch {self.stopped} ({self.algo.stop.rule})"
        if self.ended is None:
            return told
        epochs = self.context.steps // self.context.steps_per_epoch
        return f"{told}, and with them the training of the supernet, of {epochs} epochs at most"

    def report(self) -> dict[str, int]:
        """Return what result.json tells of the learning: the epochs of a training that ended."""
        return {} if self.ended is None else {"supernet_epochs": self.ended}

    def _named(self, numbers: Sequence[Tensor]) -> dict[str, float]:
        found = super()._named(numbers)
        if self.correlation is not None:
            found["free_correlation"] = self.correlation
        if self.stop_rule is not None:
            found |= self.stop_rule.metrics()
        if self.agreement is not None:
            found |= self.agreement.metrics()
        return found

    def state_dict(self) -> dict[str, Any]:
        state, parts = super().state_dict(), self._stateful_parts()
        if self.algo.rest != "epochs":
            state["readiness"] = {"ready": self.ready, "correlation": self.correlation}
        if parts:
            state["parts"] = {name: part.state_dict() for name, part in parts.items()}
            state["stopped"] = self.stopped
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is of another search space."""
        super().load_state_dict(state)
        if self.algo.rest != "epochs":
            self.ready = bool(state["readiness"]["ready"])
            self.correlation = state["readiness"]["correlation"]
        parts = self._stateful_parts()
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        if parts:
            self.stopped = state["stopped"]
        self.reread()

    def _stateful_parts(self) -> dict[str, Any]:
        parts = {"stop": self.stop_rule, "agreement": self.agreement, "selection": self.selection}
        return {name: part for name, part in parts.items() if part is not None}
