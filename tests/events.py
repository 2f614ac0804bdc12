"""The events of a run, counted: a kill is placed by its number, so that no clock decides where.

An event is just before or after a step of training, a safe point, or an operation on a file of the
run: opening, each half of a write, fsync, rename, removal. The same command line has the same
events in every process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from nasrun.run import files, lock, logs
from nasrun.run.layout import EVENTS_PREFIX
from nasrun.run.run import Run
from nasrun.trainer.training import Training

AROUND: tuple[tuple[Any, str], ...] = (
    (Run, "begin"),
    (Run, "safe_point"),
    (Run, "finish"),
    (Training, "update"),
    (lock.Lock, "acquire"),
    (files, "_open"),
    (os, "fsync"),
    (Path, "mkdir"),
    (Path, "replace"),
    (Path, "unlink"),
)
"""Functions with an event just before each call and one just after it."""

WRITERS = (files, lock, logs)
"""Modules that open files of a run to write them."""


class Events:
    """Counts events from the start of a process, and kills the process at one of them."""

    def __init__(self, kill_at: int | None = None) -> None:
        """kill_at: the number of the event, from 1; None: all are only counted."""
        self.count, self.kill_at = 0, kill_at
        for owner, name in AROUND:
            setattr(owner, name, self._around(getattr(owner, name)))
        for module in WRITERS:
            setattr(module, "open_for_writing", self._opened(files.open_for_writing))  # noqa: B010

    def happen(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(*arguments: Any, **named: Any) -> Any:
            self.happen()
            result = original(*arguments, **named)
            self.happen()
            return result

        return call

    def _opened(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(path: Path, **named: Any) -> Any:
            file = original(path, **named)
            # TensorBoard's points are many, and follow each line of metrics at once.
            return file if path.name.startswith(EVENTS_PREFIX) else Halves(file, self.happen)

        return call


class Halves:
    """A file open for writing that has an event when half of each write is on its way."""

    def __init__(self, file: Any, happen: Callable[[], None]) -> None:
        self.file, self.happen = file, happen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Halves:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        half = len(data) // 2
        self.file.write(data[:half])
        self.file.flush()
        self.happen()
        self.file.write(data[half:])
        return len(data)
