"""Balanced NAO, Table 2: ranking of 50 random architectures by epochs of training.

    python scripts/table2.py seed=0,1,2            # the paper's setting: days on a GPU
    python scripts/table2.py effort=smoke          # a quick check: minutes
    python scripts/table2.py --of outputs/table2   # the table of a sweep that has been run

Pairwise accuracy in %, the paper's (one run) beside ours (mean ± s.d. over seeds). Each number
of epochs is a training of its own.
"""

from __future__ import annotations

from tables import ours, pairs, show, sweep, with_words

PAPER = {5: 62, 10: 65, 20: 71, 30: 75, 50: 76}
"""Epochs of uniform sampling -> pairwise accuracy, %."""

if __name__ == "__main__":
    found = sweep(["rank", "-m", "experiment=rank_table2", "seed=0"], __doc__)
    rows = [
        (str(epochs), str(paper), ours(with_words(found, f"trainer.epochs={epochs}"), pairs))
        for epochs, paper in PAPER.items()
    ]
    show("pairwise accuracy %, uniform sampling", ("epochs", "paper", "ours"), rows)
