"""The screen: progress bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nasrun.run.stages import PlannedStage

LINE_EVERY_SECONDS = 30
"""Seconds between two lines of a long stage, where there is no terminal."""


def _in_words(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


class ScreenStage:
    """One stage on the screen."""

    def __init__(self, screen: Screen, name: str, total: int) -> None:
        self.screen, self.name, self.total = screen, name, total
        self.done = 0
        self.metrics: dict[str, float] = {}
        self.started = self.printed = time.monotonic()
        self.bar: TaskID | None = None
        if screen.progress is not None:
            self.bar = screen.progress.add_task(name, total=total, metrics="")

    def advance(self, steps: int, metrics: dict[str, float]) -> None:
        self.done += steps
        self.metrics.update(metrics)
        if self.screen.progress is not None and self.bar is not None:
            words = _in_words(self.metrics)
            self.screen.progress.update(self.bar, advance=steps, metrics=words)
        elif time.monotonic() - self.printed > LINE_EVERY_SECONDS:
            self.printed = time.monotonic()
            elapsed = self.printed - self.started
            left = elapsed / max(self.done, 1) * (self.total - self.done)
            self.screen.say(
                f"  {self.name}  {self.done}/{self.total}  {elapsed:.0f} s, about {left:.0f} s "
                f"left  {_in_words(self.metrics)}"
            )

    def end(self) -> None:
        if self.screen.progress is not None and self.bar is not None:
            self.screen.progress.remove_task(self.bar)
        seconds = time.monotonic() - self.started
        self.screen.say(
            f"  {self.name}  {self.done}/{self.total}  {seconds:.1f} s  {_in_words(self.metrics)}"
        )


class Screen:
    """Standard output: messages and progress for the user."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.progress: Progress | None = None

    @property
    def ascii_only(self) -> bool:
        """Whether the screen has no lines and boxes."""
        return self.console.options.ascii_only

    def expect(self, stages: Sequence[PlannedStage]) -> None:
        """Plan the stages that are to come."""

    def say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, markup=False)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[ScreenStage]:
        if not self.console.is_terminal or self.progress is not None:
            stage = ScreenStage(self, name, total)
            yield stage
            stage.end()
            return
        self.progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self.console,
            transient=True,
        )
        try:
            with self.progress:
                stage = ScreenStage(self, name, total)
                yield stage
                stage.end()
        finally:
            self.progress = None
