"""The progress of a run, and the time it still takes, by its plan and by what was measured.

No clock is read here: every method that needs the time is told it, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nasrun.run.stages import PlannedStage, in_order, likeness

MIN_SECONDS = 2.0
"""Seconds of work before a time left is told; the first steps are slower than others."""


class StageClock:
    """The steps of one stage and the time they take in this process.

    done: steps done. before: those of an earlier process, which took no time here. within: share of
    the step under way that a stage within it has done.
    """

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.done = self.before = 0
        self.within = 0.0
        self._seconds = 0.0  # of all times that it ran before this one
        self._since: float | None = None
        self._reached = 0.0  # seconds at the last step that was counted
        self._told = False

    def start(self, now: float) -> None:
        """Let the clock run, if it does not."""
        if self._since is None:
            self._since = now

    def stop(self, now: float) -> None:
        """Stop the clock: another stage has begun."""
        self._seconds, self._since = self.seconds(now), None

    def seconds(self, now: float) -> float:
        """Return the seconds that the stage has taken here."""
        return self._seconds + (0.0 if self._since is None else now - self._since)

    def tell_before(self, done: int, now: float) -> None:
        """Take ``done`` steps as those of an earlier process, unless some were counted here."""
        if not self._told:
            self.done = self.before = done
            self._seconds, self._told = 0.0, True
            self._since = now

    def reach(self, done: int, now: float) -> None:
        """Count the steps up to ``done``."""
        if done > self.done:
            self.done, self.within = done, 0.0
            self._reached = self.seconds(now)
        self._told = True

    def reach_within(self, share: float, now: float) -> None:
        """Count a share of the step under way."""
        self.within = min(max(share, 0.0), 1.0)
        self._reached = self.seconds(now)

    @property
    def position(self) -> float:
        """The steps that are done, with a share of the one under way."""
        return min(self.done + self.within, float(max(self.total, self.done)))

    @property
    def rate(self) -> float | None:
        """Seconds of a step; None: none was measured here."""
        steps = self.position - self.before
        return self._reached / steps if steps > 0 and self._reached > 0 else None

    def left(self, now: float) -> float | None:
        """Return the seconds that the stage still takes; None: unknown."""
        rate = self.rate
        if rate is None:
            return 0.0 if self.done >= self.total else None
        ahead = (self.total - self.position) * rate
        return max(ahead - (self.seconds(now) - self._reached), 0.0)

    def shown(self, now: float) -> float:
        """Return the share of the stage for a bar, which moves also while a step takes long."""
        if not self.total:
            return 1.0
        rate = self.rate
        under_way = min((self.seconds(now) - self._reached) / rate, 0.9) if rate else 0.0
        return min(self.position + under_way, float(self.total)) / self.total


@dataclass(frozen=True)
class TimeLeft:
    """The seconds that a run still takes; about: whether a stage is guessed that never ran."""

    seconds: float
    about: bool


class Progress:
    """The planned stages of a run and the clocks of those that have begun in this process."""

    def __init__(self) -> None:
        self.planned: dict[str, PlannedStage] = {}
        self.clocks: dict[str, StageClock] = {}
        self.current: StageClock | None = None

    def expect(self, stages: Sequence[PlannedStage]) -> None:
        """Plan the stages that are to come, in order."""
        self.planned = in_order(stages)

    def begin(self, name: str, total: int, now: float) -> StageClock:
        """Return the running clock of a stage, which may have begun before.

        The clock of the stage before has run up to now: work between two stages belongs to it.
        """
        if self.current is not None and self.current.name != name:
            self.current.stop(now)
        clock = self.clocks.setdefault(name, StageClock(name, total))
        clock.total = total
        clock.start(now)
        self.current = clock
        return clock

    def end(self, name: str) -> None:
        """Count a stage as ended, whatever is left of it."""
        if name in self.clocks:
            self.clocks[name].total = self.clocks[name].done

    def time_left(self, now: float) -> TimeLeft | None:
        """Estimate the time until the last planned stage ends; None: nothing is known yet."""
        if self.current is None or self.spent(now) < MIN_SECONDS:
            return None
        found = self.current.left(now)
        if found is None:
            return None
        about = False
        for stage, steps in self._ahead():
            rate, measured = self._rate(stage)
            about |= not measured
            found += steps * rate
        return TimeLeft(found, about)

    def share(self, now: float) -> float | None:
        """Return the share of the whole run that is done, by time; None: nothing is known yet."""
        left = self.time_left(now)
        if left is None:
            return None
        earlier = sum(steps * self._rate(stage)[0] for stage, steps in self._done_before())
        spent = self.spent(now) + earlier
        return spent / (spent + left.seconds)

    def spent(self, now: float) -> float:
        """Return the seconds of all stages in this process."""
        return sum(clock.seconds(now) for clock in list(self.clocks.values()))

    def _ahead(self) -> Iterator[tuple[PlannedStage, int]]:
        """Yield the stages after the furthest that has begun, and trainings that pause."""
        names = list(self.planned)
        furthest = max((i for i, name in enumerate(names) if name in self.clocks), default=-1)
        for index, stage in enumerate(list(self.planned.values())):
            clock = self.clocks.get(stage.name)
            if clock is None and index > furthest:
                yield stage, stage.steps
            elif clock is not None and clock is not self.current and stage.unit == "steps":
                yield stage, max(clock.total - clock.done, 0)

    def _done_before(self) -> Iterator[tuple[PlannedStage, int]]:
        """Yield what an earlier process has done of each stage."""
        names = list(self.planned)
        furthest = max((i for i, name in enumerate(names) if name in self.clocks), default=-1)
        for index, stage in enumerate(list(self.planned.values())):
            clock = self.clocks.get(stage.name)
            if clock is not None:
                yield stage, clock.before
            elif index < furthest:
                yield stage, stage.steps

    def _rate(self, stage: PlannedStage) -> tuple[float, bool]:
        """Return the seconds of a step, and whether they were measured in a stage of its kind.

        If not, they follow from the multiply-adds; 0: unknown.
        """
        measured = [
            (other, rate)
            for name, clock in list(self.clocks.items())
            if (other := self.planned.get(name)) is not None and (rate := clock.rate) is not None
        ]
        alike = [
            (likeness(other.name, stage.name), other, rate)
            for other, rate in measured
            if other.unit == stage.unit and likeness(other.name, stage.name)
        ]
        if alike:
            most = max(count for count, _, _ in alike)
            _, other, rate = [found for found in alike if found[0] == most][-1]
            return rate * (stage.work / other.work if stage.work and other.work else 1.0), True
        known = [(other, rate) for other, rate in measured if other.work]
        if not stage.work or not known:
            return 0.0, not stage.steps
        steps = {other.name: max(self.clocks[other.name].position, 1.0) for other, _ in known}
        seconds = sum(rate * steps[other.name] for other, rate in known)
        work = sum(other.work * steps[other.name] for other, _ in known)
        return stage.work * seconds / work, False
