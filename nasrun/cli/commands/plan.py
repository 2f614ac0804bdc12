"""Say what a run will take: time, memory and disk of each stage, before it begins.

The command composes, builds and checks all that the run would, budgets and data included, and
times a few steps of each stage. It writes nothing below ``outputs``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasrun.cli import arguments
from nasrun.cli.arguments import CommandLine
from nasrun.config.groups import defaults, tasks
from nasrun.errors import Interrupted, UserError, nearest, shortened
from nasrun.run.end_box import duration
from nasrun.run.files import copy_files, free_bytes, scratch_folder

if TYPE_CHECKING:
    from nasrun.cli.launch import Prepared
    from nasrun.task.rehearsal import TimedStage

USAGE = "[TASK] [GROUP=OPTION ...] [KEY=VALUE ...]"
SWITCHES = ()

MAX_ROWS = 16
"""Rows of the table; with more stages, those of a kind share a row."""

MAX_COPIED_BYTES = 10**8
"""Size of a folder of earlier results that is copied, so that the plan knows what they save."""

ALARM = 0.9
"""Share of the free memory or disk above which the plan warns."""


def run(line: CommandLine) -> int:
    """Plan the run that the other words stand for; the first may be a task."""
    task, *overrides = line.overrides or ("",)
    if task not in tasks():
        if task and "=" not in task and not task.startswith(("+", "~")):
            near = nearest(task, tasks())
            raise UserError(f"unknown task {shortened(repr(task))}{near}; {', '.join(tasks())}")
        overrides, task = list(line.overrides), defaults()["task"]
    if line.has(arguments.MULTIRUN):
        raise UserError("plan is for one run: leave -m out, and take its time for each job")
    ready, stages = plan(CommandLine(task, tuple(overrides), line.switches))
    device = ready.compute.describe()
    sys.stdout.write(f"{ready.name} on {device}, seed {ready.setup.seed}\n")
    for row in table(stages):
        sys.stdout.write(f"{row}\n")
    outputs = Path(str(ready.settings["outputs"])).absolute()
    for warning in warnings(stages, outputs, on_gpu=ready.compute.device.type == "cuda"):
        sys.stdout.write(f"warning: {warning}\n")
    return 0


def plan(
    line: CommandLine, clock: Callable[[], float] = time.perf_counter
) -> tuple[Prepared, list[TimedStage]]:
    """Rehearse a run; returns the run as it would be, and its stages. clock: seconds."""
    from nasrun.cli.launch import fitted, prepare
    from nasrun.cli.main import ready_overrides
    from nasrun.config.compose import compose
    from nasrun.config.explain import CONFIGURATION_ERRORS, explain_all
    from nasrun.task.rehearsal import Rehearsal, RehearsedSetup
    from nasrun.task.rehearsal_settings import looks_of, rehearsed

    config_dir = line.value(arguments.CONFIG_DIR)
    overrides = [*ready_overrides(line), f"task={line.task}"]
    try:
        settings = compose(overrides, config_dir)
    except CONFIGURATION_ERRORS as error:
        raise explain_all(error, overrides, config_dir, several=False) from error
    settings = fitted(settings, overrides[:-1], config_dir)
    ready = prepare(settings)  # with the user's own words in its messages
    with scratch_folder("plan") as folder:
        shorter, factors = rehearsed(ready.settings, folder)
        copy_stores(ready.settings, shorter)
        short = prepare(shorter)
        setup = RehearsedSetup(**vars(short.setup))
        run = Rehearsal(
            folder / "run",
            factors=factors,
            looks=looks_of(ready.settings),
            clock=clock,
            tell=tell,
            task=ready.name,
            config=short.settings,
            overrides=overrides[:-1],
            seed=setup.seed,
            compute=short.compute,
            checkpoint=setup.checkpoint,
        )
        try:
            short.task.run(setup, run, short.source)
        except Interrupted as stopped:
            raise Interrupted(stopped.signal) from stopped  # nothing was saved
        finally:
            run.close()
            tell("")
        return ready, run.done()


def tell(stage: str) -> None:
    """Show which stage is timed, in a line that the next one replaces; "": none any more."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{f'timing {stage} ...' if stage else ''}")
        sys.stderr.flush()


def copy_stores(settings: dict[str, Any], shorter: dict[str, Any]) -> None:
    """Copy what earlier runs have left in shared folders to those of the rehearsal, if small."""
    for names in (("rank", "truth_store"), ("budget", "latency", "store")):
        places = []
        for node in (settings, shorter):
            for name in names:
                node = node.get(name, {}) if isinstance(node, dict) else {}
            places.append(node)
        source, copy = places
        if isinstance(source, str) and isinstance(copy, str) and Path(source).is_dir():
            copy_files(Path(source), Path(copy), MAX_COPIED_BYTES)


def table(stages: Sequence[TimedStage]) -> list[str]:
    """Return the lines of the table of stages, with the total at its end."""
    from nasrun.run.memory import in_words
    from nasrun.task.rehearsal import total_of

    rows = [("stage", "steps", "time", "memory", "disk")]
    for each in merged(stages) if len(stages) > MAX_ROWS else stages:
        disk = in_words(each.disk) if each.disk > 0 else ""
        steps = f"{each.steps:,}" if each.steps else ""
        rows.append((each.name, steps, short_or_long(each.seconds), in_words(each.memory), disk))
    seconds, error = total_of(stages)
    peak = in_words(max(each.memory for each in stages))
    rows.append(("total", "", short_or_long(seconds), peak, in_words(most_on_disk(stages))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"  {row[0]:{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    lines.insert(-1, "  " + "-" * (sum(widths) + 8))
    low, high = short_or_long(max(seconds - error, 0.0)), short_or_long(seconds + error)
    between = f"about {low}" if low == high else f"between {low} and {high}"
    return [
        *(each.rstrip() for each in lines),
        f"{between}, if nothing else keeps the machine busy",
    ]


def most_on_disk(stages: Sequence[TimedStage]) -> int:
    """Return the most bytes that lie in the directory of the run at the end of a stage."""
    return max(accumulate(each.disk for each in stages))


def merged(stages: Sequence[TimedStage]) -> list[TimedStage]:
    """Return a stage for each kind, where there are many."""
    from nasrun.task.rehearsal import TimedStage

    found: dict[str, list[TimedStage]] = {}
    for each in stages:
        found.setdefault(each.name.partition("/")[0], []).append(each)
    return [
        of_kind[0]
        if len(of_kind) == 1
        else TimedStage(
            f"{kind} ({len(of_kind)} stages)",
            sum(each.steps for each in of_kind),
            seconds=sum(each.seconds for each in of_kind),
            memory=max(each.memory for each in of_kind),
            disk=sum(each.disk for each in of_kind),
        )
        for kind, of_kind in found.items()
    ]


def warnings(stages: Sequence[TimedStage], outputs: Path, *, on_gpu: bool) -> list[str]:
    """Return a line for each thing that will not fit, or only just."""
    from nasrun.run.memory import available_bytes, in_words

    found = []
    peak = max(stages, key=lambda each: each.memory)
    free = available_bytes()
    if not on_gpu and peak.memory > ALARM * (free + stages[-1].memory):
        found.append(
            f"{peak.name} takes {in_words(peak.memory)} of memory, and {in_words(free)} are free "
            "beside the plan itself: lower the batch size or the networks, or set batch_size=auto"
        )
    disk, room = most_on_disk(stages), free_bytes(outputs)
    if disk > ALARM * room:
        found.append(
            f"the run writes {in_words(disk)}, and {in_words(room)} are free in {outputs}: choose "
            "another place with outputs=DIR"
        )
    return found


def short_or_long(seconds: float) -> str:
    """Write a time as people say it; below ten seconds with a digit behind the point."""
    return f"{seconds:.1f} s" if seconds < 9.95 else duration(seconds)
