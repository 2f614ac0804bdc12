"""Command lines of several ranks: ``torchrun --nproc-per-node=N -m nasrun ...``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nasrun.cli import arguments
from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError
from nasrun.run import ranks

TOGETHER = ("search", "supernet", "retrain", "rank", "resume")
"""Tasks and commands on which several ranks work; the others are left to the first rank."""


def take_part(line: CommandLine) -> bool:
    """Join the other ranks if the line is for several; returns whether this one has work.

    Raises UserError if it is a sweep, or the ranks do not find each other.
    """
    own = ranks.place()
    if own.size == 1:
        return True
    if line.task not in TOGETHER or line.has((*arguments.HELP, *SHOWN)):
        return own.rank == 0
    if line.has(arguments.MULTIRUN):
        raise UserError(
            f"{own.size} ranks work on one run, and -m begins many: start torchrun once for each, "
            "or leave it out and take hydra/launcher=joblib, one job for each device"
        )
    ranks.join(own)
    return True


SHOWN = ("--version", "--cfg", "-c", "--info", "-i", *arguments.WITHOUT_TASK)
"""Switches with which nothing is run."""


def common_place(overrides: Sequence[str]) -> list[str]:
    """Return the override of the directory that all ranks share; [] if a new one has none yet."""
    if ranks.current.size == 1 or any(word.startswith("hydra.run.dir=") for word in overrides):
        return []
    now = ranks.current.agree(
        f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{time.time_ns() % 10**9 // 1000:06}"
    )
    return [f"hydra.run.dir=${{outputs}}/${{task}}/{now}"]
