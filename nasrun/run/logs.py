"""Logs that a run writes line by line: metrics, trials and TensorBoard's events."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nasrun.run.curves import Curves, lines_seen
from nasrun.run.events import events_in
from nasrun.run.files import open_for_writing
from nasrun.run.layout import METRICS, TRIALS
from nasrun.run.loggers import LoggedRun, Logger, TensorBoard, as_text
from nasrun.values import Trial

if TYPE_CHECKING:
    from nasrun.run.spent import Work

MAX_LINE_BYTES = 2**20
"""Bytes near the end in which a line end is sought; our lines have a few thousand at most."""


class Logs:
    """The logs of one run, continued after ``lengths`` bytes; later bytes are cut off.

    A run that was killed may have written lines after its last checkpoint; they are written again.
    also: what notes lines of metrics beside.
    """

    also: Work | None = None

    def __init__(
        self, directory: Path, lengths: Mapping[str, int], logger: Logger | None = None
    ) -> None:
        """Open the logs; logger: is told all that is measured; None: TensorBoard."""
        self.directory = directory
        self._files: dict[str, BinaryIO] = {}
        for name in (METRICS, TRIALS):
            self._files[name] = open_for_writing(directory / name, keep=lengths.get(name, 0))
        self._curves = Curves(lines_seen(self._files[METRICS]))
        self._logger = logger or TensorBoard().open(LoggedRun(directory, "run", lengths))

    def describe(self, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
        """Tell the logger what the run is, by its settings."""
        words = (override.lstrip("+~").partition("=") for override in overrides)
        given = {key: value for key, equals, value in words if equals}
        self._logger.describe(as_text(config), given)

    def image(self, name: str, png: bytes) -> None:
        """Show a picture in the logger."""
        self._logger.image(name, png)

    def result(self, result: Mapping[str, Any]) -> None:
        """Tell the logger the numbers that the run ends with."""
        numbers = {key: float(n) for key, n in result.items() if type(n) in (int, float)}
        self._logger.result(numbers)

    def metrics(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """Write a line of metrics.jsonl and a point of each TensorBoard curve."""
        if self.also is not None:
            self.also.lines.append((name, step, metrics))
        self._line(METRICS, {"stage": name, "step": step, **metrics})
        curve, place = self._curves.place(name, step)
        self._logger.metrics(curve, metrics, place)

    def trials(self, trials: Iterable[Trial], **context: Any) -> None:
        """Append trials to trials.jsonl; context: e.g. the round they belong to."""
        for trial in trials:
            self._line(TRIALS, {**context, **trial.to_json()})

    def _line(self, name: str, value: Mapping[str, Any]) -> None:
        file = self._files[name]
        file.write(json.dumps(value).encode() + b"\n")
        file.flush()  # for programs that read along

    def lengths(self) -> dict[str, int]:
        """Write all lines to the disk; returns the bytes of each file."""
        self._logger.sync()
        for file in self._files.values():
            os.fsync(file.fileno())
        found = {name: file.tell() for name, file in self._files.items()}
        return found | {path.name: path.stat().st_size for path in events_in(self.directory)}

    def close(self, *, done: bool = False) -> None:
        """Close all files; ignores errors. done: whether the run has come to its end."""
        # Every line has been flushed, so errors of the disk have been reported before.
        with suppress(OSError):
            self._logger.close(done=done)
        for file in self._files.values():
            with suppress(OSError):
                file.close()


def missing(directory: Path, lengths: Mapping[str, int]) -> dict[str, int]:
    """Return how many bytes each log with lines is shorter than ``lengths`` says."""
    found = {}
    for name in (METRICS, TRIALS):
        path = directory / name
        size = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        if size < lengths.get(name, 0):
            found[name] = lengths[name] - size
    return found


def whole_lines(directory: Path, lengths: Mapping[str, int]) -> dict[str, int]:
    """Return ``lengths``; a log that has become shorter counts up to its last whole line."""
    found = dict(lengths)
    for name in missing(directory, lengths):
        found[name] = _end_of_last_line(directory / name)
    return found


def _end_of_last_line(path: Path) -> int:
    """Find the last line end; looks near the end only, since the file may have any size."""
    if path.is_symlink() or not path.is_file():
        return 0
    with path.open("rb") as file:
        start = max(path.stat().st_size - MAX_LINE_BYTES, 0)
        file.seek(start)
        end = file.read(MAX_LINE_BYTES).rfind(b"\n") + 1
    return start + end if end else 0
