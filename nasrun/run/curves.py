"""The curves of metrics: stages of one kind that follow each other are one curve."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

PART = re.compile(r"(?P<family>.+)/(round\d+|[0-9a-f]{8})")
"""Name of a stage that is one of several: a round, or the training of one architecture."""

LINE = re.compile(rb'\{"stage": "((?:[^"\\]|\\.)*)", "step": (\d{1,15})[,}]')
"""Beginning of a line of metrics.jsonl."""

MAX_LINE_BYTES = 2**20
"""Bytes of a line that are read; ours have some thousand at most."""

NAMES = {"architectures": "predictor/ascent", "health": "supernet_health"}
"""Curves that are named so that they do not come first, where a reader looks for the loss."""


class Curves:
    """Places metrics on curves.

    The steps of a stage that is one of several begin where those of the stage before ended, so the
    loss of all rounds is one curve. The state is what the lines of metrics tell.
    """

    def __init__(self, seen: Iterable[tuple[str, int]] = ()) -> None:
        """seen: name and step of each line of metrics so far, in order."""
        self._starts: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        for stage, step in seen:
            self.place(stage, step)

    def place(self, stage: str, step: int) -> tuple[str, int]:
        """Return the name of the curve, and the step on it."""
        part = PART.fullmatch(stage)
        family = part["family"] if part else stage
        if part:
            step += self._starts.setdefault(stage, self._ends.get(family, 0))
            self._ends[family] = max(step, self._ends.get(family, 0))
        return NAMES.get(family, family), step


def lines_seen(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Yield stage and step of each line of metrics.jsonl; leaves the file at its end."""
    file.seek(0)
    while line := file.readline(MAX_LINE_BYTES):
        if found := LINE.match(line):
            yield found[1].decode(errors="replace"), int(found[2])
