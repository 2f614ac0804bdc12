"""Monitor: the interface through which long work reports, stops and is continued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from nasrun.run.state import Stateful


class Stage(Protocol):
    """A stretch of work under way, such as one round of training."""

    def advance(self, steps: int = 1, **metrics: float) -> None:
        """Count ``steps`` more as done; ``metrics`` are logged under the stage's name."""


class Monitor(Protocol):
    """An object to which long work reports: a run with progress bars, or nobody."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Stage]:
        """Begin a stage of ``total`` steps, e.g. ``run.stage("supernet/round0", 2000)``."""

    def say(self, line: str = "", style: str | None = None) -> None:
        """Show a line on the screen; style: as rich names it, e.g. "yellow"."""

    def keep(self, name: str, stateful: Stateful, label: str = "") -> None:
        """Put the state of ``stateful`` into every checkpoint; a resumed run restores it now.

        name: lower-case letters and underscores.
        label: tells apart objects that have the same name in turn; a state is restored only to an
        object of the same label.
        """

    def drop(self, name: str) -> None:
        """Leave the object ``name`` out of later checkpoints."""

    def spend(self, stage: str, *, steps: int, images: int) -> None:
        """Count training that is part of the result.

        stage: its name. steps: of the weights. images: that passed forward and backward.
        """

    def safe_point(self) -> None:
        """Allow a checkpoint and a stop here, where all tracked states and all logs agree."""

    def poll(self) -> None:
        """Allow a stop here, within work that changes no tracked state."""

    def write_note(self, file: str, content: Mapping[str, Any]) -> str:
        """Write a file that helps to find the cause of an error; returns words with its path."""


class NullMonitor:
    """A monitor, and its stage, that do nothing: for work that no checkpoint may interrupt."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[NullMonitor]:
        yield self

    def advance(self, steps: int = 1, **metrics: float) -> None:
        pass

    def say(self, line: str = "", style: str | None = None) -> None:
        pass

    def keep(self, name: str, stateful: Stateful, label: str = "") -> None:
        pass

    def drop(self, name: str) -> None:
        pass

    def spend(self, stage: str, *, steps: int, images: int) -> None:
        pass

    def safe_point(self) -> None:
        pass

    def poll(self) -> None:
        pass

    def write_note(self, file: str, content: Mapping[str, Any]) -> str:
        return "nothing was written"
