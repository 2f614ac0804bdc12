"""Errors on the command line: a message of one line, and an exit status."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from nasrun.cli import outputs
from nasrun.errors import (
    Interrupted,
    MissingCapabilityError,
    SeveralMistakesError,
    UserError,
    shortened,
)
from nasrun.run import ranks
from nasrun.run.commands import command
from nasrun.run.files import printable
from nasrun.run.layout import RECORD, SWEEP_RECORD
from nasrun.run.ranks import LostRankError

DEBUG_VARIABLE = "NASRUN_DEBUG"
NO_SPACE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def interrupted(error: Interrupted | KeyboardInterrupt) -> int:
    """Say what stopped the process and how to go on; returns the exit status of the signal."""
    number = error.signal if isinstance(error, Interrupted) else signal.SIGINT
    words = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to stop (SIGTERM)"}
    text = words.get(signal.Signals(number), f"stopped by {signal.Signals(number).name}")
    saved = error.saved if isinstance(error, Interrupted) else None
    place = sweep_of_process() or saved
    if place is not None:
        work = "all work is saved, " if saved else ""
        text += f"; {work}go on with: {command('resume', place)}"
    if ranks.place().rank == 0:
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write(f"nasrun: {text}\n")
    return 128 + number


def sweep_of_process() -> Path | None:
    """Return the folder of the current sweep if it has begun, else None."""
    known = outputs.current[0] if outputs.current and outputs.current[0].sweep else None
    return known.directory if known and (known.directory / SWEEP_RECORD).exists() else None


def verdict(error: BaseException, config_dir: str | None = None) -> tuple[str, int]:
    """Return the message of an error, in one line, and the exit status.

    Of several mistakes each has a line of its own.

    config_dir: the user's folder of options, if any.
    """
    if isinstance(error, SeveralMistakesError):
        told = [verdict(each, config_dir)[0].removeprefix("error: ") for each in error.errors]
        return "\n  ".join([f"error: {len(told)} mistakes:", *told]), 2
    if isinstance(error, MissingCapabilityError):
        from nasrun.config.groups import options_that

        options = options_that(error.group, error.has, config_dir)
        joint = "" if str(error).endswith(" or") else ":"
        error = UserError(f"{error}{joint} take {error.group}={' or '.join(options)}")
    error = trouble_with_output(error) or shortage_of_memory(error) or failed_device(error) or error
    if isinstance(error, LostRankError) and (place := _output()) and (place / RECORD).exists():
        error = UserError(f"{error}; go on from the last checkpoint: {command('resume', place)}")
    # The message may repeat text from a file of a stranger.
    text = printable(shortened(" ".join(str(error).split()), 2000))
    if isinstance(error, UserError):
        return f"error: {text}", 2
    return (
        f"internal error: {type(error).__name__}: {text} ({DEBUG_VARIABLE}=1 shows the traceback)",
        1,
    )


def trouble_with_output(error: BaseException) -> UserError | None:
    """Return an error about a full disk or unwritable directory if that is the cause, else None."""
    output = _output()
    # torch turns an OSError while it saves into a RuntimeError of its own.
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, UserError) or cause is None or output is None:
        return None
    path = Path(str(cause.filename)).absolute() if cause.filename else None
    place, advice = path or output, "choose another place with outputs=DIR"
    if cause.errno in NO_SPACE_ERRNOS:
        advice = f"or {advice}"
        if (output / RECORD).exists():
            advice = f"then go on with: {command('resume', output)}"
        return UserError(f"no space left to write {place}: {cause.strerror}; free some, {advice}")
    if path and (path.is_relative_to(output) or output.is_relative_to(path)):
        return UserError(f"cannot write {place}: {cause.strerror}; {advice}")
    return None


def shortage_of_memory(error: BaseException) -> UserError | None:
    """Return an error about short memory if that is the cause, else None."""
    if isinstance(error, UserError):
        return None
    if not isinstance(error, MemoryError):
        if "torch" not in sys.modules:
            return None
        from nasrun.run.compute import is_out_of_memory

        if not is_out_of_memory(error):
            return None
    words = " ".join(str(error).split())[:160] or type(error).__name__
    return UserError(
        f"out of memory: {words}; lower batch_size of the trainer or the evaluator, "
        "or the size of the networks; what was saved is kept"
    )


def failed_device(error: BaseException) -> UserError | None:
    """Return an error about a device that was lost if that is the cause, else None."""
    if isinstance(error, UserError) or "torch" not in sys.modules:
        return None
    from nasrun.run.compute import is_lost_device

    if not is_lost_device(error):
        return None
    place, advice = _output(), "choose another device"
    if place and (place / RECORD).exists():
        advice = f"go on from the last checkpoint, here or elsewhere: {command('resume', place)}"
    words = " ".join(str(error).partition("\n")[0].split())[:160]
    return UserError(f"the device has failed ({words}): {advice}")


def _output() -> Path | None:
    """Return the directory of the current run or sweep, if there is one."""
    return outputs.current[0].directory if outputs.current else None


def show_traceback() -> None:
    """Print the traceback of the current error if NASRUN_DEBUG=1."""
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exc()
