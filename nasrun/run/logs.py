"""What a run writes line by line: metrics.jsonl, trials.jsonl and TensorBoard's events."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from torch.utils.tensorboard import SummaryWriter

from nasrun.run.files import open_for_writing
from nasrun.values import Trial

METRICS, TRIALS = "metrics.jsonl", "trials.jsonl"
_EVENTS = "events.out.tfevents."


class Logs:
    """The logs of one run, continued after ``lengths`` bytes; what lies behind is cut off.

    A run that was killed has written further than its last checkpoint knows: those lines will be
    written again.
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
        self._events = SummaryWriter(str(directory))

    def metrics(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """A line of metrics.jsonl and a point of each TensorBoard curve."""
        self._line(METRICS, {"stage": name, "step": step, **metrics})
        for key, value in metrics.items():
            self._events.add_scalar(f"{name}/{key}", value, step)

    def trials(self, trials: Iterable[Trial], **context: Any) -> None:
        """Append trials to trials.jsonl; context: e.g. the round they belong to."""
        for trial in trials:
            self._line(TRIALS, {**context, **trial.to_json()})

    def _line(self, name: str, value: Mapping[str, Any]) -> None:
        file = self._files[name]
        file.write(json.dumps(value).encode() + b"\n")
        file.flush()  # for whoever reads along

    def lengths(self) -> dict[str, int]:
        """The bytes of each file so far; all of them are on the disk then."""
        self._events.flush()
        for file in self._files.values():
            os.fsync(file.fileno())
        found = {name: file.tell() for name, file in self._files.items()}
        return found | {path.name: path.stat().st_size for path in _events_in(self.directory)}

    def close(self) -> None:
        # Every line has been flushed: what a close can still complain of has been said already.
        for close in (self._events.close, *(file.close for file in self._files.values())):
            with suppress(OSError):
                close()


def _events_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name.startswith(_EVENTS))


def missing(directory: Path, lengths: Mapping[str, int]) -> dict[str, int]:
    """Bytes that the line logs lack of what ``lengths`` says they had, by file."""
    found = {}
    for name in (METRICS, TRIALS):
        path = directory / name
        size = path.stat().st_size if path.is_file() else 0
        if size < lengths.get(name, 0):
            found[name] = lengths[name] - size
    return found


def whole_lines(directory: Path, lengths: Mapping[str, int]) -> dict[str, int]:
    """``lengths``, but of a log that has become shorter only its whole lines."""
    found = dict(lengths)
    for name in missing(directory, lengths):
        path = directory / name
        content = path.read_bytes() if path.is_file() else b""
        found[name] = content.rfind(b"\n") + 1
    return found
