"""TensorBoard's curves, written as they come.

TensorBoard's own writer has a thread, which can only print what it finds wrong with the disk; here
the error reaches the run, and a flush brings the points to the disk.
"""

from __future__ import annotations

import os
import socket
import time
from itertools import count
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from nasrun.run.files import open_for_writing

PREFIX = "events.out.tfevents."
"""By which TensorBoard knows its files; it shows those of a directory as one run."""


class Events:
    """A new file of points in ``directory``."""

    def __init__(self, directory: Path) -> None:
        name = f"{PREFIX}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
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
        """For whoever reads along."""
        self._file.flush()

    def sync(self) -> None:
        """All points are on the disk then."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
