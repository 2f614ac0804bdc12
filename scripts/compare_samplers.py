"""Compare samplers and training rules by the ranking of their supernets.

    python scripts/compare_samplers.py rank_macro_small seed=0,1,2 threads=1   # an hour of a core
    python scripts/compare_samplers.py rank_macro_cifar10 seed=0,1,2           # on a GPU
    python scripts/compare_samplers.py rank_nb201_cifar10 seed=0,1,2           # on a GPU
    python scripts/compare_samplers.py rank_macro_small --of DIR               # only its table
    python scripts/compare_samplers.py rank_pools_macro "seed=range(20)" threads=1 \\
        --rules uniform,proportional,macs,inverse_macs       # pools of 50: an hour of a core

Rules: uniform, fair and proportional sampling (by parameters; ``macs``: by multiply-adds, and with
the exponent -1, which favours small networks), and uniform sampling with the complexity-aware
learning rate and separate momenta of DYNAS (CVPR 2025), at equal numbers of optimiser steps.
Further words go to nasrun. The table gives mean ± s.d. over seeds, beside the ranking by size alone
and the agreement of ground-truth seeds; then each rule is held against the first one, in pairs of
the same seed, that is of the same pool.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from tables import ours, result_of, show

from nasrun.cli.main import main
from nasrun.report.run_files import Job, read_jobs
from nasrun.report.sweep_methods import compare_all
from nasrun.report.sweep_methods import show as show_methods

RULES: Mapping[str, Sequence[str]] = {
    "uniform": ["sampler=uniform"],
    "proportional": ["sampler=proportional"],
    "calr": [
        "sampler=uniform",
        "path_rules.size_power={size:params,smallest:4,largest:0.25}",
        "path_rules.separate_momentum=true",
        "trainer.schedule.kind=polynomial",
    ],
    "fair": ["sampler=fair"],
    "macs": ["sampler=proportional", "sampler.size=macs"],
    "inverse_macs": ["sampler=proportional", "sampler.size=macs", "sampler.exponent=-1"],
    "macs_squared": ["sampler=proportional", "sampler.size=macs", "sampler.exponent=2"],
}
USUAL = "uniform,proportional,calr,fair"
MEASURES = {
    "τ-b": "kendall",
    "pairs": "pairwise_accuracy",
    "τ given MACs": "partial_macs",
    "τ given params": "partial_params",
    "τ within thirds by MACs": "within_macs",
    "size bias (MACs)": "size_bias_macs",
    "top 10 % found": "precision_at_top_0.1",
    "τ of MACs alone": "macs_alone",
    "τ of params alone": "params_alone",
    "ceiling": "ceiling_kendall",
}


def read(directory: Path, rules: Sequence[str]) -> dict[str, list[Job]]:
    """Read the jobs that ended well, for each rule that has been run."""
    found = {name: [j for j in read_jobs(directory / name) if not j.error] for name in rules}
    return {name: jobs for name, jobs in found.items() if jobs}


def row(name: str, jobs: Sequence[Job]) -> list[str]:
    """Make the row of a rule."""
    cells = [
        ours(jobs, partial(result_of, name=measure), factor=1, digits=3)
        for measure in MEASURES.values()
    ]
    return [name, *cells]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiment", help="a rank_* recipe")
    parser.add_argument("--of", type=Path, help="a comparison that has been run")
    parser.add_argument("--into", type=Path, help="directory of the comparison")
    parser.add_argument("--rules", default=USUAL, help=f"some of {', '.join(RULES)}")
    arguments, further = parser.parse_known_args()
    rules = arguments.rules.split(",")
    if unknown := set(rules) - RULES.keys():
        parser.error(f"--rules: {', '.join(sorted(unknown))} is none of {', '.join(RULES)}")
    directory: Path = (
        arguments.of or arguments.into or Path("outputs", f"compare_{arguments.experiment}")
    )
    if arguments.of is None:
        for name in rules:
            place = f"hydra.sweep.dir={directory / name}"
            line = ["rank", "-m", f"experiment={arguments.experiment}", *RULES[name], *further]
            if status := main([*line, place]):
                sys.exit(status)
    jobs = read(directory, rules)
    title = f"{arguments.experiment}: mean ± s.d. over seeds"
    show(title, ["", *MEASURES], [row(name, members) for name, members in jobs.items()])
    for methods in compare_all(jobs):
        show_methods(methods, Console(width=160))
