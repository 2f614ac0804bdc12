"""Laws: named functions that a check holds against a case, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from nasrun.errors import UserError

Case = TypeVar("Case")


def require(holds: object, message: str) -> None:
    """Raise AssertionError with ``message`` unless ``holds`` is true."""
    if not holds:
        raise AssertionError(message)


def refusal(call: Callable[[], object]) -> str | None:
    """Return the message of the UserError that ``call`` raises, None if it raises none."""
    try:
        call()
    except UserError as error:
        return str(error)
    return None


def hold(
    laws: Iterable[Callable[[Case], None]], case: Case, subject: str, only: Collection[str] = ()
) -> None:
    """Call each law with ``case``; the first line of a law's docstring says what it demands.

    subject: what is checked, for messages, e.g. ``search space spos_blocks``.
    only: names of the laws to check; empty: all of them.
    Raises AssertionError, naming subject and law, where a law is broken or raises anything else.
    """
    known = {law.__name__: law for law in laws}
    if unknown := set(only) - known.keys():
        raise ValueError(f"there are no laws {sorted(unknown)}; there are {', '.join(known)}")
    for name, law in known.items():
        if only and name not in only:
            continue
        try:
            law(case)
        except Exception as error:
            demand = (law.__doc__ or "").strip().partition("\n")[0]
            found = str(error) if isinstance(error, AssertionError) else repr(error)
            message = f"{subject} breaks the law {name} ({demand.rstrip('.')}): {found}"
            raise AssertionError(message) from error
