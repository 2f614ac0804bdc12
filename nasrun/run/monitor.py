"""How long work reports itself: stages with a total, and numbers logged with their steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One stretch of work under way."""

    def advance(self, steps: int = 1, **metrics: float) -> None:
        """``steps`` more are done; ``metrics`` are logged under the stage's name at that step."""


class Monitor(Protocol):
    """Who wants to know how the work goes: the run directory and its progress bars, or nobody."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Stage]:
        """A stage of ``total`` steps, e.g. ``run.stage("supernet/round0", 2000)``."""


class Silent:
    """A monitor and a stage that say nothing: for tests and benchmarks."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Stage]:
        yield self

    def advance(self, steps: int = 1, **metrics: float) -> None:
        pass
