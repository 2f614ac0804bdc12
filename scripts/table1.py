"""Balanced NAO, Table 1: the spread of searches: ENAS, DARTS and NAO-WS from five seeds each.

    python scripts/table1.py                       # the papers' settings: weeks on a GPU
    python scripts/table1.py effort=smoke          # a quick check: minutes
    python scripts/table1.py --of outputs/table1   # the table of a sweep that has been run

Test error on CIFAR-10 in %; the paper's five runs of each method beside ours.
"""

from __future__ import annotations

from statistics import mean, stdev

from tables import ours, show, sweep, test_error, with_words

PAPER = {
    "enas_cifar10": ("ENAS", 2.89, (3.09, 3.00, 2.97, 2.79, 3.07)),
    "darts_cifar10": ("DARTS", 2.83, (3.00, 2.82, 3.02, 2.96, 3.00)),
    "nao_ws_cifar10": ("NAO-WS", 2.93, (2.90, 2.96, 2.98, 3.02, 3.05)),
}
"""Name, test error % in its own paper, test errors % of five runs in Balanced NAO's paper."""


if __name__ == "__main__":
    found = sweep(["search", "-m", f"experiment={','.join(PAPER)}", "seed=0,1,2,3,4"], __doc__)
    rows = [
        (
            name,
            f"{original:.2f}",
            f"{mean(runs):.2f} ± {stdev(runs):.2f} (n={len(runs)})",
            ours(with_words(found, f"experiment={recipe}"), test_error),
        )
        for recipe, (name, original, runs) in PAPER.items()
    ]
    show("test error %, CIFAR-10", ("method", "its paper", "five runs", "ours"), rows)
