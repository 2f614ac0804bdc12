"""The collapse watch: weight sharing and learned gates drift towards operations that need no
training, skips and pools, and end with networks that learn little (DARTS+, arXiv 1909.06035)."""

from __future__ import annotations

from nasrun.run.run import Run

COLLAPSED = 0.75
"""The share of parameter-free operations above which a search is said to have collapsed; ours. Of
random architectures 57 % of the operations are such in darts_cell and 60 % in nas_bench_201 and in
nao_cell's smallest set, in whose best architectures they are fewer."""


def warn_of_collapse(run: Run, share: float, whose: str) -> bool:
    """Say so where the share is above the limit; whether it was.

    whose: "the best architecture", for the message.
    """
    if share <= COLLAPSED:
        return False
    run.say(
        f"the search may have collapsed: {100 * share:.0f} % of the operations of {whose} have no "
        "parameters (skip, pool, none): compare with search_algo=random, train the supernet for "
        "longer, or stop the gates earlier (fewer trainer.epochs, more search_algo.rest_epochs)",
        "yellow",
    )
    return True
