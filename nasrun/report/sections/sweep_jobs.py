"""The jobs of a sweep: what failed, what differs, each in a row, and what they do not show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasrun.errors import plural
from nasrun.metrics.power import LEVEL
from nasrun.report import sweep_methods
from nasrun.report.document import Block, Command, Facts, Grid, Points, Section, Text
from nasrun.report.run_files import Job, job_files
from nasrun.report.run_list import together
from nasrun.report.sections.sweep import SweepView, unequal_costs
from nasrun.report.sweep import NO_WORDS
from nasrun.report.sweep_methods import MEASURES
from nasrun.report.words import accuracy, duration, millions, number, percent
from nasrun.run.commands import command
from nasrun.run.lock import is_held

MAX_SETTINGS = 60
"""Rows of the table of settings that differ."""

MAX_SIDE_BY_SIDE = 6
"""Runs whose settings are shown in columns."""

NOT_COMPARED = ("seed", "split_seed", "name", "notes", "outputs", "report", "resume", "threads")
"""Settings of the top level that make no difference between methods."""


def failures(view: SweepView) -> Section:
    """Group the jobs that failed by their errors, whose numbers may differ."""
    groups: dict[str, list[Job]] = {}
    for job in view.jobs:
        if job.error and not is_held(job.directory):
            groups.setdefault(job.error.replace(str(job.directory), "DIR"), []).append(job)
    rows = []
    for error, members in groups.items():
        listed = ", ".join(str(job.number) for job in members[:20])
        more = f" and {len(members) - 20} more" if len(members) > 20 else ""
        rows.append([str(len(members)), f"{listed}{more}", error[:500]])
    grid = Grid(["jobs", "which", "error"], rows, words=(1, 2))
    return Section("failures", "Jobs that failed", [grid] if rows else [])


def settings(view: SweepView) -> Section:
    """Show the settings that differ between a few runs."""
    if view.place is not None or not 2 <= len(view.jobs) <= MAX_SIDE_BY_SIDE:
        return Section("settings", "Settings that differ", [])
    flat = [dict(flatten(job_files(job.directory).config)) for job in view.jobs]
    keys = list(dict.fromkeys(key for each in flat for key in each))
    rows = []
    for key in keys:
        cells = [str(each.get(key, "–"))[:80] for each in flat]
        if len(set(cells)) > 1 and key.partition(".")[0] not in NOT_COMPARED:
            rows.append([key, *cells])
    blocks: list[Block] = []
    if rows:
        columns = ["setting", *(f"run {job.number}" for job in view.jobs)]
        every = tuple(range(len(columns)))
        folded = f"{plural(len(rows), 'setting')}" if len(rows) > 20 else ""
        blocks.append(Grid(columns, rows[:MAX_SETTINGS], words=every, folded=folded))
        if len(rows) > MAX_SETTINGS:
            blocks.append(Text(f"{len(rows) - MAX_SETTINGS} more settings differ.", "small"))
    return Section("settings", "Settings that differ", blocks)


def flatten(node: Any, where: str = "") -> list[tuple[str, Any]]:
    """Return every full key of a configuration with its value."""
    if not isinstance(node, Mapping) or not node:
        return [(where, node)]
    return [
        pair
        for name, inner in node.items()
        for pair in flatten(inner, f"{where}.{name}" if where else str(name))
    ]


def jobs(view: SweepView) -> Section:
    """Show every job in a row."""
    rows = []
    for job, result in zip(view.jobs, view.results, strict=True):
        metrics = job.metrics
        images = number(result.get("test_images"))
        test = metrics.get("test_accuracy", metrics.get("true_accuracy"))
        name = job.directory.name if view.place is not None else str(job.directory)
        if metrics.get("kendall") is not None:
            reached = f"{metrics['kendall']:.3f}"
        else:
            reached = "–" if test is None else accuracy(test, images)
        rows.append(
            [
                str(job.number),
                name,
                view.labels[job.number] + seed_of(job),
                "failed" if job.error else "done",
                reached,
                "–" if "score" not in metrics else percent(metrics["score"]),
                "–" if "params" not in metrics else millions(metrics["params"]),
                "–" if "macs" not in metrics else millions(metrics["macs"]),
                "–" if "seconds" not in metrics else duration(metrics["seconds"]),
            ]
        )
    measure = "τ-b" if view.measure == "kendall" else "accuracy"
    columns = ["#", "directory", "settings", "status", measure, "score", "params", "macs", "time"]
    folded = f"all {len(rows):,} jobs" if len(rows) > 12 else ""
    grid = Grid(columns, rows, words=(1, 2, 3), folded=folded)
    return Section("jobs", "The jobs" if view.place is not None else "The runs", [grid])


def seed_of(job: Job) -> str:
    """Return the seed among the overrides of a job, with a space before it."""
    return next((f" {word}" for word in job.overrides if word.startswith("seed=")), "")


def caution(view: SweepView) -> Section:
    """Say what the numbers of the jobs do not show."""
    items = []
    counts = [len(members) for members in view.done.values()]
    few = [count for count in counts if count < sweep_methods.MIN_SEEDS]
    if few and len(counts) > 1:
        items.append(
            f"{len(few)} of {plural(len(counts), 'combination')} have fewer than "
            f"{sweep_methods.MIN_SEEDS} seeds: with so few nothing can be tested, and the mean of "
            "one run says nothing of its spread."
        )
    elif len(counts) == 1:
        items.append("There is one combination of settings: nothing is compared.")
    for methods in view.methods:
        same = [
            label or NO_WORDS for label, found in methods.differences.items() if found.p >= LEVEL
        ]
        if same:
            items.append(
                f"Not shown to differ from {methods.control or NO_WORDS} in "
                f"{MEASURES[methods.measure].name} (p ≥ {LEVEL:g}): {', '.join(same)}."
            )
    if view.measure == "test_accuracy" and len(counts) > 1:
        items.append(
            "Whoever picks the best settings by their test accuracy has no honest test accuracy "
            "of them any more: pick by validation images, or test on new ones."
        )
    if warning := unequal_costs(view):
        items.append(warning)
    failed = sum(1 for job in view.jobs if job.error)
    if failed:
        items.append(
            f"{plural(failed, 'job')} failed: if failing depends on the settings, the means of the "
            "others are biased."
        )
    return Section("caution", "What cannot be concluded", [Points(items)] if items else [])


def repeat(view: SweepView) -> Section:
    """Show the command of the sweep, as far as its jobs tell it."""
    blocks: list[Block] = []
    facts: list[tuple[str, str]] = []
    if view.place is not None and len(view.tasks) == 1:
        words = together([job.overrides for job in view.jobs])
        line = command(view.tasks[0], "-m", *words)
        blocks.append(Command(line, "the command, put together from the jobs' settings"))
    if view.place is not None:
        facts.append(("directory", str(view.place.absolute())))
    records = [job_files(job.directory).record for job in view.jobs[:1000]]
    for name in ("nasrun", "device"):
        found = list(dict.fromkeys(str(record.get(name)) for record in records if record.get(name)))
        if found:
            more = f" and {len(found) - 3} others" if len(found) > 3 else ""
            facts.append((name, "; ".join(found[:3]) + more))
    return Section("repeat", "To repeat it", [*blocks, Facts(facts)] if facts else blocks)
