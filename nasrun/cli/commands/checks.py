"""Tell what a run finds here: versions, device, memory, data sets, extras; for bug reports.

Nothing is downloaded and nothing is written. --json: the same as JSON.
"""

from __future__ import annotations

import json
import sys

from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError

USAGE = "[outputs=DIR] [--json]"
SWITCHES = ("--json",)


def run(line: CommandLine) -> int:
    """Print the checks, on one screen."""
    from rich.console import Console

    from nasrun.cli.columns import section
    from nasrun.cli.machine import checks, rows

    outputs = "outputs"
    for word in line.overrides:
        key, equals, value = word.partition("=")
        if key != "outputs" or not equals or not value:
            raise UserError(f"checks takes outputs=DIR and --json, not {word!r}")
        outputs = value
    found = checks(outputs)
    if line.has(("--json",)):
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    else:
        console = Console(highlight=False)
        section("nasrun checks", rows(found), console)
    return 0
