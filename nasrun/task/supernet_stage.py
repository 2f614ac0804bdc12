"""The supernet of a run: trained here, loaded from another run, or not needed at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.report.health import say_health
from nasrun.run.layout import SUPERNET
from nasrun.run.run import Run
from nasrun.search_algo.base import Round, Search, SearchAlgo
from nasrun.search_space.base import Supernet
from nasrun.search_space.gates import GatesOfStep
from nasrun.task.batch_picture import show_batch
from nasrun.task.health import HealthReport
from nasrun.task.rank_progress import RankProgress
from nasrun.task.setup import Setup
from nasrun.trainer.gate_learner import GateContext
from nasrun.trainer.training import Training

WHOLE_SPACE = Round(0, None, fresh_supernet=True, evaluations=0)
"""A round of training of the whole space, without a search algorithm."""


class SupernetStage:
    """The supernet of a run, which is trained round by round unless it is loaded.

    network: None if no supernet is needed.
    """

    def __init__(
        self,
        setup: Setup,
        run: Run,
        splits: Splits,
        *,
        search: Search | None = None,
        weights: Path | None = None,
        needed: bool = True,
    ) -> None:
        """Make the supernet; writes nothing, except a copy of loaded weights.

        search: the search that the supernet is for; None: no search. weights: file of a trained
        supernet. Raises UserError if the supernet does not fit into the memory, or the weights do
        not fit the supernet.
        """
        self.setup, self.run, self.splits, self.search = setup, run, splits, search
        self.loaded = weights is not None
        self.health: HealthReport | None = None
        self.progress: RankProgress | None = None
        self.training: Training[Supernet] | None = None
        if not needed:
            return
        if setup.health is not None and not self.loaded:
            self.health = HealthReport(setup.health, setup.search_space, splits, run)
        self.training = self._begin(0)
        if weights is not None:
            if search is not None:
                check_may_be_loaded(setup.search_algo)
            run.load_weights(weights, self.training.network)
            # Loaded before the run begins: after that only its own directory is read.
            run.save_weights(SUPERNET, self.training.network)
            self.training.rest()

    @property
    def network(self) -> Supernet | None:
        return self.training.network if self.training is not None else None

    def keep(self) -> None:
        """Keep the state in checkpoints; in a continued run, restore it."""
        if self.health is not None:
            self.run.keep("health", self.health)
        if self.progress is not None:
            self.run.keep("progress", self.progress)
        if self.training is not None and not self.loaded:
            self.run.keep("supernet", self.training)

    def drop(self) -> None:
        """Leave the state out of later checkpoints."""
        self.run.drop("supernet")

    def train(self, round_: Round, *, until: int | None = None) -> None:
        """Train the rest of a round, and save supernet.safetensors.

        until: stop after this epoch of the round; the next call continues. None: at its end.
        """
        training = self.training
        if training is None or self.loaded:
            return
        if round_.fresh_supernet and training.mark == (round_.index, 0) and round_.index > 0:
            self.training = training = self._begin(round_.index)
            self.run.keep("supernet", training)
        show_batch(self.run, "supernet", training)
        last = until or training.settings.epochs
        looks = self.health.settings.epochs(training.settings.epochs) if self.health else []
        if self.progress is not None:
            looks += self.progress.epochs(training.settings.epochs)
        if training.rounds_done <= round_.index:
            gates = self._gates(round_, training)
            for epoch in sorted({*(look for look in looks if look < last), last}):
                name, begun = f"supernet/round{round_.index}", training.rounds_done
                if begun <= round_.index and training.step < epoch * training.steps_per_epoch:
                    training.train_round(self.run, name, gates, epochs=epoch)
                    if training.ended is not None:
                        self.run.screen.progress.end(name)
                if self.health is not None:
                    self.health.measure(training, round_.index, epoch)
                if self.progress is not None:
                    self.progress.measure(training, epoch)
        else:  # the run may have been stopped just before this
            if self.health is not None:
                self.health.measure(training, round_.index, last)
            if self.progress is not None:
                self.progress.measure(training, last)
        training.rest()
        self.run.save_weights(SUPERNET, training.network)
        # An interrupted scoring may leave changed statistics, so the state is saved before.
        self.run.checkpoint()

    def trained_steps(self, round_: Round) -> tuple[GatesOfStep, int, list[float]] | None:
        """Return the gates of each step of a round, the number of steps, and the last losses.

        None if the supernet was loaded. See ``Training.losses``.
        """
        training = self.training
        if training is None or self.loaded:
            return None
        return self._gates(round_, training), training.steps_per_round, list(training.losses)

    def say_health(self) -> None:
        """Show the health report, if there is one."""
        if self.health is not None:
            say_health(self.run, self.health.summary())

    def _gates(self, round_: Round, training: Training[Supernet]) -> GatesOfStep:
        """Return the gates of each step, set by the learner, or by warm-up and sampler."""
        if learner := training.rules.learner:
            return learner.gates
        return self.setup.gates(
            *(self.splits.problem, round_.pool, self.run.streams),
            steps=training.steps,
            steps_per_epoch=training.steps_per_epoch,
        )

    def _begin(self, first_round: int) -> Training[Supernet]:
        """Return the training of a new supernet, from ``first_round`` on."""
        setup, run, splits, search = self.setup, self.run, self.splits, self.search
        trainer, space = setup.trainer, setup.search_space
        setup.check_supernet(splits.problem)
        rounds = setup.search_algo.rounds if search is not None else 1
        images = splits.train if search is None else setup.search_algo.training_images(splits)
        epoch = images.steps_per_epoch(trainer.batch_size)
        steps = rounds * trainer.epochs * epoch
        ghost_batch = learner = None
        if search is None or not setup.search_algo.learns_gates:
            ghost_batch = setup.ghost_batch
        else:
            learner = search.bind_learner(
                GateContext(
                    space,
                    splits.problem,
                    train=images,
                    held_out=splits.validation,
                    batch_size=trainer.batch_size,
                    steps=steps,
                    steps_per_epoch=epoch,
                    compute=run.compute,
                    streams=run.streams.sub("gates"),
                )
            )
        with run.streams.default("supernet/init", first_round):
            supernet = (
                setup.search_algo.supernet(space, splits.problem, auxiliary=trainer.auxiliary)
                if learner is not None
                else space.supernet(splits.problem, auxiliary=trainer.auxiliary)
            )
        rules = setup.path_rules.bind(
            space, splits.problem, run.streams.sub("path_rules"), ghost_batch
        )
        training = trainer.bind(
            supernet,
            images,
            run.compute,
            run.streams.sub("supernet"),
            rounds=rounds,
            first_round=first_round,
            rules=replace(rules, learner=learner, watch=self.health),
        )
        if self.health is not None:  # not before: on its way to a device it may get new weights
            self.health.begin(training.network)
        return training


def check_may_be_loaded(algo: SearchAlgo) -> None:
    """Raise UserError if the algorithm must train its supernet itself."""
    name = type(algo).__name__
    if algo.rounds > 1:
        raise UserError(
            f"search_algo {name} trains its supernet in {algo.rounds} "
            "rounds, so it cannot start from a trained one: leave from= out"
        )
    if algo.learns_gates:
        raise UserError(
            f"search_algo {name} learns its gates while the supernet "
            "trains, so it cannot start from a trained one: leave from= out"
        )
