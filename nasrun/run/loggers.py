"""Loggers: programs that show curves, texts and pictures of a run, beside its own files.

Whatever a logger does, the run's own files hold all that was measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from nasrun.errors import UserError
from nasrun.run.events import Events, events_in
from nasrun.run.files import open_for_writing


class Logger(Protocol):
    """A program that shows a run, by the things that it is told."""

    def describe(self, settings: str, overrides: Mapping[str, str]) -> None:
        """Tell what the run is: all settings, a line each; and those that were given."""

    def metrics(self, curve: str, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve ``curve/NAME``."""

    def image(self, name: str, png: bytes) -> None:
        """Show a picture."""

    def result(self, numbers: Mapping[str, float]) -> None:
        """Tell the numbers that the run ends with."""

    def sync(self) -> None:
        """Let nothing of what was told be lost."""

    def close(self, *, done: bool) -> None:
        """End; done: whether the run has come to its end."""


@dataclass(frozen=True)
class LoggedRun:
    """A run, as far as a logger needs to know it.

    lengths: bytes of each log in the directory at the last checkpoint; {}: the run begins.
    say: shows a line to the user.
    """

    directory: Path
    name: str
    lengths: Mapping[str, int]
    say: Callable[[str, str], None] = lambda line, style: None


class LoggerSettings(ABC):
    """The settings of a logger."""

    def check(self) -> None:  # noqa: B027 - most need nothing
        """Raise UserError if the program is not installed; called before anything is written."""

    @abstractmethod
    def open(self, run: LoggedRun) -> Logger:
        """Begin to log a run, or go on with it.

        Raises UserError if the program does not answer.
        """


class NoLogger(LoggerSettings):
    """Nothing but the run's own files."""

    def open(self, run: LoggedRun) -> Logger:
        return SilentLogger()


class SilentLogger:
    """A logger that does nothing."""

    def describe(self, settings: str, overrides: Mapping[str, str]) -> None:
        pass

    def metrics(self, curve: str, values: Mapping[str, float], step: int) -> None:
        pass

    def image(self, name: str, png: bytes) -> None:
        pass

    def result(self, numbers: Mapping[str, float]) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self, *, done: bool) -> None:
        pass


class TensorBoard(LoggerSettings):
    """TensorBoard's event files in the directory of the run.

    What was written after the last checkpoint is cut off, and written again.
    """

    def open(self, run: LoggedRun) -> Logger:
        for path in events_in(run.directory):
            if keep := min(run.lengths.get(path.name, 0), path.lstat().st_size):
                open_for_writing(path, keep=keep).close()
            else:
                path.unlink()
        return TensorBoardLogger(run)


class TensorBoardLogger:
    """The logger of ``TensorBoard``."""

    def __init__(self, run: LoggedRun) -> None:
        self.run = run
        self.events = Events(run.directory)

    def describe(self, settings: str, overrides: Mapping[str, str]) -> None:
        self.events.hparams(self.run.name, overrides)
        lines = "\n".join(f"    {line}" for line in settings.splitlines())  # as code in Markdown
        self.events.text("configuration", lines)
        self.events.flush()

    def metrics(self, curve: str, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self.events.add(f"{curve}/{key}", value, step)
        self.events.flush()

    def image(self, name: str, png: bytes) -> None:
        self.events.image(name, png)
        self.events.flush()

    def result(self, numbers: Mapping[str, float]) -> None:
        pass  # a curve of one point says less than the result

    def sync(self) -> None:
        self.events.sync()

    def close(self, *, done: bool) -> None:
        self.events.close()


class ProgramLogger:
    """The base of loggers that tell another program, which may fail; the run goes on then."""

    def __init__(self, name: str, run: LoggedRun) -> None:
        self.name, self.logged = name, run
        self.failed = False

    def tell(self, action: Callable[[], object]) -> None:
        """Do it; after a failure, which is said, nothing is told any more."""
        if self.failed:
            return
        try:
            action()
        except Exception as error:  # whatever a client of a server raises
            self.failed = True
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self.logged.say(
                f"logger={self.name} has failed ({reason}): the run goes on without it, and its "
                "own files hold everything",
                "yellow",
            )


def check_installed(package: str, extra: str) -> None:
    """Raise UserError, saying what to install, if a package is absent."""
    try:
        import_module(package)
    except ImportError:
        raise UserError(
            f"logger={extra} needs the package {package}: pip install 'nasrun[{extra}]', or take "
            "logger=tensorboard"
        ) from None


def as_text(config: Mapping[str, Any], before: str = "") -> str:
    """Write each setting as ``key.of.it: value``, a line each."""
    lines = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            lines.append(as_text(value, f"{before}{key}."))
        else:
            lines.append(f"{before}{key}: {value}")
    return "\n".join(line for line in lines if line)
