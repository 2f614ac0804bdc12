"""Logs that a run writes line by line: metrics, trials and TensorBoard's events."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from nasrun.run.files import open_for_writing
from nasrun.run.layout import EVENTS_PREFIX, METRICS, TRIALS
from nasrun.values import Trial

MAX_LINE_BYTES = 2**20
"""Bytes near the end in which a line end is sought; our lines have a few thousand at most."""


class Logs:
    """The logs of one run, continued after ``lengths`` bytes; later bytes are cut off.

    A run that was killed may have written lines after its last checkpoint; they are written again.
    """

    def __init__(self, directory: Path, lengths: Mapping[str, int]) -> None:
        self.directory = directory
        self._files: dict[str, BinaryIO] = {}
        for name in (METRICS, TRIALS):
            self._files[name] = open_for_writing(directory / name, keep=lengths.get(name, 0))
        for path in _events_in(directory):
            if keep := min(lengths.get(path.name, 0), path.lstat().st_size):
                open_for_writing(path, keep=keep).close()
            else:
                path.unlink()
        self._events = Events(directory)

    def metrics(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """Write a line of metrics.jsonl and a point of each TensorBoard curve."""
        self._line(METRICS, {"stage": name, "step": step, **metrics})
        for key, value in metrics.items():
            self._events.add(f"{name}/{key}", value, step)
        self._events.flush()

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
        self._events.sync()
        for file in self._files.values():
            os.fsync(file.fileno())
        found = {name: file.tell() for name, file in self._files.items()}
        return found | {path.name: path.stat().st_size for path in _events_in(self.directory)}

    def close(self) -> None:
        """Close all files; ignores errors."""
        # Every line has been flushed, so errors of the disk have been reported before.
        for close in (self._events.close, *(file.close for file in self._files.values())):
            with suppress(OSError):
                close()


class Events:
    """A new file of TensorBoard's points in ``directory``.

    TensorBoard's own writer has a thread, which can only print errors of the disk. Here errors
    reach the run, and a flush hands the points to the system.
    """

    def __init__(self, directory: Path) -> None:
        name = f"{EVENTS_PREFIX}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        paths = (directory / f"{name}.{number}" for number in count())
        self._file = open_for_writing(next(path for path in paths if not os.path.lexists(path)))
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")

    def add(self, curve: str, value: float, step: int) -> None:
        point = Summary.Value(tag=curve, simple_value=value)
        self._write(step=step, summary=Summary(value=[point]))

    def _write(self, **content: object) -> None:
        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def flush(self) -> None:
        """Hand the points to the system, so that other programs can read them."""
        self._file.flush()

    def sync(self) -> None:
        """Write all points to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _events_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name.startswith(EVENTS_PREFIX))


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
