"""Go on with a run or a sweep that was stopped or killed, to the same bits."""

from __future__ import annotations

from pathlib import Path

from nasrun.cli import arguments, outputs
from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError
from nasrun.run import ranks
from nasrun.run.layout import RECORD

USAGE = "RUN|SWEEP [KEY=VALUE]"
SWITCHES = ()


def run(line: CommandLine) -> int:
    """Continue what the first word names: a run, or all that is missing of a sweep.

    The word is a directory, a name, or latest.
    """
    from nasrun.cli.run_names import resolve
    from nasrun.report.run_list import is_sweep

    if not line.overrides:
        raise UserError("resume takes a run's directory: nasrun resume RUN_DIR [KEY=VALUE]")
    word, *overrides = line.overrides
    directory = resolve(word, needed=RECORD, best=False)
    directory = Path(ranks.current.agree(str(directory)))
    config_dir = line.value(arguments.CONFIG_DIR)
    sweep = is_sweep(directory)
    if line.switches and not (sweep and config_dir and len(line.switches) <= 2):
        allowed = "KEY=VALUE and -cd DIR" if sweep else "KEY=VALUE"
        raise UserError(f"resume takes {allowed}, and no switch like {line.switches[0]}")
    if sweep and ranks.current.size > 1:
        raise UserError(f"{directory} is a sweep, and ranks work on one run: name one of its jobs")
    if sweep:
        from nasrun.cli.resume_sweep import resume_sweep

        return resume_sweep(directory, overrides, config_dir)
    from nasrun.cli.resume import resume

    outputs.note(directory, sweep=False)
    resume(directory, overrides)
    return 0
