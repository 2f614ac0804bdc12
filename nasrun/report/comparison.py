"""The report of a comparison: regret by evaluation, each algorithm against the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.markup import escape
from rich.table import Table

from nasrun.metrics import Estimate, bootstrap, holm, sign_flip_p, win_share
from nasrun.report.figures_search import plot_steps
from nasrun.report.words import in_points
from nasrun.run.commands import command, shown
from nasrun.run.files import write_csv, write_json
from nasrun.run.layout import COMPARISON, COMPARISON_CURVES, COMPARISON_PICTURE, SEARCHES
from nasrun.run.run import Run
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams
from nasrun.values import Architecture


@dataclass(frozen=True)
class BestSoFar:
    """An architecture of a search with a better score than all before it.

    evaluation: number of its evaluation, from 1. truth: score of the architecture by the judge.
    """

    evaluation: int
    architecture: Architecture
    score: float
    truth: float


@dataclass(frozen=True)
class SearchRecord:
    """The course of one search.

    evaluations: distinct architectures that were scored. found: its best architectures in turn.
    """

    seed: int
    evaluations: int
    found: tuple[BestSoFar, ...]


@dataclass(frozen=True)
class Standing:
    """One algorithm of a comparison.

    searches: one for each seed. regrets: [seeds, evaluations], best true accuracy minus that of the
    best-scored architecture so far. curve: mean regret after each evaluation.
    wins: share of the seeds whose regret ends below the control's, ties count half; None: this is
    the control. p: of the mean difference, Holm-corrected over all algorithms; None: the control.
    """

    searches: Sequence[SearchRecord]
    regrets: npt.NDArray[np.float64]
    curve: Sequence[Estimate]
    wins: float | None
    p: float | None

    @property
    def final(self) -> npt.NDArray[np.float64]:
        """The regret of each seed at the end."""
        end: npt.NDArray[np.float64] = self.regrets[:, -1]
        return end

    @property
    def min_evaluations(self) -> int:
        """Evaluations of the shortest search; from then on its best architecture stays the same."""
        return min(search.evaluations for search in self.searches)


@dataclass(frozen=True)
class Comparison:
    """All algorithms of a comparison.

    best: the accuracy without regret.
    of_all: whether ``best`` is the best of all architectures, not only of those that were found.
    """

    standings: Mapping[str, Standing]
    control: str
    evaluations: int
    confidence: float
    best: float
    of_all: bool

    @staticmethod
    def between(
        searches: Mapping[str, Sequence[SearchRecord]],
        *,
        control: str,
        evaluations: int,
        best: float | None,
        resamples: int,
        confidence: float,
        streams: Streams,
    ) -> Comparison:
        """Compare searches in pairs of the same seed.

        best: the best accuracy of all architectures; None: unknown, the best found takes its place.
        resamples, confidence: settings of the bootstrap intervals over seeds.
        """
        found = [
            f.truth for records in searches.values() for search in records for f in search.found
        ]
        top = max(found) if best is None else best
        regrets = {
            name: top - np.array([truths(search.found, evaluations) for search in records])
            for name, records in searches.items()
        }
        others = [name for name in searches if name != control]
        pairs = {
            name: (regrets[name][:, -1], regrets[control][: len(regrets[name]), -1])
            for name in others
        }
        tested = [sign_flip_p(*pairs[name], rng=streams.numpy(f"test/{name}")) for name in others]
        p_values = dict(zip(others, holm(tested), strict=True))
        return Comparison(
            {
                name: Standing(
                    records,
                    regrets[name],
                    mean_curve(
                        regrets[name],
                        resamples=resamples,
                        confidence=confidence,
                        rng=streams.numpy(f"bootstrap/{name}"),
                    ),
                    win_share(*pairs[name]) if name in pairs else None,
                    p_values.get(name),
                )
                for name, records in searches.items()
            },
            control,
            evaluations,
            confidence,
            top,
            best is not None,
        )

    def result(self) -> dict[str, Any]:
        """Numbers for result.json, and so for the table of a sweep."""
        return {**self.setting(), **self.regrets()}

    def setting(self) -> dict[str, Any]:
        """Evaluations of a search, number of seeds, and the best score that there is."""
        return {
            "evaluations": self.evaluations,
            "seeds": max(len(standing.searches) for standing in self.standings.values()),
            "best": self.best,
        }

    def regrets(self) -> dict[str, float]:
        """Mean regret of each algorithm at the end, as ``regret_NAME``."""
        return {
            f"regret_{name}": standing.curve[-1].value for name, standing in self.standings.items()
        }

    def write(self, directory: Path, space: SearchSpace) -> None:
        """Write compare.json (the end), compare.csv (by evaluation), searches.csv."""
        write_json(
            directory / COMPARISON,
            {
                "evaluations": self.evaluations,
                "control": self.control,
                "confidence": self.confidence,
                "best": self.best,
                "best_of_all": self.of_all,
                "algorithms": {
                    name: {
                        "seeds": len(standing.searches),
                        "fewest_evaluations": standing.min_evaluations,
                        "regret": standing.curve[-1].to_json(),
                        "median_regret": float(np.median(standing.final)),
                        "wins": standing.wins,
                        "p": standing.p,
                    }
                    for name, standing in self.standings.items()
                },
            },
        )
        write_csv(
            directory / COMPARISON_CURVES,
            ["algorithm", "evaluations", "regret", "low", "high", "median", "score"],
            (
                [name, index + 1, point.value, point.low, point.high, float(median), float(score)]
                for name, standing in self.standings.items()
                for index, (point, median, score) in enumerate(
                    zip(
                        standing.curve,
                        np.median(standing.regrets, axis=0),
                        np.mean(
                            [scores(s.found, self.evaluations) for s in standing.searches], axis=0
                        ),
                        strict=True,
                    )
                )
            ),
        )
        write_csv(
            directory / SEARCHES,
            ["algorithm", "seed", "evaluations", "architecture", "found_at", "score", "truth"],
            (
                [
                    *(name, search.seed, search.evaluations, space.write(last.architecture)),
                    *(last.evaluation, last.score, last.truth),
                ]
                for name, standing in self.standings.items()
                for search in standing.searches
                for last in search.found[-1:]
            ),
        )


def mean_curve(
    regrets: npt.NDArray[np.float64], *, resamples: int, confidence: float, rng: np.random.Generator
) -> list[Estimate]:
    """Average regrets [seeds, evaluations] over seeds, with intervals, by evaluation.

    All points of a resample use the same seeds.
    """
    found = bootstrap(
        lambda sample: {str(at): mean for at, mean in enumerate(regrets[sample].mean(0).tolist())},
        np.arange(len(regrets)),
        resamples=resamples,
        confidence=confidence,
        rng=rng,
    )
    return list(found.values())


def truths(found: Sequence[BestSoFar], evaluations: int) -> npt.NDArray[np.float64]:
    """True accuracy of the best-scored architecture after each evaluation, [evaluations]."""
    return _held(found, [step.truth for step in found], evaluations)


def scores(found: Sequence[BestSoFar], evaluations: int) -> npt.NDArray[np.float64]:
    """Best score so far after each evaluation, [evaluations]."""
    return _held(found, [step.score for step in found], evaluations)


def _held(
    found: Sequence[BestSoFar], values: Sequence[float], evaluations: int
) -> npt.NDArray[np.float64]:
    since = [step.evaluation for step in found]
    last = np.searchsorted(since, np.arange(1, evaluations + 1), side="right") - 1
    held: npt.NDArray[np.float64] = np.asarray(values, dtype=np.float64)[last]
    return held


def plot_comparison(run: Run, comparison: Comparison) -> None:
    """Plot compare.png and .svg: mean regret after each evaluation, with intervals."""
    plot_steps(
        {
            name: [in_points(point) for point in standing.curve]
            for name, standing in comparison.standings.items()
        },
        run.directory / COMPARISON_PICTURE,
        y="regret (percentage points)",
    )


def say_comparison(run: Run, comparison: Comparison) -> None:
    """Show the regret of each algorithm, and the tests against the control."""
    best = "the best there is" if comparison.of_all else "the best that any search found"
    seeds = len(comparison.standings[comparison.control].searches)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=(
            f"{comparison.evaluations:,} evaluations each, {seeds:,} seeds; regret: percentage "
            f"points below {best}, {100 * comparison.best:.2f} %"
        ),
        title_justify="left",
    )
    interval = f"regret ({100 * comparison.confidence:g} % interval)"
    for title in ("", interval, "median", "wins", "p"):
        table.add_column(title, no_wrap=True)
    for name, standing in comparison.standings.items():
        end, count = in_points(standing.curve[-1]), len(standing.searches)
        table.add_row(
            escape(name) + (f", {count:,} seeds" if count < seeds else ""),
            f"{end.value:.3f} ({end.low:.3f} to {end.high:.3f})",
            f"{100 * np.median(standing.final):.3f}",
            "" if standing.wins is None else f"{100 * standing.wins:.0f} %",
            "" if standing.p is None else f"{standing.p:.2g}",
        )
    run.say()
    run.screen.show(table)
    if len(comparison.standings) > 1:
        run.say(
            f"wins: seeds that end below {comparison.control}, ties half; p: permutation test of "
            "the mean difference, paired by seed, Holm's correction"
        )
    for name, standing in comparison.standings.items():
        if standing.min_evaluations < comparison.evaluations:
            run.say(
                f"{name} ended after {standing.min_evaluations:,} evaluations in at least one "
                "search: nothing new was left to it, or its own settings want no more",
                "yellow",
            )
    best_name, standing = min(
        comparison.standings.items(), key=lambda item: item[1].curve[-1].value
    )
    end = in_points(standing.curve[-1])
    rows = [("least regret", f"{best_name}, {end.value:.3f} ({end.low:.3f} to {end.high:.3f})")]
    if standing.p is not None:
        rows.append((f"against {comparison.control}", f"p = {standing.p:.2g}, {seeds:,} seeds"))
    files = f"{COMPARISON_PICTURE}.png, {COMPARISON_CURVES}, {SEARCHES}"
    show_end(run, [*rows, ("tables, pictures", files)])


def show_end(run: Run, rows: Sequence[tuple[str, str]]) -> None:
    """Show the end of a comparison."""
    words = [word for word in run.overrides if not word.startswith("compare.seeds=")]
    seeds = 2 * int(run.config["compare"]["seeds"])
    run.show_end(
        "comparison done",
        rows,
        [
            command("report", shown(run.directory)),
            command("compare", *words, f"compare.seeds={seeds}"),
        ],
    )
