"""Go on with a run that was stopped or killed, to the same bits."""

from __future__ import annotations

from pathlib import Path

from nasrun.cli import outputs
from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError
from nasrun.run.files import at_home

USAGE = "RUN_DIR [KEY=VALUE ...]"
SWITCHES = ()


def run(line: CommandLine) -> int:
    """Continue the run in the directory that the first word names."""
    from nasrun.cli.resume import resume

    if line.switches or not line.overrides:
        switch = f", and no switch like {line.switches[0]}" if line.switches else ""
        raise UserError(
            f"resume takes a run's directory: nasrun resume RUN_DIR [KEY=VALUE]{switch}"
        )
    directory, *overrides = line.overrides
    outputs.note(at_home(directory), sweep=False)
    resume(Path(directory), overrides)
    return 0
