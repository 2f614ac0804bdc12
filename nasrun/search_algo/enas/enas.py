"""ENAS: a controller samples what the supernet trains, and learns from its scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Batch
from nasrun.errors import UserError
from nasrun.evaluator.accuracy import accuracy
from nasrun.evaluator.batch_norm import batch_norm_protocol
from nasrun.limits import Count
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.enas.controller import Controller, ControllerSettings, check_controller
from nasrun.search_algo.enas.reinforce import EnasLearning, ReinforceSettings
from nasrun.search_algo.pool import ByForm, PoolSearch
from nasrun.search_space.base import Network
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import Batches, GateContext, GateLearner, Gradients, Unread
from nasrun.values import Architecture

SAMPLES_PER_BATCH = 100
"""Architectures sampled at a time when the trained policy is used."""

MAX_FRUITLESS_BATCHES = 100
"""The sampling of the trained policy ends after so many batches in a row without a new one."""

METRICS = ("reward", "baseline", "entropy", "controller_loss")
"""Metrics of a step of the controller."""


@dataclass(frozen=True, kw_only=True)
class Enas(SearchAlgo):
    """ENAS (Pham et al., arXiv 1802.03268), by its released code for cells; on any space.

    derive: number of distinct architectures that are sampled from the trained policy; the best one
    wins (§2.2).
    batch: architectures scored between two checkpoints.
    controller, reinforce: see these settings.

    The supernet and the controller learn in turns, over ``trainer.epochs``. Architectures outside
    the budget have a reward of 0 and cannot win.
    """

    rounds = 1
    learns_gates = True

    derive: Count
    batch: Count
    controller: ControllerSettings
    reinforce: ReinforceSettings

    def scored_in(self, round_: int) -> int:
        return self.derive

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> EnasSearch:
        """Make the search; raises UserError if the controller is too large for the memory."""
        check_controller(self.controller, candidates.space)
        return EnasSearch(self, candidates, streams)


class ControllerGates(GateLearner):
    """Sets the gates to architectures that the controller samples, a new one every step.

    After every epoch of the weights the controller learns from the scores of other architectures
    on held-out batches. It is small and works step by step, so it stays on the CPU.
    """

    def __init__(self, algo: Enas, context: GateContext, candidates: Candidates) -> None:
        self.algo, self.context, self.candidates = algo, context, candidates
        with context.streams.default("controller/init"):
            self.controller = Controller(algo.controller, context.space)
        self.reinforce = EnasLearning(self.controller, algo.reinforce)
        self.batches = Batches(context.held_out, context.batch_size, context.streams)
        self._sampled: dict[int, list[Architecture]] = {}
        self._measured: list[Tensor] = []
        self._training: Gradients | None = None

    @torch.no_grad()
    def sample(self, streams: Streams, name: str, number: int, count: int) -> list[Architecture]:
        """Sample from the current policy; the same for equal name and number."""
        sample = self.controller.sample(count, streams.torch(name, number))
        return self.controller.architectures(sample.choices, streams.numpy(f"{name}/mend", number))

    def learn_before(self, step: int, batch: Batch, training: Gradients) -> None:
        self._training = training

    def gates(self, step: int) -> list[Gates]:
        epoch, place = divmod(step, self.context.steps_per_epoch)
        if epoch not in self._sampled:  # the policy changes only between epochs
            count = self.context.steps_per_epoch
            self._sampled[epoch] = self.sample(self.context.streams, "weights", epoch, count)
        return [self._sampled[epoch][place].choices]

    def learn_after(self, step: int) -> None:
        epochs, rest = divmod(step + 1, self.context.steps_per_epoch)
        if rest == 0 and self._training is not None:
            self.learn_from(epochs - 1, cast(Network, self._training.network))

    def learn_from(self, epoch: int, network: Network) -> None:
        """Take the controller's steps after an epoch; does not change the network."""
        settings, streams = self.algo.reinforce, self.context.streams
        network.noise.stop()
        with batch_norm_protocol("batch", network, (), self.context.compute):
            for index in range(settings.steps):
                number = epoch * settings.steps + index
                sample = self.controller.sample(
                    settings.aggregate, streams.torch("controller", number)
                )
                architectures = self.controller.architectures(
                    sample.choices, streams.numpy("controller/mend", number)
                )
                first = number * settings.aggregate
                scores = [
                    self._score(architecture, first + place, network)
                    for place, architecture in enumerate(architectures)
                ]
                scores = self.context.compute.ranks.agree(scores)  # else the controllers part
                self._measured.append(self.reinforce.update(sample, scores))
        network.train()

    def _score(self, architecture: Architecture, number: int, network: Network) -> float:
        """Accuracy on one held-out batch by its own statistics; 0 outside the budget.

        Raises UserError if the outputs are not finite and ``on_nonfinite`` is ``stop``.
        """
        if not self.candidates.allows(architecture):
            return 0.0
        compute = self.context.compute
        predict = partial(network, gates=architecture.choices)
        score = accuracy(predict, [self.batches.batch_of_step(number)], compute, NullMonitor())
        if math.isfinite(score):
            return score
        if compute.on_nonfinite == "skip":
            return 0.0
        raise UserError(
            f"the outputs of architecture {list(architecture.choices)} are not finite, so the "
            "controller has no reward: lower trainer.schedule.lr, or count such architectures as "
            "the worst with on_nonfinite=skip"
        )

    def pop_metrics(self) -> Unread:
        means = torch.stack(self._measured).mean(0).tolist() if self._measured else []  # of the CPU
        self._measured = []
        # Samples of earlier epochs are needed only for messages about losses that are not finite.
        self._sampled = dict(list(self._sampled.items())[-1:])
        return Unread(named=lambda numbers: dict(zip(METRICS, means, strict=False)))

    def state_dict(self) -> dict[str, Any]:
        measured = torch.stack(self._measured) if self._measured else torch.zeros(0, len(METRICS))
        return {**self.reinforce.state_dict(), "measured": measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reinforce.load_state_dict(state)
        if state["measured"].shape[1:] != (len(METRICS),):
            raise ValueError("its measurements are none of a controller")
        self._measured, self._sampled = list(state["measured"]), {}


class EnasSearch(PoolSearch):
    """The search of ``Enas``."""

    def __init__(self, algo: Enas, candidates: Candidates, streams: Streams) -> None:
        super().__init__(candidates, streams, algo.batch)
        self.algo = algo
        self._learner: ControllerGates | None = None

    def bind_learner(self, context: GateContext) -> ControllerGates:
        self._learner = ControllerGates(self.algo, context, self.candidates)
        return self._learner

    @property
    def learner(self) -> ControllerGates:
        """The learner of the supernet's training; raises RuntimeError before it is bound."""
        if self._learner is None:
            raise RuntimeError("the gates have no learner: bind_learner makes it")
        return self._learner

    def begin_round(self) -> Round | None:
        if self.pool.trials and not self.pool.pending:
            return None
        evaluations = len(self.pool.pending) or self.algo.derive
        return Round(0, None, fresh_supernet=True, evaluations=evaluations)

    def ask(self) -> list[Architecture]:
        if not self.pool.trials:
            self.pool.add_pending(self._derive())
        return super().ask()

    def _derive(self) -> ByForm:
        """Sample from the trained policy; returns fewer if it hardly samples anything new."""
        found: ByForm = {}
        number = fruitless = 0
        while len(found) < self.algo.derive and fruitless < MAX_FRUITLESS_BATCHES:
            before = len(found)
            sample = self.learner.sample(self.streams, "derive", number, SAMPLES_PER_BATCH)
            self.pool.collect(sample, self.algo.derive, found)
            fruitless = 0 if len(found) > before else fruitless + 1
            number += 1
        if not found:
            self.monitor.say(
                "the controller samples nothing within the budget: random architectures of the "
                "budget are scored in its place; train for longer, or widen the budget",
                "yellow",
            )
            self.pool.sample(self.streams.numpy("random", 0), self.algo.derive, found)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool.state_dict(), "gates": self.learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state["pool"])
        self.learner.load_state_dict(state["gates"])
