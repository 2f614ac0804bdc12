"""Compare samplers and training rules by the ranking of their supernets.

    python scripts/compare_samplers.py rank_macro_small seed=0,1,2 threads=1   # an hour of a core
    python scripts/compare_samplers.py rank_macro_cifar10 seed=0,1,2           # on a GPU
    python scripts/compare_samplers.py rank_nb201_cifar10 seed=0,1,2           # on a GPU
    python scripts/compare_samplers.py rank_macro_small --of DIR               # only its table

Uniform, proportional and fair sampling, and uniform sampling with the complexity-aware learning
rate and separate momenta of DYNAS (CVPR 2025), at equal numbers of optimiser steps. Further words
go to nasrun. The table gives mean ± s.d. over seeds, beside the ranking by size alone and the
agreement of ground-truth seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tables import ours, result_of, show

from nasrun.cli.main import main
from nasrun.report.run_files import Job, read_jobs

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
}
MEASURES = {
    "τ-b": "kendall",
    "pairs": "pairwise_accuracy",
    "τ given MACs": "partial_macs",
    "top 10 % found": "precision_at_top_0.1",
    "τ of MACs alone": "macs_alone",
    "τ of params alone": "params_alone",
    "ceiling": "ceiling_kendall",
}


def rows(directory: Path) -> list[list[str]]:
    """Make a row of the table for each rule that has been run."""

    def row(name: str, jobs: Sequence[Job]) -> list[str]:
        cells = [
            ours(jobs, partial(result_of, name=measure), factor=1, digits=3)
            for measure in MEASURES.values()
        ]
        return [name, *cells]

    found = {name: [j for j in read_jobs(directory / name) if not j.error] for name in RULES}
    return [row(name, jobs) for name, jobs in found.items() if jobs]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("experiment", help="a rank_* recipe")
    parser.add_argument("--of", type=Path, help="a comparison that has been run")
    arguments, further = parser.parse_known_args()
    directory: Path = arguments.of or Path("outputs", f"compare_{arguments.experiment}")
    if arguments.of is None:
        for name, words in RULES.items():
            place = f"hydra.sweep.dir={directory / name}"
            command = ["rank", "-m", f"experiment={arguments.experiment}", *words, *further, place]
            if status := main(command):
                sys.exit(status)
    show(f"{arguments.experiment}: mean ± s.d. over seeds", ["", *MEASURES], rows(directory))
