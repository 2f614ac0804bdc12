"""Balanced NAO, Table 7: five searches from five seeds, each winner retrained.

    python scripts/table7.py                       # the paper's setting: days on a GPU
    python scripts/table7.py effort=smoke          # a quick check: a minute
    python scripts/table7.py --of outputs/table7   # the table of a sweep that has been run

Test error on CIFAR-10 in %; the paper's five runs beside ours.
"""

from __future__ import annotations

from statistics import mean, stdev

from tables import ours, show, sweep, test_error

PAPER = (2.60, 2.63, 2.65, 2.71, 2.77)
"""Test error of five runs, %."""


if __name__ == "__main__":
    found = sweep(["search", "-m", "experiment=stability_table7"], __doc__)
    jobs = sorted((job for members in found.values() for job in members), key=lambda j: j.number)
    rows = [
        (str(job.number), f"{paper:.2f}", ours([job], test_error).split()[0])
        for job, paper in zip(jobs, PAPER, strict=False)
    ]
    paper = f"{mean(PAPER):.2f} ± {stdev(PAPER):.2f} (n={len(PAPER)})"
    rows.append(("mean ± s.d.", paper, ours(jobs, test_error)))
    show("test error %, CIFAR-10", ("run", "paper", "ours"), rows)
