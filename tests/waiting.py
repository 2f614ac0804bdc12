"""nasrun's recipes on the stand-in accelerator, and how often each waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

from stand_in import Ledger, device_compute

from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.config.groups import task_of_recipe
from nasrun.config.prune import leave_out
from nasrun.evaluator.base import choices_of
from nasrun.evaluator.batch_norm import estimate_statistics
from nasrun.run.monitor import NullMonitor
from nasrun.run.run import Run
from nasrun.run.screen import Screen
from nasrun.streams import Streams
from nasrun.task.supernet_stage import WHOLE_SPACE, SupernetStage


class Enough(Exception):  # noqa: N818
    """So many steps have been trained."""


class Watch(NullMonitor):
    """Notes how often each step, each line of metrics and each trial has waited for the device."""

    def __init__(self, ledger: Ledger, steps: int) -> None:
        self.ledger, self.left, self.mark = ledger, steps, ledger.waited
        self.steps: list[int] = []
        self.lines: list[int] = []

    def since(self) -> int:
        """Return the waits since the last call."""
        before, self.mark = self.mark, self.ledger.waited
        return self.mark - before

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Watch]:
        self.since()
        yield self

    def advance(self, steps: int = 1, **metrics: float) -> None:
        if steps:
            self.steps.append(self.since())
        if metrics:
            self.lines.append(self.since())

    def safe_point(self) -> None:
        self.left -= 1
        if not self.left:
            raise Enough


@dataclass
class Waits:
    """How often the host waits for the device at most, and where it did in all.

    step, line, trial: in a training step of the supernet, for a line of metrics, for a scored path.
    retrained: in a training step of a network, or a batch of its last statistics.
    where: by line of nasrun.
    """

    step: int
    line: int
    trial: int
    retrained: int
    where: dict[str, int]


def waits_of(recipe: str, ledger: Ledger, steps: int, *words: str) -> Waits:
    """Train a recipe's supernet and a network for so many steps each, and score two paths.

    The state of the training and of its learner is taken and put back in between.
    """
    task = task_of_recipe(recipe)
    line = [f"experiment={recipe}", f"task={task}", "effort=smoke", "health=none", *words]
    config = compose([*line, "trainer.log_every=2", "retrain.trainer.log_every=2"])
    leave_out(config, line)
    setup = build_setup(config)
    compute, streams = device_compute(setup.on_nonfinite), Streams(0)
    space = setup.search_space
    splits = setup.dataset.load(streams.sub("dataset"), compute.device)
    problem = splits.problem
    pair = [space.sample(streams.numpy("pair", index)) for index in range(2)]
    trained, scored, retrained = (Watch(ledger, steps) for _ in range(3))
    trials: list[int] = []
    if setup.evaluator.needs_supernet:
        run = cast(Run, SimpleNamespace(compute=compute, streams=streams))
        search = None
        if task == "search":
            setup.check_algo()
            screen = Screen()
            screen.console.quiet = True
            latencies = setup.budget.latency.bind(space, problem, compute, screen)
            candidates = setup.budget.bind(space, problem, latencies, screen)
            search = setup.search_algo.bind(candidates, streams, compute.device)
        stage = SupernetStage(setup, run, splits, search=search)
        training = stage.training
        assert training is not None
        round_ = WHOLE_SPACE if search is None else search.next_round(trained)
        assert round_ is not None
        with suppress(Enough):
            training.train_round(trained, "supernet", stage._gates(round_, training))
        training.rest()
        for part in (training, *([search] if search else [])):
            part.load_state_dict(part.state_dict())
        scorer = setup.evaluator.bind(space, splits, compute, streams)
        gates_of = search.gates if search else choices_of
        scored.since()
        paths = scorer.score(pair, stage.network, scored, gates_of)
        trials += [scored.since() for _ in paths]
    trainer = setup.retrain.trainer
    network = space.network(pair[0], problem, "final", auxiliary=trainer.auxiliary)
    retraining = trainer.bind(network, splits.train, compute, streams)
    with suppress(Enough):
        retraining.train_round(retrained, "retrain")
    estimate_statistics(network, splits.validation.eval_batches(8, 16), compute, retrained)
    return Waits(
        step=max(trained.steps, default=0),
        line=max(trained.lines, default=0),
        trial=max(trials, default=0),
        retrained=max(retrained.steps),
        where=dict(ledger.waits.most_common(20)),
    )
