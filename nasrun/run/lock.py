"""The lock of a run directory: one process at a time works in it."""

from __future__ import annotations

import json
import os
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import filelock

from nasrun.errors import UserError
from nasrun.run import ranks
from nasrun.run.files import open_for_writing, open_to_look, printable
from nasrun.run.layout import LOCK

LOOK_SECONDS = 0.01
"""Time in which whoever only looks whether a lock is held has certainly ended."""


class InUseError(UserError):
    """Another process holds the lock."""


class Lock:
    """A lock that is held from ``acquire`` to ``release`` or to the death of the process.

    It is a lock of the operating system on the open file (``flock``, also over NFS; ``LockFileEx``
    on Windows). So a killed process leaves a file but no lock; the file only names the holder.
    Forked workers let go of the file, so they do not prolong the lock.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK
        self.stale: str | None = None
        self._file: BinaryIO | None = None

    def acquire(self) -> Lock:
        """Take the lock; raises InUseError, naming the holder, where another process has it.

        Afterwards ``stale`` names the process that died without releasing it, if one did.
        Of several ranks the first one takes it for all.
        """
        if not ranks.current.writes:
            return self
        while self._file is None:
            file = open_for_writing(self.path, keep=None)
            try:
                free = _taken(file.fileno())
            except OSError as error:
                file.close()
                raise UserError(f"cannot lock {self.path}: {error.strerror}") from error
            if not free:
                holder = _read(file)
                file.close()
                raise InUseError(
                    f"{self.path.parent} is in use by {_in_words(holder)}: wait until it ends, or "
                    "stop it"
                )
            if not self._is_current(file):
                file.close()  # its holder has just removed it: try again with a new file
                continue
            holder = _read(file)
            self.stale = _in_words(holder) if holder else None
            self._file = file
            _held.add(self)
        self._sign(self._file)
        return self

    def _is_current(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    @staticmethod
    def _sign(file: BinaryIO) -> None:
        since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
        file.seek(0)
        file.truncate()
        # On Windows nobody but the holder can read the locked first byte, so it is a space.
        file.write(b" " + json.dumps(owner).encode() + b"\n")
        file.flush()

    def release(self) -> None:
        """Release the lock; removes the file first, so that nobody locks a removed file."""
        if self._file is not None:
            with suppress(PermissionError):  # Windows removes no open file
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
            _held.discard(self)
            if os.name == "nt":
                with suppress(OSError):  # another process has opened it already
                    self.path.unlink()

    def _let_go(self) -> None:
        """Exchange the file for a pipe that leads nowhere, in a forked worker.

        The worker shares the open file, so the lock would last as long as it does.
        """
        if self._file is not None:
            ends = os.pipe()
            os.dup2(ends[0], self._file.fileno(), inheritable=False)
            for end in ends:
                os.close(end)

    def __enter__(self) -> Lock:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def is_held(directory: Path) -> bool:
    """Tell whether a process works in ``directory``; changes nothing and follows no link."""
    try:
        handle = open_to_look(directory / LOCK)
    except (OSError, ValueError, UserError):  # absent, or a link
        return False
    try:
        return not _taken(handle)
    except OSError:
        return False
    finally:
        os.close(handle)  # which releases it


def _taken(handle: int) -> bool:
    """Try to take the lock of an open file; tells whether it was free.

    It tries again, since somebody may only look (``is_held``), which takes microseconds.
    """
    if filelock.lock_descriptor(handle, blocking=False):
        return True
    time.sleep(LOOK_SECONDS)
    return bool(filelock.lock_descriptor(handle, blocking=False))


_held: weakref.WeakSet[Lock] = weakref.WeakSet()
"""The locks that this process holds."""


def _let_go_in_worker() -> None:
    for lock in list(_held):
        lock._let_go()
    _held.clear()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_let_go_in_worker)


def _read(file: BinaryIO) -> dict[str, Any]:
    try:
        file.seek(os.name == "nt")
        holder = json.loads(file.read(4096))
    except (ValueError, RecursionError, OSError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _in_words(holder: dict[str, Any]) -> str:
    def known(key: str) -> str:
        value = holder.get(key)
        return printable(str(value)[:60]) if isinstance(value, str | int) else "unknown"

    return f"process {known('pid')} on {known('host')} (since {known('since')})"
