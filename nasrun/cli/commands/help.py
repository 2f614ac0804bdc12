"""Explain a task, a command, a group, an option, a recipe or a setting.

nasrun help                       the page of all tasks, commands and groups
nasrun help sampler               the options of a group
nasrun help sampler=sandwich      the settings of an option: default, meaning, unit, source
nasrun help experiment=NAME       what a recipe sets, and its task
nasrun help budget.macs.max       a setting; of a part of its name, all that have it
"""

from __future__ import annotations

from nasrun.cli import arguments, commands
from nasrun.cli.arguments import CommandLine
from nasrun.config.groups import tasks

USAGE = "[TASK | GROUP | GROUP=OPTION | KEY]"
SWITCHES = ()


def run(line: CommandLine) -> int:
    """Print the page that the words ask for; without words that of everything."""
    from rich.console import Console

    from nasrun.cli import help as front
    from nasrun.cli import help_pages

    console = Console(highlight=False)
    config_dir = line.value(arguments.CONFIG_DIR)
    if line.task == "help" and not (line.has(arguments.HELP) and not line.overrides):
        for number, word in enumerate(line.overrides):
            if number:
                console.print()
            help_pages.show_word(word, config_dir, console)
        if not line.overrides:
            front.show(config_dir, console)
    elif line.task in tasks():
        help_pages.show_task(line.task, line.overrides, config_dir, console)
    elif line.task in commands.names():
        help_pages.show_command(line.task, console)
    else:
        front.show(config_dir, console)
    return 0
