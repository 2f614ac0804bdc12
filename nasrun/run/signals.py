"""Signals to stop: SIGTERM (pre-emption), SIGINT (Ctrl-C), SIGHUP (terminal gone)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nasrun.errors import Interrupted

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
"""Signals to stop; Windows has no SIGHUP."""


class StopRequest:
    """A request to stop the process, made by a signal.

    While ``deferred`` the first signal is only noted, and the run stops at its next safe point; a
    second one, or a signal at any other time, stops at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.deferred = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: note it, or raise Interrupted."""
        again = self.signal is not None
        self.signal = signal.Signals(number)
        if again or not self.deferred:
            raise Interrupted(number)


stop = StopRequest()
"""The only request to stop: signals belong to the whole process."""


@contextmanager
def noted() -> Iterator[StopRequest]:
    """Send signals to ``stop`` inside; signals that the parent ignored (nohup) stay ignored."""
    stop.signal, stop.deferred = None, False
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {
        number: signal.signal(number, stop.receive)
        for number in SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
