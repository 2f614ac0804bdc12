"""How long work reports itself and where it may be stopped and continued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from nasrun.run.state import Stateful


class Stage(Protocol):
    """One stretch of work under way."""

    def advance(self, steps: int = 1, **metrics: float) -> None:
        """``steps`` more are done; ``metrics`` are logged under the stage's name at that step."""


class Monitor(Protocol):
    """Who wants to know how the work goes: the run directory and its progress bars, or nobody."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Stage]:
        """A stage of ``total`` steps, e.g. ``run.stage("supernet/round0", 2000)``."""

    def say(self, line: str = "", style: str | None = None) -> None:
        """A line for the person at the screen; style: as rich names it, e.g. "yellow"."""

    def keep(self, name: str, part: Stateful, label: str = "") -> None:
        """From now on ``part`` is in every checkpoint; a resumed run puts it into its old state.

        name: lower-case letters and underscores. label: tells apart parts that have the same name
        in turn; a state is only given to a part of the same label.
        """

    def drop(self, name: str) -> None:
        """The part is no longer needed: later checkpoints do without."""

    def safe_point(self) -> None:
        """All kept parts and all logs agree here: a checkpoint may be written, the run may stop."""

    def poll(self) -> None:
        """Within work that changes nothing kept, however long: the run may stop here."""

    def write_note(self, name: str, content: Mapping[str, Any]) -> str:
        """A file for the person who looks into a fault; returns its path in words."""


class NullMonitor:
    """A monitor and a stage that say nothing and keep nothing: for tests and benchmarks."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[NullMonitor]:
        yield self

    def advance(self, steps: int = 1, **metrics: float) -> None:
        pass

    def say(self, line: str = "", style: str | None = None) -> None:
        pass

    def keep(self, name: str, part: Stateful, label: str = "") -> None:
        pass

    def drop(self, name: str) -> None:
        pass

    def safe_point(self) -> None:
        pass

    def poll(self) -> None:
        pass

    def write_note(self, name: str, content: Mapping[str, Any]) -> str:
        return "nothing was written"
