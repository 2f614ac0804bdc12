"""Balanced NAO, Table 3: architectures of similar sizes are ranked better than diverse ones.

    python scripts/table3.py seed=0,1,2            # the paper's setting: days on a GPU
    python scripts/table3.py effort=smoke          # a quick check: seconds
    python scripts/table3.py --of outputs/table3   # the table of a sweep that has been run

Pairwise accuracy in % after five epochs of uniform sampling of the 50 that are ranked, the paper's
(one run) beside ours (mean ± s.d. over seeds).
"""

from __future__ import annotations

from tables import ours, pairs, show, sweep, with_words

PAPER = {"uniform": 62, "similar_size": 73}
"""Architectures of diverse, and of similar sizes -> pairwise accuracy, %."""
GROUP = "architectures@rank.architectures"


if __name__ == "__main__":
    found = sweep(["rank", "-m", "experiment=rank_table3", "seed=0"], __doc__)
    rows = [
        (sample, str(paper), ours(with_words(found, f"{GROUP}={sample}"), pairs))
        for sample, paper in PAPER.items()
    ]
    show("pairwise accuracy % after 5 epochs", ("architectures", "paper", "ours"), rows)
