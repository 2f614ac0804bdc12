"""Commands that are shown to be pasted into a shell."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """Return ``nasrun`` and the words, each in quotes where a shell needs them."""
    return shlex.join(["nasrun", *map(str, words)])
