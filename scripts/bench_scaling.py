"""Measure how cost grows with what a user has many of, on made-up runs: see docs/scaling.md.

    python scripts/bench_scaling.py [runs sweep trials pool search training] [--most 10000]

A row is a command in a process of its own: seconds of CPU, the most memory it held, and how the
seconds grew from the row above: 1.0 is in proportion, 2.0 with the square. Fixed costs (start-up)
make small sizes grow more slowly than that.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nasrun.config.compose import compose

JOBS = 6
"""Jobs of each sweep among the runs."""

SPENT = {"evaluations": 50, "training_steps": 1000, "images": 64000, "device_seconds": 9.5}
RESULT = {"status": "done", "task": "search", "score": 0.5, "params": 10**6, "seconds": 12.5}

SUMMARY = """
import sys
from pathlib import Path
from nasrun.report.sweep import summarise
summarise(Path(sys.argv[1]))
"""

POOL = """
import json, sys
import numpy as np
from nasrun.architectures.samples import sample_distinct
from nasrun.budget.candidates import Candidates
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.search_algo.pool import Pool

count, space = int(sys.argv[1]), build_setup(compose(["task=search"])).search_space
pool = Pool(Candidates(space))
pool.add({space.canonical(a): a for a in sample_distinct(space, np.random.default_rng(0), count)})
"""


@dataclass(frozen=True)
class Row:
    """One measurement. count: how many of ``what``. note: e.g. the size of a file."""

    what: str
    count: int
    seconds: float
    mebibytes: float
    note: str = ""


def run(*words: str, place: Path) -> tuple[float, float]:
    """Run Python with these words in ``place``; returns seconds of CPU and the most MiB held."""
    process = subprocess.Popen([sys.executable, *words], cwd=place, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def nasrun(*words: str, place: Path) -> tuple[float, float]:
    """Run nasrun with these words; see ``run``."""
    return run("-m", "nasrun", *words, place=place)


def make_run(directory: Path, number: int, *overrides: str) -> None:
    """Make a search that is done, with its whole configuration, as run.json holds it."""
    directory.mkdir(parents=True)
    words = [f"seed={number}", *overrides]
    accuracy = 0.5 + (number * 0.618034) % 1 / 4
    record = {
        "nasrun": "0",
        "task": "search",
        "overrides": words,
        "seed": number,
        "started": "2026-11-26T04:28:28+0000",
        "config": {**CONFIG, "seed": number},
    }
    result = {**RESULT, "test_accuracy": accuracy, "spent": SPENT}
    (directory / "run.json").write_text(json.dumps(record, indent=2))
    (directory / "result.json").write_text(json.dumps(result, indent=2))


def make_sweep(directory: Path, jobs: int) -> None:
    """Make a sweep of as many settings as it has seeds, each with each."""
    side = math.isqrt(jobs - 1) + 1
    for number in range(jobs):
        setting, seed = divmod(number, side)
        make_run(directory / str(number), seed, f"trainer.schedule.lr={(setting + 1) / 1000:g}")
        words = [f"seed={seed}", f"trainer.schedule.lr={(setting + 1) / 1000:g}"]
        (directory / str(number) / "job.json").write_text(json.dumps({"overrides": words}))
    (directory / "multirun.yaml").write_text("x: 1\n")


def runs(most: int, scratch: Path) -> Iterator[Row]:
    """List runs, a tenth of them in sweeps."""
    for count in (most // 10, most):
        folder = scratch / f"runs{count}"
        for number in range(count):
            sweep = f"multirun_{number // 10 // JOBS}/{number // 10 % JOBS}"
            name = sweep if number % 10 == 0 else f"2026-11-26_04-28-28-{number:06d}"
            make_run(folder / name, number, "sampler=uniform", "trainer.epochs=3")
        for sweep in folder.glob("multirun_*"):
            (sweep / "multirun.yaml").write_text("x: 1\n")
        for words in ([], ["seed=77"], ["--csv"]):
            cost = nasrun("runs", f"outputs={folder}", *words, place=scratch)
            yield Row(" ".join(["nasrun runs", *words]), count, *cost)
        shutil.rmtree(folder)


def sweep(most: int, scratch: Path) -> Iterator[Row]:
    """Summarise, list and report a sweep."""
    for count in (most // 100, most // 10, most):
        folder = scratch / f"sweep{count}"
        make_sweep(folder, count)
        yield Row("summary of a sweep", count, *run("-c", SUMMARY, str(folder), place=scratch))
        cost = nasrun("runs", str(folder), place=scratch)
        yield Row("nasrun runs SWEEP", count, *cost)
        cost = nasrun("report", str(folder), place=scratch)
        size = (folder / "report.html").stat().st_size / 2**20
        yield Row("nasrun report SWEEP", count, *cost, f"page of {size:.1f} MiB")
        shutil.rmtree(folder)


def trials(most: int, scratch: Path) -> Iterator[Row]:
    """Report a search of many trials."""
    for count in (most // 10, most, 10 * most, 100 * most):
        folder = scratch / f"trials{count}"
        make_run(folder, 0)
        with (folder / "trials.jsonl").open("w") as file:
            for number in range(count):
                file.write(json.dumps(trial(number)) + "\n")
        read = (folder / "trials.jsonl").stat().st_size / 2**20
        cost = nasrun("report", str(folder), place=scratch)
        yield Row("nasrun report RUN, trials", count, *cost, f"log of {read:,.0f} MiB")
        shutil.rmtree(folder)


def trial(number: int) -> dict[str, object]:
    """Make a line of trials.jsonl as a search in nao_cell writes it."""
    choices = [number >> place & 1 for place in range(40)]
    evaluation = {"evaluator": "supernet", "batch_norm": "batch", "images": 5000, "round": 0}
    return {
        "round": 0,
        "architecture": {"space": "nao_cell", "choices": choices},
        "score": number * 0.618034 % 1,
        "cost": {"params": 10**6 + number, "macs": 10**8},
        "seed": 0,
        "evaluation": evaluation,
    }


def pool(most: int, scratch: Path) -> Iterator[Row]:
    """Hold a pool of architectures."""
    for count in (most, 10 * most, 100 * most):
        yield Row("pool of architectures", count, *run("-c", POOL, str(count), place=scratch))


def search(most: int, scratch: Path) -> Iterator[Row]:
    """Search without a supernet, with a checkpoint at the end of its trials."""
    for count in (most // 100, most // 10, most):
        folder = scratch / f"search{count}"
        words = ["evaluator=size", "sampler=uniform", "search_algo=random", "effort=smoke"]
        words += [f"search_algo.evaluations={count}", f"checkpoint.steps={count}"]
        cost = nasrun("search", *words, f"hydra.run.dir={folder}", "report=false", place=scratch)
        sizes = [path.stat().st_size for path in (folder / "checkpoints").glob("*.json")]
        yield Row("evaluations", count, *cost, f"checkpoint of {max(sizes) / 2**20:.1f} MiB")
        shutil.rmtree(folder)


def training(most: int, scratch: Path) -> Iterator[Row]:
    """Run whole small searches, with more of one thing at a time."""
    small = ["effort=smoke", "threads=1", "search_algo=random", "sampler=uniform", "report=false"]
    small += ["dataset.train_images=256", "retrain.trainer.epochs=1", "trainer.epochs=1"]
    for what, values in {
        "dataset.train_images": (160, 1280),
        "search_algo.evaluations": (20, 320),
        "search_space.search.layers": (1, 8),
    }.items():
        for value in values:
            words = [*small, f"{what}={value}"]
            cost = nasrun("search", *words, f"hydra.run.dir={scratch / 'run'}", place=scratch)
            yield Row(what, value, *cost)
            shutil.rmtree(scratch / "run")
    for jobs in (1, 4):
        words = [*small, "-m", f"seed=range({jobs})", f"hydra.sweep.dir={scratch / 'jobs'}"]
        yield Row("jobs of a sweep", jobs, *nasrun("search", *words, place=scratch))
        shutil.rmtree(scratch / "jobs")


PARTS: dict[str, Callable[[int, Path], Iterator[Row]]] = {
    each.__name__: each for each in (runs, sweep, trials, pool, search, training)
}

CONFIG = compose(["task=search"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []])
    parser.add_argument("--most", type=int, default=10_000, help="runs and jobs; at least 100")
    wanted = parser.parse_args()
    table = Table("what", "how many", "CPU s", "grows with", "MiB", "")
    with tempfile.TemporaryDirectory() as scratch:
        for name in wanted.parts or PARTS:
            before: dict[str, Row] = {}
            for row in PARTS[name](wanted.most, Path(scratch)):
                last = before.get(row.what)
                slope = "" if last is None else f"n^{slope_of(last, row):.2f}"
                cells = [f"{row.count:,}", f"{row.seconds:.1f}", slope, f"{row.mebibytes:,.0f}"]
                table.add_row(row.what, *cells, row.note)
                print(row.what, *cells, row.note, flush=True)
                before[row.what] = row
    Console(width=100).print(table)


def slope_of(one: Row, other: Row) -> float:
    """Return the power of the count with which the seconds have grown."""
    return math.log(other.seconds / one.seconds) / math.log(other.count / one.count)


if __name__ == "__main__":
    main()
