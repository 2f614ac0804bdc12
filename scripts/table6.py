"""Balanced NAO, Table 6: uniform sampling against sampling in proportion to size.

    python scripts/table6.py seed=0,1,2            # the paper's setting: days on a GPU
    python scripts/table6.py effort=smoke          # a quick check: minutes
    python scripts/table6.py --of outputs/table6   # the table of a sweep that has been run

Pairwise accuracy in %, the paper's (one run) beside ours (mean ± s.d. over seeds). Each number
of epochs is a training of its own.
"""

from __future__ import annotations

from tables import ours, pairs, show, sweep, with_words

PAPER = {
    5: (62, 69),
    10: (65, 72),
    20: (71, 76),
    30: (75, 77),
    50: (76, 78),
}
"""Epochs -> pairwise accuracy of uniform and of proportional sampling, %."""

if __name__ == "__main__":
    found = sweep(["rank", "-m", "experiment=rank_table6", "seed=0"], __doc__)
    rows = []
    for epochs, (uniform, proportional) in PAPER.items():
        length = f"trainer.epochs={epochs}"
        rows.append(
            (
                *(str(epochs), str(uniform)),
                ours(with_words(found, "sampler=uniform", length), pairs),
                str(proportional),
                ours(with_words(found, "sampler=proportional", length), pairs),
            )
        )
    columns = ("epochs", "uniform: paper", "ours", "proportional: paper", "ours")
    show("pairwise accuracy %", columns, rows)
