"""ENAS: a controller says what the supernet trains, and learns from what that scores."""

from __future__ import annotations

import math
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
from nasrun.run.memory import check_fits, network_bytes
from nasrun.run.monitor import Monitor, NullMonitor
from nasrun.search_algo.base import Round
from nasrun.search_algo.enas.controller import Controller, ControllerSettings
from nasrun.search_algo.enas.reinforce import Reinforce, ReinforceSettings
from nasrun.search_algo.pool import Found, Pool, PoolSearch
from nasrun.search_space.base import Network
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import Batches, GateContext, GateLearner, Gradients
from nasrun.values import Architecture

AT_ONCE = 100
"""Architectures that are drawn together in the derivation."""

GIVE_UP_AFTER = 100
"""Such draws in a row that bring nothing new."""

MEASURED = ("reward", "baseline", "entropy", "controller_loss")
"""What a step of the controller measures."""


class ControllerGates(GateLearner):
    """Every step of the weights trains an architecture that the controller draws; after every
    epoch the controller learns from the scores of others on held-out batches.

    The controller is small and works step by step, so it stays on the CPU.
    """

    def __init__(self, algo: Enas) -> None:
        self.algo = algo

    def start(self, context: GateContext) -> None:
        self.context = context
        with context.streams.default("controller/init"):
            self.controller = Controller(self.algo.controller, context.space)
        self.reinforce = Reinforce(self.controller, self.algo.reinforce)
        self.batches = Batches(context.held_out, context.batch_size, context.streams)
        self._drawn: dict[int, list[Architecture]] = {}
        self._measured: list[Tensor] = []
        self._training: Gradients | None = None

    @torch.no_grad()
    def sample(self, streams: Streams, name: str, number: int, count: int) -> list[Architecture]:
        """Architectures by the policy as it is; always the same for a name and a number."""
        drawn = self.controller.sample(count, streams.torch(name, number))
        return self.controller.architectures(drawn.choices, streams.numpy(f"{name}/mend", number))

    def before(self, step: int, batch: Batch, training: Gradients) -> None:
        self._training = training

    def gates(self, step: int) -> list[Gates]:
        epoch, place = divmod(step, self.context.steps_per_epoch)
        if epoch not in self._drawn:  # the policy rests for an epoch, and many at once are cheap
            count = self.context.steps_per_epoch
            self._drawn[epoch] = self.sample(self.context.streams, "weights", epoch, count)
        return [self._drawn[epoch][place].choices]

    def after(self, step: int) -> None:
        epochs, rest = divmod(step + 1, self.context.steps_per_epoch)
        if rest == 0 and self._training is not None:
            self.learn(epochs - 1, cast(Network, self._training.network))

    def learn(self, epoch: int, network: Network) -> None:
        """The controller's steps after an epoch; the network stays as it is."""
        settings, streams = self.algo.reinforce, self.context.streams
        network.noise.stop()
        with batch_norm_protocol("batch", network, (), self.context.compute):
            for index in range(settings.steps):
                number = epoch * settings.steps + index
                drawn = self.controller.sample(
                    settings.aggregate, streams.torch("controller", number)
                )
                architectures = self.controller.architectures(
                    drawn.choices, streams.numpy("controller/mend", number)
                )
                first = number * settings.aggregate
                scores = [
                    self._score(architecture, first + place, network)
                    for place, architecture in enumerate(architectures)
                ]
                self._measured.append(self.reinforce.step(drawn, scores))
        network.train()

    def _score(self, architecture: Architecture, number: int, network: Network) -> float:
        """Accuracy on one held-out batch by the statistics of that batch; 0 outside the budget.

        Raises UserError where the outputs are not finite and ``on_nonfinite`` is ``stop``.
        """
        if not self.algo.candidates.allows(architecture):
            return 0.0
        compute = self.context.compute
        predict = partial(network, gates=architecture.choices)
        score = accuracy(predict, [self.batches.at(number)], compute, NullMonitor())
        if math.isfinite(score):
            return score
        if compute.on_nonfinite == "skip":
            return 0.0
        raise UserError(
            f"the outputs of architecture {list(architecture.choices)} are not finite, so the "
            "controller has no reward: lower trainer.schedule.lr, or count such architectures as "
            "the worst with on_nonfinite=skip"
        )

    def metrics(self) -> dict[str, float]:
        means = torch.stack(self._measured).mean(0).tolist() if self._measured else []
        self._measured = []
        # Draws of earlier epochs served messages about losses that are now known to be finite.
        self._drawn = dict(list(self._drawn.items())[-1:])
        return dict(zip(MEASURED, means, strict=False))

    def state_dict(self) -> dict[str, Any]:
        measured = torch.stack(self._measured) if self._measured else torch.zeros(0, len(MEASURED))
        return {**self.reinforce.state_dict(), "measured": measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reinforce.load_state_dict(state)
        if state["measured"].shape[1:] != (len(MEASURED),):
            raise ValueError("its measurements are none of a controller")
        self._measured, self._drawn = list(state["measured"]), {}


class Enas(PoolSearch):
    """ENAS (Pham et al., arXiv 1802.03268), by its released code for cells; on any space.

    The supernet and the controller learn in turns, over ``trainer.epochs``. Then ``derive``
    distinct architectures are drawn from the policy, ``batch`` of them scored at a time, and the
    best one wins (§2.2). Architectures outside the budget earn nothing, and are not derived.
    """

    rounds = 1
    learner: ControllerGates

    def __init__(
        self,
        *,
        derive: Count,
        batch: Count,
        controller: ControllerSettings,
        reinforce: ReinforceSettings,
    ) -> None:
        self.derive, self.batch = derive, batch
        self.controller, self.reinforce = controller, reinforce
        self.learner = ControllerGates(self)
        self.monitor: Monitor = NullMonitor()

    def start(self, candidates: Candidates, streams: Streams, device: torch.device) -> None:
        """Raises UserError where the controller is too large for the memory."""
        self.candidates, self.streams = candidates, streams
        self.pool = Pool(candidates)
        weights = network_bytes(lambda: Controller(self.controller, candidates.space))
        # Adam keeps two more numbers for each weight, and each has a gradient.
        check_fits(4 * weights, "search_algo.controller", "search_algo.controller.hidden")

    def next_round(self, monitor: Monitor) -> Round | None:
        self.monitor = monitor
        if self.pool.trials and not self.pool.pending:
            return None
        evaluations = len(self.pool.pending) or self.derive
        return Round(0, None, fresh_supernet=True, evaluations=evaluations)

    def ask(self) -> list[Architecture]:
        if not self.pool.trials:
            found = self._derived()
            self.pool.add(found)
            self.pool.pending = list(found.values())
        return super().ask()

    def _derived(self) -> Found:
        """What the trained policy draws; fewer where it hardly draws anything else."""
        found: Found = {}
        number = fruitless = 0
        while len(found) < self.derive and fruitless < GIVE_UP_AFTER:
            before = len(found)
            drawn = self.learner.sample(self.streams, "derive", number, AT_ONCE)
            self.pool.collect(drawn, self.derive, found)
            fruitless = 0 if len(found) > before else fruitless + 1
            number += 1
        if not found:
            self.monitor.say(
                "the controller draws nothing within the budget: random architectures of the "
                "budget are scored in its place; train for longer, or widen the budget",
                "yellow",
            )
            self.pool.sample(self.streams.numpy("random", 0), self.derive, found)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool.state_dict(), "gates": self.learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state["pool"])
        self.learner.load_state_dict(state["gates"])
