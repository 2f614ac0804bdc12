"""Commands that are shown to be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def command(*words: object) -> str:
    """Return ``nasrun`` and the words, each in quotes where a shell needs them."""
    return shlex.join(["nasrun", *map(str, words)])


def shown(path: Path) -> str:
    """Return a path as it is shown: relative where it lies in the current directory.

    A single word begins with ``./``, so that no reader takes it for a number or for null.
    """
    here = Path.cwd()
    if not path.is_relative_to(here) or path == here:
        return str(path)
    near = path.relative_to(here)
    return str(near) if len(near.parts) > 1 else f"./{near}"
