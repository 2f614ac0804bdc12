"""Signals to stop: SIGTERM (pre-emption), SIGINT (Ctrl-C), SIGHUP (terminal gone).

And those by which the launcher of a sweep is told to queue its job again (SIGUSR1, SIGUSR2).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from nasrun.errors import Interrupted

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
"""Signals to stop; Windows has no SIGHUP."""

REQUEUE = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Signals that a launcher may handle by queueing its job again; submitit takes one of them."""


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
    with _sent_to_stop(number for number in SIGNALS if _handler(number) != signal.SIG_IGN):
        yield stop


@contextmanager
def noted_in_job() -> Iterator[None]:
    """Send signals to ``stop`` inside a job that a launcher runs in a process of its own.

    What the launcher handles stays its own, but of a signal to queue the job again it hears only
    when the run has written its checkpoint.
    """
    if stop.receive in map(_handler, SIGNALS):  # a job in the process of the command line
        yield
        return
    launcher = {number: _handler(number) for number in REQUEUE if callable(_handler(number))}
    free = (signal.SIG_DFL, signal.default_int_handler)
    own = [number for number in SIGNALS if _handler(number) in free]
    try:
        with _sent_to_stop([*own, *launcher]):
            yield
    except Interrupted as error:
        if callable(requeue := launcher.get(signal.Signals(error.signal))):
            requeue(error.signal, None)  # ends this process
        raise


def _handler(number: int) -> Any:
    return signal.getsignal(number)


@contextmanager
def _sent_to_stop(numbers: Iterable[int]) -> Iterator[None]:
    """Have ``stop`` receive these signals inside, as only the main thread can."""
    stop.signal, stop.deferred = None, False
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop.receive) for number in list(numbers)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
