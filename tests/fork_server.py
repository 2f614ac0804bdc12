"""Runs nasrun in processes that are forked from one that has imported torch already.

A program of its own: the tests' process may have used a GPU or started threads, after which torch
cannot be forked. It reads one order in JSON from each line of its input: where to run (the
directory), what to type, and the faults to be had, by name. It answers with the exit status.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import signal
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

# What a run imports as it goes: once here.
import hydra.core.hydra_config  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch._dynamo  # noqa: F401

import nasrun.cli.from_run
import nasrun.cli.main
import nasrun.cli.resume
import nasrun.evaluator.standalone
import nasrun.evaluator.supernet
import nasrun.report.sweep
import nasrun.run.run
import nasrun.search_algo.nao.nao
import nasrun.task.retrain
import nasrun.task.search
from nasrun.run.run import Run
from nasrun.trainer.training import Training

LONGEST = 300
"""Seconds after which a child is killed: no test takes so long, but for a deadlock."""


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


FAULTS = {
    fault.__name__: fault
    for fault in (
        signal_at,
        fail_at,
        signals_in_a_step,
        kill_around,
        clock,
        largest_file,
        read_only,
        no_space,
    )
}


def child(order: dict[str, Any]) -> int:
    os.chdir(order["place"])
    for number, name in enumerate(("out", "err"), 1):
        handle = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    signal.alarm(LONGEST)
    for name, arguments in order["faults"]:
        FAULTS[name](*arguments)
    return nasrun.cli.main.main(order["words"])


def serve() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have jobs ignore it
    gc.collect()
    gc.freeze()  # else the first collection in a child copies all of its memory
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            status = 99
            try:
                status = child(order)
            finally:
                os._exit(status)
        _, status = os.waitpid(process, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
    gc.unfreeze()  # else torch's compilers complain as they are taken down
