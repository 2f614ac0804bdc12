"""Exceptions that the command line shows as one line, and helpers for such messages."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake that the user can correct: one clear line says what, where and what to do.

    The command line prints it without a traceback and ends with exit status 2.
    """


class MissingCapabilityError(UserError):
    """An option lacks what another one needs; the command line adds which options have it.

    message: says which option lacks what. ": take search_space=a or b" is added to it, or only
    " take ..." if the message ends with "or".
    group: of the option, e.g. ``search_space``.
    has: tells whether a class of that group has the capability.
    """

    def __init__(self, message: str, *, group: str, has: Callable[[type], bool]) -> None:
        super().__init__(message)
        self.group = group
        self.has = has


class SeveralMistakesError(UserError):
    """Several mistakes that do not depend on each other; the command line shows a line for each."""

    def __init__(self, errors: Iterable[UserError]) -> None:
        self.errors: list[UserError] = []
        for error in errors:
            inner = error.errors if isinstance(error, SeveralMistakesError) else [error]
            known = {str(each) for each in self.errors}
            self.errors += [each for each in inner if str(each) not in known]
        super().__init__("; ".join(map(str, self.errors)))


class Mistakes:
    """Collects the mistakes of ``with`` blocks, which are reported together.

    A block ends at its first mistake; what follows it goes on.
    """

    def __init__(self) -> None:
        self.errors: list[UserError] = []

    def __enter__(self) -> Mistakes:
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        if not isinstance(error, UserError):
            return False
        self.errors.append(error)
        return True

    def report(self) -> None:
        """Raise the mistake that was collected, or all of them as one error, if there are any."""
        if len(found := SeveralMistakesError(self.errors).errors) == 1:
            raise found[0]
        if found:
            raise SeveralMistakesError(found)


class Interrupted(BaseException):
    """A signal has asked the process to stop. No ``Exception``, so no handler goes on after it.

    saved: the run directory whose state was written before the stop, if there is one.
    """

    def __init__(self, signal: int, saved: str | None = None) -> None:
        super().__init__(signal, saved)
        self.signal = signal
        self.saved = saved


def is_panic(error: BaseException) -> bool:
    """Tell whether an error is a panic of Rust code, which is no ``Exception`` of Python."""
    return type(error).__name__ == "PanicException"


def nearest(word: str, known: Iterable[str], before: str = "") -> str:
    """Return `` (did you mean 'uniform'?)``, or an empty string if no known word is near.

    before: stands before the known words, and is not compared, such as the hyphens of a switch.
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {before + close[0]!r}?)" if close else ""


def plural(count: int, word: str) -> str:
    """Write a count with its word: ``1 trial``, ``2,000 trials``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def shortened(text: str, limit: int = 200) -> str:
    """Return ``text`` without its middle if it is too long for a message."""
    rest = limit // 4
    return text if len(text) <= limit else f"{text[: limit - rest]} ... {text[-rest:]}"
