"""The lines of a report: group, name, label and formula of each measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.metrics.ranking import (
    best_rank_at,
    binned,
    kendall,
    precision_at_top,
    ranks,
    ranks_by_order,
    spearman,
    top_regret,
)
from nasrun.metrics.size import kendall_in_groups, mean_of_defined, partial_correlation, size_groups

Vector = npt.NDArray[Any]
SIZES = {"params": "parameters", "macs": "multiply-adds"}
THIRDS = ("small", "medium", "large")


def columns(
    scores: Vector, truth: Vector, params: Vector, macs: Vector, bin_width: float
) -> dict[str, Vector]:
    """Make the columns that the measures need, [n] each, in the order of the truth.

    The columns are ranks, which are sorted faster than values, from the smallest sizes and lowest
    accuracies up; ranks ``*_by_order`` with ties broken as in the pairwise accuracy; and the true
    accuracy itself.
    """
    found = {
        "scores": ranks(scores),
        "truth": ranks(truth),
        "binned": ranks(binned(truth, bin_width)),
        "scores_by_order": ranks_by_order(scores),
        "truth_by_order": ranks_by_order(truth),
        "accuracy": truth,
    }
    for name, size in zip(SIZES, (params, macs), strict=True):
        found |= {name: ranks(size), f"{name}_third": size_groups(size, len(THIRDS))}
    order = np.argsort(truth)
    return {name: column[order] for name, column in found.items()}


class Sample:
    """A sample of architectures; values that several measures need are computed once."""

    def __init__(self, columns: dict[str, Vector]) -> None:
        self.columns = columns
        self._known: dict[Any, Any] = {}

    def __getitem__(self, name: str) -> Vector:
        return self.columns[name]

    def tau(self, a: str, b: str) -> float:
        return float(self._once(("tau", a, b), lambda: kendall(self[a], self[b])))

    def rho(self, a: str, b: str) -> float:
        return float(self._once(("rho", a, b), lambda: spearman(self[a], self[b])))

    def thirds(self, size: str) -> tuple[float, ...]:
        """Kendall's tau-b of the scores with the truth within each tercile by size."""
        of = (self["scores"], self["truth"], self[f"{size}_third"])
        return tuple(self._once(("thirds", size), lambda: kendall_in_groups(*of, len(THIRDS))))

    def _once(self, key: Any, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


@dataclass(frozen=True)
class Line:
    """A measure. name: key in JSON. label: name on the screen."""

    group: str
    name: str
    label: str
    formula: Callable[[Sample], float]


def lines(
    n: int, top_shares: Sequence[float], ks: Sequence[int], bin_width: float
) -> Iterator[Line]:
    """All measures of ``n`` architectures, in the order of the table."""
    yield from agreement(bin_width)
    for share in top_shares:
        yield among_best(share)
    for k in ks:
        if k < n:
            yield from first(k)
    for size, words in SIZES.items():
        yield from size_alone(size, words)
    for size, words in SIZES.items():
        yield from given_size(size, words)


def agreement(bin_width: float) -> Iterator[Line]:
    """Measures of agreement of scores and truth."""
    group = "agreement"
    yield Line(group, "kendall", "Kendall's τ-b", lambda s: s.tau("scores", "truth"))
    yield Line(
        group,
        "pairwise_accuracy",
        "pairwise accuracy",
        lambda s: (s.tau("scores_by_order", "truth_by_order") + 1) / 2,
    )
    yield Line(group, "spearman", "Spearman's ρ", lambda s: s.rho("scores", "truth"))
    label = f"sparse τ-b (truth in steps of {bin_width:g})"
    yield Line(group, "sparse_kendall", label, lambda s: s.tau("scores", "binned"))


def among_best(share: float) -> Line:
    """Precision at the best ``share``."""
    return Line(
        "top",
        f"precision_at_top_{share:g}",
        f"precision at the top {100 * share:g} %",
        lambda s: precision_at_top(s["scores"], s["truth"], share),
    )


def first(k: int) -> Iterator[Line]:
    """Measures of the ``k`` architectures with the highest scores."""
    words = f"the top {k:,}" if k > 1 else "the top one"
    yield Line(
        "top",
        f"best_rank_at_{k}",
        f"best true rank of {words}",
        lambda s: best_rank_at(s["scores"], s["truth"], k),
    )
    yield Line(
        "top",
        f"regret_at_{k}",
        f"regret of {words}",
        lambda s: top_regret(s["scores"], s["accuracy"], k),
    )


def size_alone(size: str, words: str) -> Iterator[Line]:
    """Measures of ranking by size alone."""
    group = "size alone"
    yield Line(group, f"{size}_alone", f"τ-b of {words} alone", lambda s: s.tau(size, "truth"))
    yield Line(
        group,
        f"above_{size}",
        "the scores' τ-b above that",
        lambda s: s.tau("scores", "truth") - s.tau(size, "truth"),
    )


def given_size(size: str, words: str) -> Iterator[Line]:
    """Measures of the agreement of scores and truth beyond the effect of size."""
    group = "given size"
    yield Line(
        group,
        f"within_{size}",
        f"τ-b within thirds by {words}, mean",
        lambda s: mean_of_defined(s.thirds(size)),
    )
    for index, third in enumerate(THIRDS):
        yield _within(size, index, third)
    yield Line(
        group,
        f"partial_{size}",
        f"partial τ given {words}",
        lambda s: partial_correlation(
            s.tau("scores", "truth"), s.tau("scores", size), s.tau(size, "truth")
        ),
    )
    yield Line(
        group,
        f"partial_spearman_{size}",
        f"partial ρ given {words}",
        lambda s: partial_correlation(
            s.rho("scores", "truth"), s.rho("scores", size), s.rho(size, "truth")
        ),
    )


def _within(size: str, index: int, third: str) -> Line:
    name = f"within_{size}_{third}"
    return Line("given size", name, f"  the {third} ones", lambda s: s.thirds(size)[index])
