"""The time that a part of a run's work takes, over all processes that worked on it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Measures the seconds of computing between its starts and stops.

    On the CPU these are seconds of cores, all threads of this process together, so that other
    programs do not lengthen them. On another device they are seconds of the clock: what is measured
    must end with a result that is read from the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._now = time.process_time if device.type == "cpu" else time.monotonic
        self.before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        return self.before + self.now

    @property
    def now(self) -> float:
        """The seconds since the last start; ``before``: those before it."""
        return 0.0 if self._started is None else self._now() - self._started

    def start(self) -> None:
        """Count from now on."""
        self._started = self._now()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time that is spent inside."""
        self.start()
        try:
            yield
        finally:
            self.before, self._started = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the seconds; raises ValueError if they are no time."""
        seconds = float(state["seconds"])
        if not 0 <= seconds < math.inf:
            raise ValueError(f"{seconds} seconds")
        self.before = seconds
