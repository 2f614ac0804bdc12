"""Sort the words of a command line into the task, the overrides, and Hydra's switches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nasrun.errors import UserError, nearest
from nasrun.run.files import at_home

HELP = ("-h", "--help")
MULTIRUN = ("-m", "--multirun")
CONFIG_DIR = ("-cd", "--config-dir")
INFO = ("-i", "--info")
WITHOUT_TASK = ("--hydra-help", "-sc", "--shell-completion")

FLAGS = (*HELP, *MULTIRUN, *WITHOUT_TASK, "--version", "--resolve", "-r", "--run")
WITH_VALUE = (
    *CONFIG_DIR,
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"),
)
INFO_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
RERUN = "--experimental-rerun"
CFG_KINDS = ("job", "hydra", "all")


@dataclass(frozen=True)
class CommandLine:
    """A command line. task: the first word that is no setting, as typed; None: no such word."""

    task: str | None
    overrides: tuple[str, ...]
    switches: tuple[str, ...]

    def has(self, names: Iterable[str]) -> bool:
        return any(switch.partition("=")[0] in names for switch in self.switches)

    def value(self, names: Sequence[str]) -> str | None:
        """The value of a switch that takes one."""
        for index, switch in enumerate(self.switches):
            name, equals, value = switch.partition("=")
            if name in names:
                return value if equals else self.switches[index + 1]
        return None


def split(
    arguments: Sequence[str], own: Callable[[str | None], Sequence[str]] = lambda _: ()
) -> CommandLine:
    """Split words into a task, overrides and switches, which people mix.

    Hydra's parser wants its switches and the overrides in two blocks.

    own: returns the switches that a task or command has beside the common ones.
    Raises UserError if a switch is unknown or lacks its value.
    """
    task: str | None = None
    overrides: list[str] = []
    switches: list[str] = []
    unknown: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            if task is None and "=" not in word and not word.startswith(("+", "~")):
                task = word
            else:
                overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        if name in CONFIG_DIR and equals:
            word = f"{name}={at_home(value)}"  # the shell replaces no ~ behind an equals sign
        switches.append(word)
        if name == RERUN:
            raise UserError(f"{RERUN} would unpickle a file; use `nasrun retrain from=RUN_DIR`")
        if name not in (*FLAGS, *WITH_VALUE, *INFO):
            unknown.append(name)
        if name in WITH_VALUE and not equals:
            if not words:
                raise UserError(f"{name} needs a value")
            value = words.pop(0)
            switches.append(value)
        if name in INFO and not equals:
            # Its value is optional, so without one Hydra would take the first override for it.
            switches.append(words.pop(0) if words and words[0] in INFO_TOPICS else "all")
        if name in ("-c", "--cfg") and value not in CFG_KINDS:
            raise UserError(f"{name} {value}: must be one of {', '.join(CFG_KINDS)}")
        if name in INFO and equals and value not in INFO_TOPICS:
            raise UserError(f"{name} {value}: must be one of {', '.join(INFO_TOPICS)}")
    for name in unknown:
        if name not in own(task):
            every = (*FLAGS, *WITH_VALUE, *INFO, *own(task))
            long = [each[2:] for each in every if each.startswith("--")]
            known = nearest(name.lstrip("-"), long, "--")
            raise UserError(f"unknown switch {name}{known or '; `nasrun --help` names them'}")
    return CommandLine(task, tuple(overrides), tuple(switches))
