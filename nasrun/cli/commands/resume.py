"""Go on with a run that was stopped or killed, to the same bits."""

from __future__ import annotations

from nasrun.cli import outputs
from nasrun.cli.arguments import CommandLine
from nasrun.cli.run_names import resolve
from nasrun.errors import UserError
from nasrun.run.layout import RECORD

USAGE = "RUN [KEY=VALUE ...]"
SWITCHES = ()


def run(line: CommandLine) -> int:
    """Continue the run that the first word names: its directory, its name, or latest."""
    from nasrun.cli.resume import resume

    if line.switches or not line.overrides:
        switch = f", and no switch like {line.switches[0]}" if line.switches else ""
        raise UserError(
            f"resume takes a run's directory: nasrun resume RUN_DIR [KEY=VALUE]{switch}"
        )
    word, *overrides = line.overrides
    directory = resolve(word, needed=RECORD, best=False)
    outputs.note(directory, sweep=False)
    resume(directory, overrides)
    return 0
