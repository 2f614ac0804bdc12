"""Faults that a test asks of a run in another process: signals, kills, full disks, wrong clocks.

fork_server.py calls them by name in the child, before the command begins.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from events import Events

import nasrun.run.compute
import nasrun.run.run
import nasrun.search_space.depthwise
import nasrun.search_space.operation
import nasrun.trainer.updates
from nasrun.run.run import Run
from nasrun.trainer.training import Training

ENDINGS: list[Callable[[], object]] = []
"""Functions to call when the command has ended by itself."""


class Counter:
    """Calls of a method of Run while a stage is under way, the innermost one."""

    def __init__(self, method: str, stage: str, number: int) -> None:
        """``number``: of the call that ``arrived`` tells of, from 1; stage: a pattern."""
        self.stages = [""]
        self.count = 0
        original = getattr(Run, method)
        advance = Run.stage

        def stage_(run: Run, name: str, total: int) -> Any:
            return Entered(self.stages, name, advance(run, name, total))

        def counted(run: Run, *arguments: Any) -> Any:
            self.count += fnmatchcase(self.stages[-1], stage)
            if self.count == number and fnmatchcase(self.stages[-1], stage):
                self.arrived()
            return original(run, *arguments)

        Run.stage = stage_  # type: ignore[method-assign, assignment]
        setattr(Run, method, counted)

    def arrived(self) -> None:
        raise NotImplementedError


class Entered:
    """A stage that is noted while it lasts."""

    def __init__(self, stages: list[str], name: str, inner: Any) -> None:
        self.stages, self.name, self.inner = stages, name, inner

    def __enter__(self) -> Any:
        self.stages.append(self.name)
        return self.inner.__enter__()

    def __exit__(self, *error: Any) -> Any:
        self.stages.pop()
        return self.inner.__exit__(*error)


def signal_at(number: int, method: str = "safe_point", stage: str = "*", count: int = 1) -> None:
    """The signal arrives as ``method`` of Run is called for the ``count``-th time."""

    class Sender(Counter):
        def arrived(self) -> None:
            os.kill(os.getpid(), number)

    Sender(method, stage, count)


def fail_at(count: int, kind: str = "RuntimeError") -> None:
    """A bug: the ``count``-th safe point raises."""

    class Thrower(Counter):
        def arrived(self) -> None:
            raise {"RuntimeError": RuntimeError, "OSError": OSError}[kind]("a bug")

    Thrower("safe_point", "*", count)


def signals_in_a_step(*numbers: int) -> None:
    """They arrive one after the other within the first step, which would never end."""

    def update(*arguments: Any) -> Any:
        for number in numbers:
            os.kill(os.getpid(), number)
        raise AssertionError("the step went on")

    Training.update = update  # type: ignore[method-assign]


def kill_around(name: str, after: bool) -> None:
    """A kill just before or after the JSON file ``name`` is written."""
    original = nasrun.run.run.write_json

    def write_json(path: Path, value: Any) -> None:
        if path.name == name and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        original(path, value)
        if path.name == name:
            os.kill(os.getpid(), signal.SIGKILL)

    nasrun.run.run.write_json = write_json  # type: ignore[attr-defined]


def clock(offset: float) -> None:
    """The clock of the machine is ``offset`` seconds off."""
    now = time.time
    time.time = lambda: now() + offset


def largest_file(size: int) -> None:
    """Like a full disk: no file grows beyond ``size`` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def read_only(directory: str, number: int) -> None:
    """Nothing in ``directory`` can be opened to be written; ``number``: the error."""
    original = os.open

    def open_(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        inside = isinstance(path, str | os.PathLike) and Path(path).is_relative_to(directory)
        if inside and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return original(path, flags, *rest, **named)

    os.open = open_


def no_space(count: int) -> None:
    """The disk is full from the ``count``-th time on that a file is to be safe on it."""
    original, calls = os.fsync, [0]

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] >= count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(handle)

    os.fsync = fsync


def on_stand_in(own: str | None = None) -> None:
    """No fault: there is a device ``sim``, the stand-in accelerator, until the process ends.

    own: file for the names of the operations it has done that the CPU does not have.
    """
    from stand_in import stand_in

    device_of, sim = nasrun.run.compute.device_of, stand_in()
    ledger = sim.__enter__()
    ENDINGS.append(lambda: sim.__exit__(None, None, None))
    if own is not None:
        ENDINGS.append(lambda: Path(own).write_text(" ".join(ledger.own), encoding="utf-8"))
    nasrun.run.compute.device_of = lambda name: (  # type: ignore[attr-defined]
        torch.device("sim:0") if name == "sim" else device_of(name)
    )


def as_on_a_gpu() -> None:
    """No fault: the CPU takes none of the ways of its own, which sum in another order."""
    nasrun.search_space.depthwise.gains = lambda *shape: False  # type: ignore[attr-defined]
    nasrun.search_space.operation.SMALL_PRODUCT_VALUES = 0
    nasrun.trainer.updates.are_fused = lambda parameters: False  # type: ignore[attr-defined]


def kill_at_event(number: int) -> None:
    """A kill at an event of the run (events.py), counted from 1."""
    Events(kill_at=number)


def count_events(path: str) -> None:
    """No fault: the number of events is written to ``path`` at the end."""
    events = Events()
    ENDINGS.append(lambda: Path(path).write_text(str(events.count), encoding="utf-8"))


FAULTS: dict[str, Callable[..., None]] = {
    fault.__name__: fault
    for fault in (
        *(signal_at, fail_at, signals_in_a_step, kill_around, kill_at_event, count_events),
        *(clock, largest_file, read_only, no_space, on_stand_in),
        as_on_a_gpu,
    )
}
