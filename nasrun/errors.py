"""The exceptions that the command line tells its user about in a line of words."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend: one clear line saying what, where and what to do.

    The command line prints it without a traceback and ends with exit status 2.
    """


class Interrupted(BaseException):
    """A signal has asked the process to stop; no Exception, so that nothing goes on after it.

    saved: the run directory whose state was written before stopping, where there is one.
    """

    def __init__(self, signal: int, saved: str | None = None) -> None:
        super().__init__(signal, saved)
        self.signal = signal
        self.saved = saved
