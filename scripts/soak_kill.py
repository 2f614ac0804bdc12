"""Kill runs at random instants, resume them, and compare with runs that nobody disturbed.

    python scripts/soak_kill.py --kills 300                # every recipe's smoke in turn
    python scripts/soak_kill.py --kills 5 nao_v2_cifar10   # one recipe
    python scripts/soak_kill.py --kills 5 search retrain   # the plain search, and a retraining
    python scripts/soak_kill.py --device cuda              # on a GPU, with deterministic=true

Every recipe's smoke is run once undisturbed. Then it is run again and killed (SIGKILL) at random
instants, five times or more, resumed after each, and at its end compared: metrics, trials, winner,
result and weights must be the same bytes. Exit status 1 where anything differs. A kill lands
wherever it lands: while a checkpoint is written, between the rename and the next line of metrics,
while a run starts. Processes are forked from one that has imported torch, so that the kills hit
the work and not the imports.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

# What a run imports as it goes: once here, so that it is not what the kills hit.
import hydra.core.hydra_config  # noqa: F401
import matplotlib.backends.backend_agg  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch._dynamo  # noqa: F401

import nasrun.cli.from_run
import nasrun.cli.help
import nasrun.cli.main
import nasrun.cli.resume
import nasrun.config.compose
import nasrun.report.ranking
import nasrun.task.rank
import nasrun.task.retrain
import nasrun.task.search
import nasrun.task.supernet
from nasrun.config.groups import task_of_recipe

RECIPES = sorted(p.stem for p in (Path(__file__).parent.parent / "conf/experiment").glob("*.yaml"))
EXACT = (
    *("metrics.jsonl", "trials.jsonl", "architecture.json", "ranking.csv", "ranking.json"),
    *("supernet.safetensors", "network.safetensors", "ranking.png", "front.json", "front.png"),
)
FIRST = {"retrain": "search", "search_from": "supernet"}
"""Runs that start from another."""
TASKS = ("search", "retrain", "supernet", "search_from")
FAILED = 9
"""Exit status of a child that ended without one."""
KILLS = 6
"""Kills of one run before it is left to end."""


def words(recipe: str, further: Sequence[str]) -> list[str]:
    """The command line of a recipe's smoke, or of a task's."""
    fixed = ["effort=smoke", "threads=1", "hydra.run.dir=run", *further]
    if recipe == "retrain":
        return ["retrain", "from=../first/run", "retrain.trainer.epochs=6", *fixed]
    if recipe == "search_from":
        return ["search", "from=../first/run", "search_algo=nsga2", *fixed]
    if recipe == "supernet":
        spos = ["experiment=small_spos_fashion_mnist", "trainer.epochs=4"]
        return ["supernet", *spos, *fixed]
    task = recipe if recipe in ("search", "rank") else task_of_recipe(recipe)
    line = [task] if task == recipe else [task, f"experiment={recipe}"]
    if task == "search" and has_nodes(recipe if task != recipe else None):
        line.append("search_space.nodes=2")  # of five: as much to go wrong in a third of the time
    return [*line, *fixed]


@cache
def has_nodes(recipe: str | None) -> bool:
    """Whether the search space of a recipe is one of cells with nodes."""
    words = ["task=search", *([f"experiment={recipe}"] if recipe else [])]
    return "nodes" in nasrun.config.compose.compose(words)["search_space"]


def start(arguments: Sequence[str], place: Path) -> int:
    """A forked process that runs the command in ``place``; its process id."""
    process = os.fork()
    if process:
        return process
    os.chdir(place)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = FAILED
    try:
        status = nasrun.cli.main.main(arguments)
    finally:
        os._exit(status)


def end(process: int, within: float | None = None, after: Path | None = None) -> int | None:
    """Wait for a process; kill it after ``within`` seconds. Its exit status; None: killed.

    after: a file; the seconds count from when it is written anew.
    """
    before = stamp(after)
    deadline = math.inf if within is None else time.monotonic() + within
    while True:
        if after is not None and within is not None and stamp(after) == before:
            deadline = time.monotonic() + within
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.002)


def stamp(path: Path | None) -> int:
    return path.stat().st_mtime_ns if path is not None and path.exists() else 0


def next_line(place: Path, recipe: str, further: Sequence[str]) -> list[str]:
    """What a user types after a crash: the first line again where no run had begun yet."""
    return ["resume", "run"] if (place / "run/run.json").exists() else words(recipe, further)


def differences(one: Path, other: Path) -> Iterator[str]:
    """What is not the same in two finished runs: lines, results, weights."""
    for name in EXACT:
        first, second = one / name, other / name
        if first.exists() != second.exists():
            yield f"{name} is only in one"
        elif first.exists() and first.read_bytes() != second.read_bytes():
            yield f"{name} differs"
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for result in results:
        del result["seconds"]
    if results[0] != results[1]:
        yield "result.json differs"
    left = sorted(path.name for path in other.iterdir() if path.name.startswith((".", "lock")))
    if left:
        yield f"left behind: {left}"


def soak(
    recipe: str, kills: int, further: Sequence[str], chance: random.Random, place: Path
) -> dict[str, int]:
    """One recipe's run, killed ``kills`` times and finished; counts, and differences told."""
    alone, killed = place / "alone", place / "killed"
    alone.mkdir(parents=True)
    if recipe in FIRST:
        (place / "first").mkdir()
        end(start(words(FIRST[recipe], further), place / "first"))
    began = time.monotonic()
    if (status := end(start(words(recipe, further), alone))) != 0:
        sys.exit(f"{recipe}: the undisturbed run failed ({status}): see {alone / 'log.txt'}")
    seconds = time.monotonic() - began
    counts = {"kills": 0, "resumes": 0, "runs": 0, "differences": 0}
    while (left := kills - counts["kills"]) > 0:
        shutil.rmtree(killed, ignore_errors=True)
        killed.mkdir()
        here = 0
        while True:
            line = next_line(killed, recipe, further)
            counts["resumes"] += line[0] == "resume"
            # Spread over what is left; one in four may come while the process still starts.
            within = chance.uniform(0, 2 * seconds / KILLS) if here < min(KILLS, left) else None
            started = chance.random() < 0.25
            status = end(start(line, killed), within, None if started else killed / "run/run.json")
            if status is not None:
                break
            counts["kills"] += 1
            here += 1
        counts["runs"] += 1
        found = (
            list(differences(alone / "run", killed / "run"))
            if status == 0
            else [f"exit status {status}"]
        )
        if found:
            counts["differences"] += len(found)
            print(f"{recipe}: {'; '.join(found)}: see {killed}", file=sys.stderr, flush=True)
            kept = Path(tempfile.mkdtemp(prefix="soak_difference_"))
            shutil.copytree(place, kept, dirs_exist_ok=True)
            print(f"a copy is in {kept}", file=sys.stderr, flush=True)
    return counts


def soak_all() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=[*TASKS, *RECIPES])
    parser.add_argument("--kills", type=int, default=300, help="at least, over all recipes")
    parser.add_argument("--steps", type=int, default=3, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda with deterministic=true")
    arguments = parser.parse_args()
    further = [f"checkpoint.steps={arguments.steps}", f"device={arguments.device}"]
    if arguments.device != "cpu":
        further.append("deterministic=true")
    chance = random.Random(arguments.seed)  # noqa: S311 - instants, not secrets
    gc.collect()
    gc.freeze()  # else the first collection in a child copies all of its memory
    each = -(-arguments.kills // len(arguments.recipes))
    total = {"kills": 0, "resumes": 0, "runs": 0, "differences": 0}
    for recipe in arguments.recipes:
        with tempfile.TemporaryDirectory() as place:
            counts = soak(recipe, each, further, chance, Path(place))
        print(
            f"{recipe:24}", "  ".join(f"{key} {value}" for key, value in counts.items()), flush=True
        )
        total = {key: total[key] + value for key, value in counts.items()}
    gc.unfreeze()
    print(f"{'all':24}", "  ".join(f"{key} {value}" for key, value in total.items()))
    return int(total["differences"] > 0)


if __name__ == "__main__":
    sys.exit(soak_all())
