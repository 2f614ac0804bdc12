"""Show how runs differ: settings, versions, results (or --json)."""

from __future__ import annotations

import json
import os
import sys

from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError

USAGE = "RUN RUN ..."
SWITCHES = ("--json",)

MAX_RUNS = 12
"""Runs that are compared at most: each is a column."""


def run(line: CommandLine) -> int:
    """Compare the runs that the words name."""
    from rich.console import Console

    from nasrun.cli.run_names import OUTPUTS, resolve
    from nasrun.config.compose import flatten
    from nasrun.report import run_diff
    from nasrun.report.run_files import RunDirectory
    from nasrun.run.commands import command
    from nasrun.run.files import printable
    from nasrun.run.layout import RECORD

    if others := [switch for switch in line.switches if switch not in SWITCHES]:
        raise UserError(f"diff takes no {others[0]}, but {SWITCHES[0]}")
    given = dict(word.split("=", 1) for word in line.overrides if "=" in word)
    words = [word for word in line.overrides if "=" not in word]
    if given.keys() - {"outputs"} or not 2 <= len(words) <= MAX_RUNS:
        raise UserError(
            f"diff takes 2 to {MAX_RUNS} runs, by name or directory: nasrun diff RUN RUN"
        )
    outputs = given.get("outputs", OUTPUTS)
    sides = []
    for word in words:
        path = resolve(word, needed=RECORD, outputs=outputs)
        title = str(path) if word == str(path) else f"{word} ({path})"
        config = RunDirectory(path).config
        title += f": {config['notes']}" if config.get("notes") else ""
        settings = flatten(config)
        sides.append(run_diff.Side.read(path, printable(title), settings))
    if "--json" in line.switches:
        sys.stdout.write(f"{json.dumps(run_diff.to_json(sides), indent=2, ensure_ascii=False)}\n")
        return 0
    told = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False) if told else Console(width=160, highlight=False)
    run_diff.show(sides, console)
    pictures = command("report", *(side.path for side in sides))
    console.print(f"curves and pictures side by side: {pictures}", markup=False, soft_wrap=True)
    return 0
