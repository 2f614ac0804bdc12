"""Balanced NAO, Table 6: uniform sampling against sampling in proportion to size.

    python scripts/table6.py seed=0,1,2            # the paper's setting: days on a GPU
    python scripts/table6.py effort=smoke          # a quick check: seconds
    python scripts/table6.py --of outputs/table6   # the table of a sweep that has been run

Pairwise accuracy in %, the paper's (one run) beside ours (mean ± s.d. over seeds).
"""

from __future__ import annotations

from tables import ours, pairs_at, show, sweep, with_word

PAPER = {
    5: (62, 69),
    10: (65, 72),
    20: (71, 76),
    30: (75, 77),
    50: (76, 78),
}
"""Epochs -> pairwise accuracy of uniform and of proportional sampling, %."""

if __name__ == "__main__":
    found = sweep(
        ["rank", "-m", "experiment=rank_table6", "sampler=uniform,proportional", "seed=0"], __doc__
    )
    uniform, proportional = (
        with_word(found, f"sampler={sampler}") for sampler in ("uniform", "proportional")
    )
    rows = [
        (
            *(str(epoch), str(papers[0]), ours(uniform, pairs_at(epoch))),
            *(str(papers[1]), ours(proportional, pairs_at(epoch))),
        )
        for epoch, papers in PAPER.items()
    ]
    rows.append(("end", "", ours(uniform, pairs_at(None)), "", ours(proportional, pairs_at(None))))
    columns = ("epochs", "uniform: paper", "ours", "proportional: paper", "ours")
    show("pairwise accuracy %", columns, rows)
