"""Runs that are killed at random events and resumed, compared with runs that nobody disturbed.

A kill is placed by the number of an event (events.py), which a seed decides: uniform over all that
is left of the run, so that some come before the run has begun, some in the middle of a checkpoint,
and some at its end.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from processes import Fault, Processes

from nasrun.config.compose import compose
from nasrun.config.groups import conf_dir, task_of_recipe

RECIPES = sorted(path.stem for path in (conf_dir() / "experiment").glob("[!_]*.yaml"))
FIRST = {"retrain": "search", "search_from": "supernet"}
"""Runs that start from another."""
TASKS = ("search", "retrain", "supernet", "search_from")
RUNS = (*TASKS, *RECIPES)

EXACT = (
    *("metrics.jsonl", "trials.jsonl", "architecture.json", "ranking.csv", "ranking.json"),
    *("supernet.safetensors", "network.safetensors", "ranking.png", "front.json", "front.png"),
    *("network_best.safetensors", "network_last.safetensors"),
)
"""Files that must be the same bytes."""

KILLS_OF_A_RUN = 6
"""After so many it is left to end."""


@dataclass
class Counts:
    """Kills, processes that resumed a run, runs that came to their end, and what differed."""

    kills: int = 0
    resumes: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = f"kills {self.kills}  resumes {self.resumes}  runs {self.runs}"
        return f"{found}  differences {len(self.differences)}"


def words(run: str, further: Sequence[str] = ()) -> list[str]:
    """The command line of a recipe's smoke, or of a task's, in the directory ``run``; small."""
    fixed = ["effort=smoke", "threads=1", "hydra.run.dir=run", *further]
    if run == "retrain":
        return ["retrain", "from=../first/run", "retrain.trainer.epochs=6", *fixed]
    if run == "search_from":
        return ["search", "from=../first/run", "search_algo=nsga2", *fixed]
    if run == "supernet":
        spos = ["experiment=small_spos_fashion_mnist", "trainer.epochs=4"]
        return ["supernet", *spos, *fixed]
    task = run if run in ("search", "rank") else task_of_recipe(run)
    line = [task] if task == run else [task, f"experiment={run}"]
    if task in ("search", "rank") and has_nodes(task, run if task != run else None):
        line.append("search_space.nodes=2")  # of five: as much to go wrong in a third of the time
    return [*line, *fixed]


@cache
def has_nodes(task: str, recipe: str | None) -> bool:
    """Whether the search space of a recipe is one of cells with nodes."""
    overrides = [f"task={task}", *([f"experiment={recipe}"] if recipe else [])]
    return "nodes" in compose(overrides)["search_space"]


def next_line(place: Path, run: str, further: Sequence[str]) -> list[str]:
    """A user's words after a crash: the first line again where no run had begun yet."""
    return ["resume", "run"] if (place / "run/run.json").exists() else words(run, further)


def differences(one: Path, other: Path) -> Iterator[str]:
    """Lines that tell what is not the same in two finished runs: files, results, remains."""
    for name in EXACT:
        first, second = one / name, other / name
        if first.exists() != second.exists():
            yield f"{name} is only in one"
        elif first.exists() and first.read_bytes() != second.read_bytes():
            yield f"{name} differs"
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for result in results:
        del result["seconds"]
        result.pop("ranking_seconds", None)
        del result["spent"]["device_seconds"]
    if results[0] != results[1]:
        yield "result.json differs"
    left = sorted(path.name for path in other.iterdir() if path.name.startswith((".", "lock")))
    if left:
        yield f"left behind: {left}"


def soak(
    processes: Processes,
    run: str,
    kills: int,
    seed: object,
    place: Path,
    *further: str,
    faults: Sequence[Fault] = (),
) -> Counts:
    """Have a run killed ``kills`` times or more, finish it, and compare; ``place`` is empty.

    further: overrides. faults: of all its processes. Stops at the first run that differs, and
    leaves it in ``place``.
    """
    chance = random.Random(f"{seed} {run}")  # noqa: S311 - places of kills, not secrets
    # A checkpoint by the clock would make the events others from process to process.
    further = ("checkpoint.minutes=null", *further)
    line, alone, killed = words(run, further), place / "alone", place / "killed"
    if run in FIRST:
        first = processes.run(place / "first", *words(FIRST[run], further), faults=faults)
        assert first.status == 0, first.err
    counter = [*faults, ("count_events", [str(place / "events.txt")])]
    done = processes.run(alone, *line, faults=counter)
    assert done.status == 0, done.err
    events = int((place / "events.txt").read_text())
    counts = Counts()
    while counts.kills < kills and not counts.differences:
        shutil.rmtree(killed, ignore_errors=True)
        killed.mkdir()
        left, here = events, 0
        while True:
            line = next_line(killed, run, further)
            counts.resumes += line[0] == "resume"
            placed = here < KILLS_OF_A_RUN and counts.kills < kills
            at = chance.randint(1, left)
            kill: list[Fault] = [("kill_at_event", [at])] if placed else []
            done = processes.run(killed, *line, faults=[*faults, *kill])
            if done.status != -signal.SIGKILL:
                break
            counts.kills += 1
            here += 1
            left = max(left - at, 0) + events // 10 + 1  # a resumed run does some of it again
        assert here, "an undisturbed run has other events than the one before"
        counts.runs += 1
        if done.status != 0:
            counts.differences.append(f"exit status {done.status}: {done.err}")
        else:
            counts.differences += differences(alone / "run", killed / "run")
    return counts
