"""Show the page of help, or that of a task."""

from __future__ import annotations

from nasrun.cli import arguments
from nasrun.cli.arguments import CommandLine
from nasrun.config.groups import tasks

USAGE = "[TASK]"
SWITCHES = ()


def run(line: CommandLine) -> int:
    """Print the page of help, with the line of a task first if the words name one."""
    from rich.console import Console

    from nasrun.cli.help import show

    task = next((word for word in (line.task, *line.overrides) if word in tasks()), None)
    show(task, line.value(arguments.CONFIG_DIR), Console(highlight=False))
    return 0
