"""Compare DSO-NAS with random blocks of as many edges, and with its penalty alone.

    python scripts/dso_control.py                       # five seeds: an hour and a half of a core
    python scripts/dso_control.py search_algo.adaptive=flops
    python scripts/dso_control.py effort=smoke --seeds 0,1,2   # a quick check: a minute
    python scripts/dso_control.py --of DIR   # only the tables; with the same further words

Further words go to nasrun. For every seed: a search; a search whose gates only the penalty moves;
and a block with as many edges as the first search left, taken from the complete one in a random
order. All are as wide as the budget allows and trained alike. A second table asks whether the
seeds keep the same edges more often than chance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
from dso_chance import hypergeometric, jaccard, kept_by, prune_at_random, shared
from rich.console import Console
from tables import ours, result_of, show

from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.report import sweep_methods
from nasrun.report.run_files import Job, job_files, read_jobs
from nasrun.search_space.dso_block import DsoBlock
from nasrun.values import Architecture

RANDOM, SEARCH, PENALTY = "random block", "DSO-NAS", "penalty alone"
"""Methods of the table; the first is the control."""

FOLDERS = {RANDOM: "random", SEARCH: "dso", PENALTY: "penalty"}

ROUNDS = 200
"""Rounds of random pruning, which give the overlap by chance."""


def overlap_rows(space: DsoBlock, found: Sequence[Architecture]) -> list[list[str]]:
    """Make the rows of the table of overlaps: as found, and by chance."""
    rng = np.random.default_rng(0)
    own = [kept_by(space, one) for one in found]
    edges = len(kept_by(space, Architecture(space.name, (1,) * len(space.decisions))))
    chance = [
        [kept_by(space, prune_at_random(space, one, rng)) for one in found] for _ in range(ROUNDS)
    ]
    as_many = sum(jaccard(kept) >= jaccard(own) for kept in chance)
    p = (1 + as_many) / (1 + ROUNDS)
    return [
        ["DSO-NAS", f"{shared(own):.2f}", f"{jaccard(own):.3f}", f"{p:.2g}"],
        [
            "random pruning",
            f"{mean(map(shared, chance)):.2f}",
            f"{mean(map(jaccard, chance)):.3f}",
            "",
        ],
        [f"any of {edges} edges", f"{hypergeometric(own, edges):.2f}", "", ""],
    ]


def architecture_of(job: Job) -> Architecture:
    """Return the architecture that a run ended with."""
    return Architecture.from_json(job_files(job.directory).result["architecture"])


def edges_left(directory: Path) -> float:
    """Return the number of edges of the architecture that a run ended with."""
    return float(sum(job_files(directory).result["architecture"]["choices"]))


def rows_of(jobs: dict[str, list[Job]]) -> list[list[str]]:
    """Make a row for each method: edges, parameters in thousands, test accuracy in %."""
    return [
        [
            name,
            ours(members, edges_left, factor=1, digits=1),
            ours(members, partial(result_of, name="params"), factor=1e-3, digits=1),
            ours(members, partial(result_of, name="test_accuracy")),
        ]
        for name, members in jobs.items()
    ]


def run_all(words: Sequence[str], seeds: str, directory: Path, space: DsoBlock) -> None:
    """Run searches, searches by the penalty alone, and the training of the random blocks."""
    sweeps: dict[str, list[str]] = {SEARCH: [], PENALTY: ["search_algo.loss_gradient=false"]}
    for name, further in sweeps.items():
        sweep = f"hydra.sweep.dir={directory / FOLDERS[name]}"
        _run(["search", "-m", *words, *further, f"seed={seeds}", sweep])
    place = directory / FOLDERS[RANDOM]
    place.mkdir(exist_ok=True)
    for job in _good(read_jobs(directory / FOLDERS[SEARCH])):
        seed = job_files(job.directory).seed
        assert seed is not None  # every run has one  # noqa: S101
        block = prune_at_random(space, architecture_of(job), np.random.default_rng(seed))
        file = place / f"seed{seed}.txt"
        file.write_text(space.write(block) + "\n")
        run = f"hydra.run.dir={place / str(seed)}"
        _run(["retrain", *words, f"architecture={file}", f"seed={seed}", run])


def _run(command: Sequence[str]) -> None:
    if status := main(list(command)):
        sys.exit(status)


def _good(jobs: Iterable[Job]) -> list[Job]:
    return [job for job in jobs if job.error is None]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="0,1,2,3,4", help="seeds, with commas")
    parser.add_argument("--into", type=Path, default=Path("outputs", "dso_control"))
    parser.add_argument("--of", type=Path, help="a comparison that has been run")
    arguments, further = parser.parse_known_args()
    words = ["experiment=dso_control_small", *further]
    space = build_setup(compose(["task=search", *words])).search_space
    if not isinstance(space, DsoBlock):
        sys.exit("this comparison is of dso_block alone")
    directory: Path = arguments.of or arguments.into
    if arguments.of is None:
        run_all(words, arguments.seeds, directory, space)
    jobs = {name: _good(read_jobs(directory / folder)) for name, folder in FOLDERS.items()}
    columns = ["mean ± s.d. over seeds", "edges left", "1,000 parameters", "test accuracy %"]
    show(f"{directory}", columns, rows_of(jobs))
    if methods := sweep_methods.compare(jobs, "test_accuracy"):
        sweep_methods.show(methods, Console(width=None if sys.stdout.isatty() else 160))
    if len(jobs[SEARCH]) > 1:
        found = [architecture_of(job) for job in jobs[SEARCH]]
        show(
            "edges that two seeds both keep",
            ["", "edges", "Jaccard", f"p, {ROUNDS} rounds"],
            overlap_rows(space, found),
        )
