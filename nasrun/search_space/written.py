"""Undo what spreadsheets do to architectures that are written as digits."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from nasrun.errors import UserError
from nasrun.search_space.base import SearchSpace


def digits_of(space: SearchSpace) -> int | None:
    """Return the length of every architecture as the space writes it, a digit for each decision.

    None: the space writes them in another way, maybe in different lengths.
    """
    word = space.write(space.sample(np.random.default_rng(0)))
    same = len(word) == len(space.decisions) and re.fullmatch("[0-9]+", word)
    return len(word) if same else None


def with_zeros(space: SearchSpace, words: Sequence[str]) -> tuple[list[str], int]:
    """Put back the zeros that a program took for those of a number: ``12`` for ``00000012``.

    words: the architectures of one file. If any of them has kept a zero in front, none has lost
    its zeros, and all stay as they are.
    Returns the words, and how many were changed. Raises UserError over a number like 2.22E+07,
    whose digits are lost.
    """
    length = digits_of(space)
    if length is None:
        return list(words), 0
    for word in words:
        if re.fullmatch(r"[0-9][.,][0-9]+[eE]\+?[0-9]+", word):
            raise UserError(
                f"{word!r} was an architecture, but a spreadsheet has rounded it as a number: save "
                "the column as text"
            )
    if any(re.match("0[0-9]", word) for word in words):
        return list(words), 0
    numbers = [re.fullmatch(r"(0|[1-9][0-9]*)(?:[.,]0)?", word) for word in words]
    found = [
        number[1].zfill(length) if number else word
        for number, word in zip(numbers, words, strict=True)
    ]
    return found, sum(before != after for before, after in zip(words, found, strict=True))
