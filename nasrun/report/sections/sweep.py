"""A sweep, or several runs: jobs side by side, tests, costs, and what failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from nasrun.errors import plural
from nasrun.metrics.power import POWER
from nasrun.report import sweep_methods
from nasrun.report.charts import COLORS, Dots, scatter_chart
from nasrun.report.document import (
    Block,
    Chart,
    Figures,
    Grid,
    Section,
    Text,
)
from nasrun.report.run_files import Job, job_files
from nasrun.report.sweep import (
    COLUMNS,
    NO_WORDS,
    Column,
    combinations,
    differing,
    metric_names,
    summary_rows,
)
from nasrun.report.sweep_methods import MEASURES, Methods
from nasrun.report.words import duration
from nasrun.run.lock import is_held

MAX_REGRETS = 12
"""Algorithms of ``nasrun compare`` whose regret has a column."""

REGRET = re.compile("regret_(?!at_)")
"""Names of the regrets of ``nasrun compare``; a ranking has others."""


@dataclass(frozen=True)
class SweepView:
    """Jobs that are reported together. place: the sweep's folder; None: runs that were named."""

    jobs: Sequence[Job]
    place: Path | None

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """Content of result.json of each job, in order."""
        return [job_files(job.directory).result for job in self.jobs]

    @cached_property
    def done(self) -> dict[str, list[Job]]:
        """The jobs that ended well, by the overrides that differ."""
        return {
            label: [job for job in members if job.error is None]
            for label, members in combinations(self.jobs).items()
        }

    @cached_property
    def methods(self) -> list[Methods]:
        """The tests of the settings against a control, one for each measure that suits."""
        return sweep_methods.compare_all(self.done)

    @cached_property
    def labels(self) -> dict[int, str]:
        """The overrides that differ, by the number of the job."""
        return differing(self.jobs)

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks of the jobs, each once."""
        found = [job_files(job.directory).record.get("task") for job in self.jobs[:1000]]
        return list(dict.fromkeys(task for task in found if isinstance(task, str)))

    @cached_property
    def measure(self) -> str | None:
        """The metric that jobs are compared by: the first of the table's that most of them have."""
        counts = Counter(name for job in self.jobs for name in job.metrics)
        ordered = [*MEASURES, "validation_accuracy", "score"]
        return next((name for name in ordered if counts[name] and name in COLUMNS), None)


def asked(view: SweepView) -> str:
    """Say in one sentence what the sweep was to find out."""
    what = " and ".join(view.tasks) or "unknown tasks"
    count = len(view.done)
    if view.place is None:
        return f"Compare {plural(len(view.jobs), 'run')} of {what}."
    return (
        f"Compare {plural(count, 'combination')} of settings by nasrun {what}, in "
        f"{plural(len(view.jobs), 'job')}."
    )


def came_out(view: SweepView) -> Section:
    """Show how many jobs ended well, and what they cost together."""
    failed = [job for job in view.jobs if job.error]
    going = [job for job in failed if is_held(job.directory)]
    seconds = sum(job.metrics.get("seconds", 0.0) for job in view.jobs)
    rows = [(f"{len(view.jobs) - len(failed):,} of {len(view.jobs):,}", "jobs ended well", "")]
    if view.measure is not None:
        means = {
            label or NO_WORDS: fmean(values)
            for label, members in view.done.items()
            if (
                values := [
                    job.metrics[view.measure] for job in members if view.measure in job.metrics
                ]
            )
        }
        if means:
            best = max(means, key=lambda label: means[label])
            column = COLUMNS[view.measure]
            value = column.cell(means[best], None)
            unit = " %" if column.factor == 100 else ""
            words = name_of(view.measure)
            remark = best if len(best) <= 80 else f"{best[:80]} …"
            highest = "highest mean" if len(means) > 1 else "mean"
            rows.append((f"{value}{unit}", f"{highest} {words}", remark if len(means) > 1 else ""))
    if seconds:
        rows.append((duration(seconds), "time of all jobs", ""))
    blocks: list[Block] = [Figures(rows)]
    if going:
        words = f"{plural(len(going), 'job')} still going: all numbers are preliminary."
        blocks.insert(0, Text(words, "warning"))
    if warning := unequal_costs(view):
        blocks.append(Text(warning, "warning"))
    return Section("result", "What came out", blocks)


def name_of(measure: str) -> str:
    """Return a metric in words."""
    return MEASURES[measure].name if measure in MEASURES else measure.replace("_", " ")


def table(view: SweepView) -> Section:
    """Show means over seeds, and every value as a point."""
    blocks: list[Block] = []
    rows = summary_rows(view.jobs)
    found = metric_names(view.jobs)
    names = [name for name in COLUMNS if name in found]
    regrets = [name for name in found if REGRET.match(name)][:MAX_REGRETS]
    columns = {name: COLUMNS[name] for name in names} | {
        name: Column(f"{name.replace('_', ' ')}, points", 100, 3) for name in regrets
    }
    if columns:
        blocks.append(
            Grid(
                ["settings", "n", *(column.title for column in columns.values())],
                [
                    [
                        row["overrides"] or NO_WORDS,
                        str(row["n"]),
                        *(
                            column.cell(row[f"{name}_mean"], row[f"{name}_sd"])
                            for name, column in columns.items()
                        ),
                    ]
                    for row in rows
                ],
                "mean ± sample standard deviation over n jobs",
            )
        )
    if (picture := values(view)) is not None:
        blocks.append(picture)
    return Section("table", "The settings compared", blocks)


def values(view: SweepView) -> Chart | None:
    """Return the chart of every job's value by settings; None if there is nothing to compare."""
    measure = view.measure
    groups = {
        label: [job for job in members if measure in job.metrics]
        for label, members in view.done.items()
    }
    groups = {label: members for label, members in groups.items() if members}
    if measure is None or len(groups) < 2 or len(groups) > 60:
        return None
    names, key = sweep_methods.short(list(groups))
    names = [name if len(name) <= 40 else f"{name[:39]}…" for name in names]
    factor = COLUMNS[measure].factor
    x, y, hover, means = [], [], [], []
    for place, members in enumerate(groups.values()):
        own = [factor * job.metrics[measure] for job in members]
        means.append(fmean(own))
        x += own
        y += [float(place)] * len(own)
        hover += [
            f"job {job.number}: {value:.5g}\n{names[place]}"
            for job, value in zip(members, own, strict=True)
        ]
    unit = " (%)" if factor == 100 else ""
    title = f"{name_of(measure)}{unit}"
    ticks = {
        "tickvals": list(range(len(names))),
        "ticktext": [name.replace("<", "&lt;") for name in names],
        "range": [len(names) - 0.5, -0.5],
        "automargin": True,
        "title": {"text": key.replace("<", "&lt;")},
    }
    return scatter_chart(
        [
            Dots("jobs", x, y, hover, marker={"color": COLORS[0]}),
            Dots(
                "mean",
                means,
                [float(place) for place in range(len(means))],
                [f"mean {mean:.5g}" for mean in means],
                marker={
                    "symbol": "line-ns-open",
                    "size": 18,
                    "color": COLORS[1],
                    "opacity": 1,
                    "line": {"width": 2.5},
                },
            ),
        ],
        title,
        "",
        f"{title} of every job, and the mean of each combination.",
        layout={"yaxis": ticks},
        height=150 + 34 * len(names),
    )


def tests(view: SweepView) -> Section:
    """Show the tests against the control, in pairs of the same seed."""
    blocks: list[Block] = []
    for methods in view.methods:
        measure = MEASURES[methods.measure]

        def shown(
            value: float, factor: float = measure.factor, digits: int = measure.digits
        ) -> str:
            return f"{factor * value:+.{digits}f}"

        rows = [
            [
                label or NO_WORDS,
                str(found.n),
                shown(found.mean),
                f"{shown(found.low)} to {shown(found.high)}",
                f"{found.p:.2g}",
                "–" if found.pairs_needed is None else str(found.pairs_needed),
            ]
            for label, found in methods.differences.items()
        ]
        few = min(found.n for found in methods.differences.values())
        blocks.append(
            Grid(
                [
                    f"against {methods.control or NO_WORDS}",
                    "n",
                    measure.unit,
                    "95 %",
                    "p",
                    "n needed",
                ],
                rows,
                f"{measure.name}, paired by seed; p: permutation test, by Holm for all together; "
                f"over {few} seeds it cannot be below {2 / 2**few:.2g}; n needed: seeds that show "
                f"such a difference in {POWER:.0%} of sweeps",
            )
        )
    return Section("tests", "Tests", blocks)


def unequal_costs(view: SweepView) -> str:
    """Say which costs of the compared settings differ by more than 5 %; empty if none do."""
    lines = sweep_methods.unequal_costs(view.done)
    if not lines:
        return ""
    return (
        f"The settings differ in cost by more than 5 %: {'; '.join(lines)}. Part of any difference "
        "may come from that."
    )
