"""Subjects of the laws of search algorithms: searches, their scores, their records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from nasrun.budget.candidates import Bounds, Candidates
from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.run.compute import Compute
from nasrun.run.monitor import NullMonitor
from nasrun.run.state import State, decode_tensors, encode_tensors, pack, unpack
from nasrun.search_algo.base import Round, Search, SearchAlgo
from nasrun.search_space.base import Network, Scale, SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateContext
from nasrun.trainer.schedule import Schedule
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.trainer import Trainer
from nasrun.trainer.training import Training
from nasrun.values import Architecture, Cost, Decision, Problem, Trial

CPU = Compute(torch.device("cpu"), bf16=False, channels_last=False)

MAX_ASKS = 10_000
"""Calls of ``ask`` in a round after which a search counts as one that never ends."""

TRAINER = Trainer(
    epochs=2,
    batch_size=8,
    schedule=Schedule(
        kind="cosine",
        lr=0.1,
        lr_end=0.0,
        spans="round",
        cycle_epochs=0,
        cycle_factor=2,
        power=1.0,
        decay=1.0,
        warmup_epochs=0,
    ),
    momentum=0.9,
    nesterov=False,
    weight_decay=0.0,
    decay_norm_and_bias=False,
    clip=5.0,
    label_smoothing=0.0,
    dropout_keep=1.0,
    drop_path_keep=1.0,
    auxiliary_weight=0.0,
    cutout=0,
    log_every=2,
)
"""The training in which gates are learned, unless another one is given."""

Score = Callable[[Architecture], float]


class Snapshots(NullMonitor):
    """A monitor that calls ``take`` wherever a run may write a checkpoint."""

    def __init__(self, take: Callable[[], None]) -> None:
        self.take = take

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Snapshots]:
        yield self

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.take()

    def safe_point(self) -> None:
        self.take()


@dataclass
class Record:
    """A search from where it was taken up to its end.

    rounds: as they began; asked: the architectures of each; told: all trials, in order.
    """

    search: Search
    rounds: list[Round] = field(default_factory=list)
    asked: list[list[Architecture]] = field(default_factory=list)
    told: list[Trial] = field(default_factory=list)

    @property
    def outcome(self) -> tuple[Any, ...]:
        """The best trials, the front, and the state as it is written."""
        count = len(self.told) + 1
        return self.search.best(count), self.search.front(), written(self.search.state_dict())


def written(state: State) -> tuple[str, bytes]:
    """A state as a checkpoint holds it: JSON, and the bytes of the tensors."""
    tree, tensors = pack(state)
    return json.dumps(tree), encode_tensors(tensors)


def stored(state: State) -> State:
    """A state after it was written and read."""
    tree, tensors = written(state)
    loaded: State = unpack(json.loads(tree), decode_tensors(tensors))
    return loaded


def same(one: State, other: State) -> bool:
    """Whether two states are equal, bit by bit."""
    return written(one) == written(other)


@dataclass(frozen=True)
class AlgoCase:
    """A search algorithm in a space. trainer: of the supernet in which gates are learned."""

    algo: SearchAlgo
    space: SearchSpace
    splits: Splits
    trainer: Trainer
    seed: int

    def score(self, architecture: Architecture) -> float:
        """A made-up score in [0, 1), the same for all that stand for one network."""
        form = self.space.canonical(architecture)
        return Streams(self.seed).key("score", *form.choices) / 2**63

    def measure(self, name: str) -> Callable[[Architecture], float]:
        """The measure of a size of the final network, as a budget takes it."""
        return self.space.sizer(name, self.splits.problem, "final")  # type: ignore[arg-type]

    def candidates(self) -> Candidates:
        """The whole space."""
        return Candidates(self.space, measure_of=self.measure)

    def within_budget(self) -> Candidates:
        """The tenth of the space with the fewest parameters, or more where that cannot be met."""
        measure, streams = self.measure("params"), Streams(self.seed, "testing/budget/")
        sizes = sorted(measure(self.space.sample(streams.numpy("sample", i))) for i in range(60))
        for high in (sizes[6], sizes[20], sizes[40]):
            with suppress(UserError):
                bounds = [Bounds("params", 0, high)]
                return Candidates(self.space, bounds, {"params": measure}, self.measure)
        return Candidates(self.space, [Bounds("params", 0, sizes[-1])], {"params": measure})

    def bind(self, candidates: Candidates | None = None, seed: int = 0) -> Search:
        """A search that has not begun; its gates, where it learns any, are as they begin."""
        streams = Streams(self.seed + seed, "testing/")
        search = self.algo.bind(candidates or self.candidates(), streams, CPU.device)
        if self.algo.learns_gates:
            search.bind_learner(self.context(search.space, streams))
        return search

    def search(self, candidates: Candidates | None = None, seed: int = 0) -> Search:
        """A search that is ready to ask; its gates, where it learns any, were trained."""
        search = self.bind(candidates, seed)
        if self.algo.learns_gates:
            search.load_state_dict(self.trained[1])
        return search

    def context(self, space: SearchSpace, streams: Streams) -> GateContext:
        """The context of gates that are learned with ``trainer``."""
        splits, size = self.splits, self.trainer.batch_size
        images = self.algo.training_images(splits)
        epoch = images.steps_per_epoch(size)
        return GateContext(
            space=space,
            problem=splits.problem,
            train=images,
            held_out=splits.validation,
            batch_size=size,
            steps=self.trainer.epochs * epoch,
            steps_per_epoch=epoch,
            compute=CPU,
            streams=streams.sub("gates"),
        )

    def training(self, seed: int = 0) -> tuple[Search, Training[Supernet]]:
        """A search and the training in which its gates learn; seed: that of the search alone."""
        search = self.algo.bind(self.candidates(), Streams(self.seed, "testing/"), CPU.device)
        streams = Streams(self.seed + seed, "testing/")
        learner = search.bind_learner(self.context(self.space, streams))
        problem, own = self.splits.problem, Streams(self.seed, "testing/")
        with own.default("supernet"):
            supernet = self.algo.supernet(self.space, problem, auxiliary=self.trainer.auxiliary)
        rules = replace(StepRules(), learner=learner)
        images = self.algo.training_images(self.splits)
        return search, self.trainer.bind(supernet, images, CPU, own, rules=rules)

    @cached_property
    def trained(self) -> tuple[list[tuple[State, State]], State, Training[Supernet]]:
        """The training of the gates.

        Returns the states of search and training before each step and after the last, the search's
        state in the end, and the training.
        """
        search, training = self.training()
        states: list[tuple[State, State]] = []

        def take() -> None:
            states.append((stored(search.state_dict()), stored(training.state_dict())))

        take()
        learn(training, SafePoints(take))
        return states, stored(search.state_dict()), training

    @cached_property
    def record(self) -> Record:
        """A search from its beginning to its end."""
        return self.drive(self.search())

    def drive(
        self,
        search: Search,
        score: Score | None = None,
        *,
        single: bool = False,
        take: Callable[[], None] = lambda: None,
    ) -> Record:
        """Search to the end.

        single: scores are told one by one. take: is called wherever a run may write a checkpoint.
        Raises AssertionError where there is no end.
        """
        found, score = Record(search), score or self.score
        take()
        while round_ := search.next_round(Snapshots(take)):
            found.rounds.append(round_)
            found.asked.append([])
            take()
            while architectures := search.ask():
                found.asked[-1] += architectures
                trials = [Trial(one, score(one), Cost(1, 1), round_.index) for one in architectures]
                for some in [[trial] for trial in trials] if single else [trials]:
                    search.tell(some)
                    found.told += some
                    take()
                if len(found.asked[-1]) > MAX_ASKS:
                    raise AssertionError(f"a round asks for over {MAX_ASKS} architectures")
            if len(found.rounds) > self.algo.rounds:
                raise AssertionError(f"more rounds than {self.algo.rounds}")
        return found


class SafePoints(Snapshots):
    """A monitor that calls ``take`` at the safe points of a training alone."""

    def advance(self, steps: int = 1, **metrics: float) -> None:
        pass


def learn(training: Training[Supernet], monitor: NullMonitor, epochs: int | None = None) -> None:
    """Train a supernet by the gates of its learner; epochs: up to there, None: to the end."""
    learner = training.rules.learner
    assert learner is not None  # noqa: S101
    training.train_round(monitor, "supernet", learner.gates, epochs=epochs)


class Tiny(SearchSpace):
    """Two decisions of two options; their order does not matter, so there are three networks."""

    name = "tiny"
    gate_kinds = frozenset({"path"})
    decisions = (Decision("first/op", ("a", "b")), Decision("second/op", ("a", "b")))

    def canonical(self, architecture: Architecture) -> Architecture:
        return Architecture(self.name, tuple(sorted(architecture.choices)))

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        size = 1 + sum(architecture.choices)
        return Cost(size, size)

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        return Cost(3, 3)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> Supernet:
        raise NotImplementedError("no law trains this space")

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> Network:
        raise NotImplementedError("no law trains this space")
