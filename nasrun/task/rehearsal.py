"""A run that is rehearsed: the same code on the same data, but few steps of each stage.

The task runs as it is, in a directory that is thrown away. What is repetitive is cut short: of a
training some steps are done, of the architectures to be scored some are scored, and the rest counts
as done in the mean time. So every method is planned by what it does, plug-ins too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any, cast

from torch import Tensor

from nasrun.dataset.base import Splits
from nasrun.run.memory import PeakMemory
from nasrun.run.monitor import Monitor
from nasrun.run.run import Run
from nasrun.run.screen import Screen, ScreenStage
from nasrun.search_space.gates import Gates, GatesOfStep
from nasrun.streams import Streams
from nasrun.task.setup import Setup
from nasrun.trainer.trainer import Trainer
from nasrun.trainer.training import NetworkT, Training
from nasrun.values import Architecture, Trial

UNTIMED, LEAST, MOST = 1, 3, 100
"""Steps before those that are timed, and bounds of the number of timed ones."""

MIN_SECONDS = 1.0
"""Time after which no more steps of a stage are timed."""

MODEL_ERROR = 0.15
"""Error of what is not timed, as a share: later steps differ from the first ones."""

BYTES_OF_MOMENTUM = 4
"""For each weight: its momentum, which it has once its option has been trained."""


@dataclass
class TimedStage:
    """The cost of a stage of the run itself.

    steps: of the stage. seconds: of it, and until the next stage begins; variance: of them, from
    the spread of the timed steps; guessed: those seconds that were not measured.
    memory, disk: bytes at its peak, and of the files that it leaves.
    """

    name: str
    steps: int
    seconds: float = 0.0
    variance: float = 0.0
    guessed: float = 0.0
    memory: int = 0
    disk: int = 0


class Samples:
    """Times of steps, until there are enough to tell what another step takes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.untimed = UNTIMED

    def add(self, seconds: float) -> None:
        if self.untimed:
            self.untimed -= 1
        else:
            self.seconds.append(seconds)

    @property
    def enough(self) -> bool:
        count = len(self.seconds)
        return count >= MOST or (count >= LEAST and sum(self.seconds) >= MIN_SECONDS)

    def of(self, steps: int) -> tuple[float, float]:
        """Return the seconds of so many further steps, and the variance of that estimate."""
        spread = stdev(self.seconds) if len(self.seconds) > 1 else self.seconds[0]
        return steps * fmean(self.seconds), (steps * spread) ** 2 / len(self.seconds)


class Rehearsal(Run):
    """A run whose time is measured, and lengthened by what is left out."""

    def __init__(
        self,
        directory: Path,
        *,
        factors: Mapping[str, float],
        looks: Mapping[str, int] = MappingProxyType({}),
        clock: Callable[[], float] = time.perf_counter,
        tell: Callable[[str], object] = lambda _: None,
        **settings: Any,
    ) -> None:
        """Make the rehearsal.

        factors: by how much stages are longer in the run itself, by the first word of their names.
        looks: how often the run looks at the stages of a kind (see ``looks_of``). clock: seconds.
        tell: is told the name of each stage when it begins. settings: see ``Run``.
        """
        super().__init__(directory, **settings)
        self.factors, self.looks, self.clock, self.tell = factors, looks, clock, tell
        self.screen = WatchedScreen(self)
        self.stages: list[TimedStage] = [TimedStage("loading", 0)]
        self.scored: dict[str, Samples] = {}
        self.peak = PeakMemory(self.compute.device)
        self.depth = 0
        self.left_out = 0.0
        self._began = self._since = self.now()

    def now(self) -> float:
        """Return the seconds of a clock that what is left out has moved on."""
        return self.clock() + self.left_out

    def skip(self, seconds: float, variance: float = 0.0) -> None:
        """Count seconds of the run itself that the rehearsal leaves out."""
        self.left_out += seconds
        self.stages[-1].guessed += seconds
        self.stages[-1].variance += variance

    def begin_stage(self, name: str, steps: int) -> None:
        """Begin a stage, unless it is a part of another."""
        self.depth += 1
        if self.depth > 1:
            return
        if self.stages[-1].name == name:  # it goes on after a look, of which there are more
            looks = self.looks.get(name.partition("/")[0], 2)
            self.skip((looks - 2) * (self.now() - self._ended))
        self._close()
        known = next((stage for stage in self.stages if stage.name == name), None)
        if known is not None:
            self.stages.remove(known)
        self.stages.append(known or TimedStage(name, steps))
        self.tell(name)

    def end_stage(self) -> None:
        """End a stage; what comes until the next begins belongs to it as well."""
        self.depth -= 1
        if self.depth:
            return
        name = self.stages[-1].name
        kind = name.partition("/")[0]
        if (factor := self.factors.get(kind, 1.0)) > 1:
            self.skip((factor - 1) * (self.now() - self._since))
            self.stages[-1].steps = round(self.stages[-1].steps * factor)
        self._ended = self.now()

    _ended = 0.0

    def _close(self) -> None:
        """Account for what has happened since the last stage began."""
        stage = self.stages[-1]
        stage.seconds += self.now() - self._since
        stage.memory = max(stage.memory, self.peak.take())
        self._since = self.now()
        files = [path for path in self.directory.rglob("*") if path.is_file()]
        stage.disk += sum(path.stat().st_size for path in files) - self.disk
        self.disk = sum(path.stat().st_size for path in files)

    disk = 0

    def done(self) -> list[TimedStage]:
        """Return the stages of the run, in order; the rehearsal is over."""
        self._close()
        return self.stages

    def measured(
        self, trials: Iterator[Trial], architectures: Sequence[Architecture]
    ) -> Iterator[Trial]:
        """Yield the first trials of a stage as they are, and the others with made-up scores."""
        stage = self.stages[-1].name
        samples = self.scored.setdefault(stage, Samples())
        rng, last = Streams(0).numpy(f"rehearsal/{stage}"), None
        for architecture in architectures:
            if last is None or not samples.enough:
                began = self.now()
                last = next(trials)
                samples.add(self.now() - began)
                yield last
            else:
                self.skip(*samples.of(1))
                yield replace(last, architecture=architecture, score=float(rng.random()))


class WatchedScreen(Screen):
    """A screen that shows nothing, and tells a rehearsal of the stages."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()
        self.console.quiet = True
        self.rehearsal = rehearsal

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[ScreenStage]:
        self.rehearsal.begin_stage(name, total)
        try:
            yield _Counted(name, total)
        finally:
            self.rehearsal.end_stage()


class _Counted(ScreenStage):
    """A stage that is only counted."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0

    def advance(self, steps: int, metrics: dict[str, float]) -> None:
        self.done += steps


class _Enough(Exception):  # noqa: N818
    """Raised within a step of a training that has been timed for long enough."""


class RehearsedTraining(Training[NetworkT]):
    """A training that ends each round after a few steps, as far as a rehearsal watches it."""

    _samples: Samples | None = None
    _rehearsal: Rehearsal | None = None
    _began = 0.0

    def train_round(
        self,
        monitor: Monitor,
        name: str,
        gates: GatesOfStep | None = None,
        *,
        epochs: int | None = None,
    ) -> None:
        watching = monitor if isinstance(monitor, Rehearsal) else getattr(monitor, "run", None)
        self._rehearsal = watching if isinstance(watching, Rehearsal) else None
        if self._rehearsal is None:
            super().train_round(monitor, name, gates, epochs=epochs)
            return
        last = self.steps_per_round if epochs is None else epochs * self.steps_per_epoch
        if self._samples is None or self.step == 0:
            self._samples = Samples()
        with monitor.stage(name, self.steps_per_round):
            if not self._samples.enough:
                self._synchronised()
                try:  # a step of the last is left for the end, so that no round ends by itself
                    part = Fraction(max(last - 1, self.step), self.steps_per_epoch)
                    super().train_round(monitor, name, gates, epochs=cast(int, part))
                except _Enough:
                    self.step += 1
            if self._samples.seconds:
                self._rehearsal.skip(*self._samples.of(last - self.step))
            self._measured = []
            self.step = last
            if self.step == self.steps_per_round:
                self.rounds_done, self.step = self.rounds_done + 1, 0
            self.rest()
            idle = sum(
                p.numel() for p in self.network.parameters() if not self.updates.has_trained(p)
            )
            self._rehearsal.peak.expect(BYTES_OF_MOMENTUM * idle)

    def update(self, measured: Tensor, gates: list[Gates] | None) -> Tensor:
        done = super().update(measured, gates)
        if self._samples is not None and self._rehearsal is not None:
            before = self._began
            self._synchronised()
            self._samples.add(self._began - before)
            if self._samples.enough:
                raise _Enough
        return done

    def _synchronised(self) -> None:
        """Remember the time at which the device has done what it was told."""
        assert self._rehearsal is not None  # see the callers  # noqa: S101
        self.compute.wait()
        self._began = self._rehearsal.now()


class RehearsedTrainer(Trainer):
    """The settings of a training of which a rehearsal does a few steps."""

    training_type = RehearsedTraining


class RehearsedSetup(Setup):
    """A setup whose test images are not read: the validation images stand for them."""

    def load(self, run: Run) -> Splits:
        splits = super().load(run)
        return replace(splits, test=lambda: splits.validation)


def total_of(stages: Sequence[TimedStage]) -> tuple[float, float]:
    """Return the seconds of a whole run, and the half width of their interval at about 95 %."""
    seconds = sum(stage.seconds for stage in stages)
    guessed = sum(stage.guessed for stage in stages)
    variance = sum(stage.variance for stage in stages)
    return seconds, ((2 * variance**0.5) ** 2 + (MODEL_ERROR * guessed) ** 2) ** 0.5
