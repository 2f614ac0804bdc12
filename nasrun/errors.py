"""The exceptions that the command line tells in a line of words, and help for such words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake that the user can mend: one clear line saying what, where and what to do.

    The command line prints it without a traceback and ends with exit status 2.
    """


class MissingCapabilityError(UserError):
    """An option lacks what another one needs; the command line adds which options have it.

    message: what lacks what; ": take search_space=a or b" follows it, or " take ..." after "or".
    group: of the option, e.g. ``search_space``.
    has: whether a class of that group has it.
    """

    def __init__(self, message: str, *, group: str, has: Callable[[type], bool]) -> None:
        super().__init__(message)
        self.group = group
        self.has = has


class Interrupted(BaseException):
    """A signal has asked the process to stop; no Exception, so that nothing goes on after it.

    saved: the run directory whose state was written before stopping, where there is one.
    """

    def __init__(self, signal: int, saved: str | None = None) -> None:
        super().__init__(signal, saved)
        self.signal = signal
        self.saved = saved


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'uniform'?)``, or nothing where nothing comes near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shortened(text: str, limit: int = 200) -> str:
    """``text``, without its middle where it is long: messages repeat what was typed."""
    rest = limit // 4
    return text if len(text) <= limit else f"{text[: limit - rest]} ... {text[-rest:]}"
