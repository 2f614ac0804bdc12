"""Compare two checkouts: run the smoke of every recipe in both and compare the files.

    python scripts/compare_checkouts.py ../before .                  # all recipes and tasks
    python scripts/compare_checkouts.py ../before . darts_cifar10    # some of them
    python scripts/compare_checkouts.py ../before . --keep runs      # existing runs are not
    repeated

A refactoring changes no behaviour: metrics, trials, winners, rankings, comparisons and weights must
be the same bytes, results the same except for the seconds. Both checkouts run in the environment of
this interpreter, with one thread. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = (".jsonl", ".csv", ".json", ".safetensors")
"""Suffixes of files that are compared byte by byte; pictures are compared by name only.

Of weights the tensors are compared, and not the texts in the header.
"""

NOT_COMPARED = ("run.json", "result.json")
"""Files that may differ: run.json names classes, result.json has seconds."""

SMOKE = ("effort=smoke", "threads=1", "hydra.run.dir=run")

PREDECESSORS = {"retrain_from": "search", "search_from": "supernet", "rank_from": "supernet"}
"""Runs that start from another run -> that run."""

TASKS = {
    "search": ("search",),
    "supernet": ("supernet", "experiment=small_spos_fashion_mnist", "trainer.epochs=4"),
    "retrain_from": ("retrain", "from=../search/run", "retrain.trainer.epochs=6"),
    "search_from": ("search", "from=../supernet/run", "search_algo=nsga2"),
    "rank_from": ("rank", "from=../supernet/run", "rank.truth_store=truth"),
}
"""Runs without a recipe; some start from others, see PREDECESSORS."""

FORKED = """
import gc, json, os, runpy, sys
import hydra.core.hydra_config, scipy.stats, torch._dynamo
import matplotlib.backends.backend_agg
import nasrun
assert nasrun.__file__.startswith(sys.argv[1]), nasrun.__file__
gc.collect()
gc.freeze()
for place, words in json.load(sys.stdin):
    process = os.fork()
    if not process:
        os.makedirs(place, exist_ok=True)
        os.chdir(place)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["nasrun", *words]
        runpy.run_module("nasrun", run_name="__main__")
    _, status = os.waitpid(process, 0)
    print(f"{os.waitstatus_to_exitcode(status)} {place}", flush=True)
gc.unfreeze()
"""
"""Runs nasrun in processes forked from one that has done the slow imports."""


def task_of(recipe: Path) -> str:
    """Return the task of a recipe, by its defaults list or that of a recipe it builds on."""
    entries = (yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}).get("defaults", [])
    for entry in entries:
        if isinstance(entry, dict) and "override /task" in entry:
            return str(entry["override /task"])
    bases = [recipe.with_stem(entry) for entry in entries if isinstance(entry, str)]
    tasks = [task_of(base) for base in bases if base.exists()]
    return next((task for task in tasks if task != "search"), "search")


def lines_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the command line of each run by name, in an order in which they can run."""
    recipes = {path.stem: path for path in sorted((ROOT / "conf/experiment").glob("*.yaml"))}
    wanted = list(names) or [*TASKS, *recipes]
    wanted = [PREDECESSORS[name] for name in wanted if name in PREDECESSORS] + wanted
    lines = {}
    for name in dict.fromkeys(wanted):
        if name in TASKS:
            lines[name] = [*TASKS[name], *SMOKE]
        elif name in recipes:
            lines[name] = [task_of(recipes[name]), f"experiment={name}", *SMOKE]
        else:
            sys.exit(f"there is no recipe {name}; tasks: {', '.join(TASKS)}")
    return lines


def run(checkout: Path, lines: dict[str, list[str]], place: Path) -> subprocess.Popen[str]:
    """Start the runs of a checkout in ``place``; finished runs are not repeated."""
    orders = [
        (str(place / name), words)
        for name, words in lines.items()
        if not (place / name / "run/result.json").exists()
    ]
    place.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", FORKED, str(checkout)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin  # noqa: S101 - a pipe was asked for
    json.dump(orders, process.stdin)
    process.stdin.close()
    return process


def failures(process: subprocess.Popen[str]) -> list[str]:
    """Wait for the runs; returns the places of runs that failed."""
    assert process.stdout  # noqa: S101 - a pipe was asked for
    ended = [line.split(maxsplit=1) for line in process.stdout]
    if process.wait():
        return ["the process that runs them all"]
    return [place.strip() for status, place in ended if status != "0"]


def content(path: Path) -> bytes:
    """Return what is compared of a file: of weights the tensors, not what is said of them."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return json.dumps(header, sort_keys=True).encode() + data[8 + size :]


def differences(first: Path, second: Path) -> Iterator[str]:
    """Yield the differences between two finished run directories."""
    files = [
        {
            path.name: path
            for path in run.iterdir()
            if path.is_file() and "tfevents" not in path.name and path.name != "lock"
        }
        for run in (first, second)
    ]
    for name in sorted(files[0].keys() | files[1].keys()):
        if not all(name in found for found in files):
            yield f"{name} is only in {first if name in files[0] else second}"
        elif (
            name not in NOT_COMPARED
            and name.endswith(SUFFIXES)
            and content(files[0][name]) != content(files[1][name])
        ):
            yield f"{name} differs"
    if all("result.json" in found for found in files):
        results = [json.loads(found["result.json"].read_text()) for found in files]
        # An older checkout counts no cost.
        counted = all("spent" in result for result in results)
        for result in results:
            spent = result.pop("spent", {})
            for key in ("seconds", "ranking_seconds"):
                result.pop(key, None)
                spent.pop(key, None)
            result |= {"spent": spent} if counted else {}
        if results[0] != results[1]:
            yield "result.json differs"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("recipes", nargs="*")
    parser.add_argument("--keep", type=Path, help="folder for the runs, kept for the next call")
    arguments = parser.parse_args()
    checkouts = [path.resolve() for path in (arguments.before, arguments.after)]
    lines = lines_of(arguments.recipes)
    with tempfile.TemporaryDirectory() as scratch:
        place = (arguments.keep or Path(scratch)).resolve()
        places = [place / "before", place / "after"]
        running = [run(*where) for where in zip(checkouts, [lines] * 2, places, strict=True)]
        failed = [name for process in running for name in failures(process)]
        for name in failed:
            print(f"failed: {name}: see log.txt there")
        different = 0
        for name in lines:
            runs = [place / name / "run" for place in places]
            if not all((directory / "result.json").exists() for directory in runs):
                continue
            found = list(differences(*runs))
            different += bool(found)
            print(f"{name:40} {'; '.join(found) or 'equal'}", flush=True)
    print(f"{len(lines)} runs, {different} differ, {len(failed)} failed")
    return int(different > 0 or bool(failed))


if __name__ == "__main__":
    sys.exit(main())
