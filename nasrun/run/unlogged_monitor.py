"""A monitor for work that is shown to the user, but whose metrics are not logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nasrun.run.monitor import Stage
from nasrun.run.run import Run
from nasrun.run.screen import ScreenStage
from nasrun.run.state import Stateful


class UnloggedMonitor:
    """The monitor of a run whose stages are shown on the screen but write no metrics.

    It suits work whose results are kept for other runs: only the first run does the work, so lines
    of metrics would depend on which run came first.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Stage]:
        with self.run.screen.stage(name, total) as shown:
            yield UnloggedStage(shown)

    def say(self, line: str = "", style: str | None = None) -> None:
        self.run.say(line, style)

    def keep(self, name: str, stateful: Stateful, label: str = "") -> None:
        self.run.keep(name, stateful, label)

    def drop(self, name: str) -> None:
        self.run.drop(name)

    def spend(self, stage: str, *, steps: int, images: int) -> None:
        pass  # which run does the work must not decide what the others cost

    def safe_point(self) -> None:
        self.run.safe_point()

    def poll(self) -> None:
        self.run.poll()

    def write_note(self, file: str, content: Mapping[str, Any]) -> str:
        return self.run.write_note(file, content)


class UnloggedStage:
    """A stage on the screen only."""

    def __init__(self, stage: ScreenStage) -> None:
        self.stage = stage

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.stage.advance(steps, metrics)
