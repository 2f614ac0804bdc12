"""The regret of search algorithms against the truth of the scores that they search by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from nasrun.metrics.power import LEVEL
from nasrun.report.comparison import Comparison, show_end
from nasrun.report.figures import plot_curves
from nasrun.report.words import in_points
from nasrun.run.files import write_csv
from nasrun.run.layout import REGRET_BY_TAU, REGRET_BY_TAU_PICTURE
from nasrun.run.run import Run


@dataclass(frozen=True)
class RegretByTau:
    """Comparisons of the same algorithms and seeds, by the tau of their scores, rising."""

    comparisons: Mapping[float, Comparison]

    def result(self) -> dict[str, Any]:
        """Numbers for result.json, and so for the table of a sweep."""
        last = list(self.comparisons.values())[-1]
        return last.setting() | {
            f"{name}_tau{tau:g}": regret
            for tau, comparison in self.comparisons.items()
            for name, regret in comparison.regrets().items()
        }

    def write(self, run: Run) -> None:
        """Write regret_by_tau.csv, and plot regret_by_tau.png and .svg."""
        titles = ["tau", "algorithm", "seeds", "regret", "low", "high", "median", "wins", "p"]
        write_csv(
            run.directory / REGRET_BY_TAU,
            titles,
            (
                [
                    *(tau, name, len(standing.searches), end.value, end.low, end.high),
                    *(float(np.median(standing.final)), standing.wins, standing.p),
                ]
                for tau, comparison in self.comparisons.items()
                for name, standing in comparison.standings.items()
                for end in standing.curve[-1:]
            ),
        )
        last = list(self.comparisons.values())[-1]
        plot_curves(
            {
                name: [
                    (tau, in_points(comparison.standings[name].curve[-1]))
                    for tau, comparison in self.comparisons.items()
                ]
                for name in last.standings
            },
            run.directory / REGRET_BY_TAU_PICTURE,
            x="Kendall's τ of the scores with the truth",
            y="regret (percentage points)",
            title=f"after {last.evaluations:,} evaluations",
        )

    def say(self, run: Run) -> None:
        """Show the regret of each algorithm at each tau; a star: not the control's by chance."""
        last = list(self.comparisons.values())[-1]
        table = Table(
            "τ of the scores",
            box=box.SIMPLE_HEAD,
            title=(
                f"mean regret after {last.evaluations:,} evaluations: "
                f"points below {100 * last.best:.2f} %"
            ),
            title_justify="left",
        )
        for name in last.standings:
            table.add_column(escape(name))
        for tau, comparison in self.comparisons.items():
            cells = []
            for standing in comparison.standings.values():
                star = " *" if standing.p is not None and standing.p < LEVEL else ""
                cells.append(f"{in_points(standing.curve[-1]).value:.3f}{star}")
            table.add_row(f"{tau:g}", *cells)
        run.say()
        run.screen.show(table)
        run.say(
            f"*: differs from {last.control}, p < {LEVEL:g} (permutation test of the mean "
            "difference, paired by seed, Holm's correction at each τ)"
        )
        files = f"{REGRET_BY_TAU_PICTURE}.png, {REGRET_BY_TAU}"
        show_end(run, [("tables, pictures", files)])
