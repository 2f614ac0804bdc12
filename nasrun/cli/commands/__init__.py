"""Commands that are no tasks: each is a module here, found by its name.

A module's docstring says in its first line what the command does. ``USAGE`` are the words that
follow its name, ``SWITCHES`` the switches of its own, and ``run(line)`` carries it out and returns
the exit status. It imports what is slow within its functions, since the page of help reads all.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from nasrun.cli.arguments import CommandLine


class Command(Protocol):
    """A module of this package."""

    USAGE: str
    SWITCHES: tuple[str, ...]

    def run(self, line: CommandLine) -> int:
        """Carry out the command line; returns the exit status."""


def names() -> tuple[str, ...]:
    """Return the names of all commands, sorted."""
    found = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def find(name: str) -> Command:
    """Return the command ``name``, which exists."""
    return cast(Command, import_module(f"{__name__}.{name}"))


def switches(name: str | None) -> tuple[str, ...]:
    """Return the switches that the command ``name`` has of its own; a task has none."""
    return find(name).SWITCHES if name in names() else ()


def help_lines() -> list[tuple[str, str]]:
    """Return the words and the meaning of each command, for the page of help."""
    return [
        (f"{name} {find(name).USAGE}".rstrip(), (find(name).__doc__ or "").partition("\n")[0])
        for name in names()
    ]
