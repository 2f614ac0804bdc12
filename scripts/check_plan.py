"""Hold what ``nasrun plan`` says against the run itself, in seconds of CPU time.

    python scripts/check_plan.py search experiment=small_fashion_mnist threads=1

CPU time tells how good the plan is also where other programs keep the machine busy; with more than
one thread it adds their times up.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from nasrun.cli.arguments import CommandLine
from nasrun.cli.commands.plan import plan, table
from nasrun.cli.main import main
from nasrun.report.run_files import RunDirectory
from nasrun.task.rehearsal import total_of


def check(task: str, words: list[str]) -> None:
    """Plan a run, do it, and print both times, in all and by stage."""
    began = time.process_time()
    _, stages = plan(CommandLine(task, tuple(words), ()), clock=time.process_time)
    planning = time.process_time() - began
    print(*table(stages), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        began = time.process_time()
        status = main([task, *words, f"hydra.run.dir={directory}"])
        seconds = time.process_time() - began
        if status or RunDirectory(directory).status != "done":
            raise SystemExit("the run has failed")
    planned, error = total_of(stages)
    print(
        f"planned {planned:.1f} ± {error:.1f} s, took {seconds:.1f} s: "
        f"{100 * (planned / seconds - 1):+.0f} %; the plan took {planning:.1f} s"
    )


if __name__ == "__main__":
    check(sys.argv[1], sys.argv[2:])
