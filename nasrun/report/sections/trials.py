"""All trials of a search: score against size, with the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nasrun.errors import plural
from nasrun.report.charts import COLORS, Dots, scatter_chart
from nasrun.report.document import Block, Grid, Section, Text
from nasrun.report.run_lines import TrialLine
from nasrun.report.sections.view import RunView
from nasrun.report.units import UNITS, in_unit
from nasrun.report.words import millions, number, percent

MAX_POINTS = 3000
"""Points of the chart; of more trials the best half of these and an even sample are shown."""

MAX_TABLE_ROWS = 10
"""Rows of the table of the best."""

Placed = Mapping[str, tuple[int, Mapping[str, float]]]
"""Places in the front, and costs, by the digest of the architecture."""


def trials(view: RunView) -> Section:
    """Show score against size of every architecture that the search has scored."""
    title = "All architectures that were scored"
    newest = {trial.digest: trial for trial in view.searched}  # of several scores the last one
    found = list(newest.values())
    if view.run.task not in ("search", "supernet") or len(found) < 2:
        return Section("trials", title, [])
    blocks: list[Block] = [chart(view, found, size) for size in sizes_of(view, found)]
    if len(found) > MAX_POINTS:
        blocks.append(
            Text(
                f"{MAX_POINTS:,} of {len(found):,} points are shown: the front, the best half of "
                "these, and an even sample of the others.",
                "small",
            )
        )
    again = len(view.searched) - len(found)
    if again:
        blocks.append(
            Text(
                f"{plural(again, 'score')} of architectures that were scored again later are left "
                "out; each has its newest score.",
                "small",
            )
        )
    blocks.append(table(view, found))
    return Section("trials", title, blocks)


@dataclass(frozen=True)
class Size:
    """A cost on a horizontal axis. of: the cost of a trial. bounds: of the budget, in its unit."""

    name: str
    unit: str
    of: Callable[[TrialLine], float]
    bounds: Sequence[float] = ()


def sizes_of(view: RunView, found: Sequence[TrialLine]) -> list[Size]:
    """Return the costs that the scores are shown against: first those of a budget or a goal.

    These are of the final network; without any, it is the size in the search.
    """
    sizes = []
    for name, (words, unit, _) in UNITS.items():
        if not all(name in trial.final for trial in found):
            continue
        limits = [number(view.setting("budget", name, end)) for end in ("min", "max")]

        def cost(trial: TrialLine, name: str = name) -> float:
            return in_unit(name, trial.final[name])

        bounds = [in_unit(name, limit) for limit in limits if limit is not None]
        sizes.append(Size(words, unit, cost, bounds))
    if sizes:
        return sizes[::-1][:2]  # latency first
    name = "macs" if len({trial.cost.macs for trial in found}) > 1 else "params"
    scale = ", at the size of the search" if view.scales_differ else ""

    def searched(trial: TrialLine) -> float:
        return 1e-6 * float(getattr(trial.cost, name))

    return [Size(UNITS[name][0], f"M{scale}", searched)]


def front_of(found: Sequence[TrialLine], size: Callable[[TrialLine], float]) -> list[TrialLine]:
    """Return the trials that no other beats in score and in size, from the smallest up."""
    front: list[TrialLine] = []
    for trial in sorted(found, key=lambda trial: (size(trial), -trial.score)):
        if not front or trial.score > front[-1].score:
            front.append(trial)
    return front


def thin(found: Sequence[TrialLine], kept: set[int]) -> list[TrialLine]:
    """Return at most about ``MAX_POINTS`` trials; kept: numbers that stay."""
    if len(found) <= MAX_POINTS:
        return list(found)
    best = sorted(found, key=lambda trial: -trial.score)[: MAX_POINTS // 2]
    chosen = kept | {trial.number for trial in best}
    others = [trial for trial in found if trial.number not in chosen]
    left = max(MAX_POINTS - len(chosen), 1)
    chosen |= {others[i * len(others) // left].number for i in range(left)} if others else set()
    return [trial for trial in found if trial.number in chosen]


def chart(view: RunView, found: Sequence[TrialLine], size: Size) -> Block:
    """Make the chart: all trials, the front, and the winner; a click shows a command."""
    front = front_of(found, size.of)
    placed = view.run.front
    winner = view.winner.digest if view.winner is not None else ""
    won = [trial for trial in found if trial.digest == winner]
    shown = thin(found, {trial.number for trial in [*front, *won]})
    others = [trial for trial in shown if trial not in won]

    def dots(name: str, of: Sequence[TrialLine], color: str, **looks: object) -> Dots:
        return Dots(
            name,
            [size.of(trial) for trial in of],
            [100 * trial.score for trial in of],
            [hover(view, trial, placed) for trial in of],
            [chosen_by(trial, placed) for trial in of],
            marker={"color": color, **looks},
        )

    line = Dots(
        "best at its size or below",
        [size.of(trial) for trial in front],
        [100 * trial.score for trial in front],
        style={
            "mode": "lines",
            "line": {"shape": "hv", "color": COLORS[1], "width": 1.5},
            "hoverinfo": "skip",
        },
    )
    groups = [dots("scored", others, COLORS[0]), line]
    if won:
        groups.append(dots("the winner", won, COLORS[4], size=14, symbol="star", opacity=1))
    bounds = [
        {
            "type": "line",
            "yref": "paper",
            "x0": bound,
            "x1": bound,
            "y0": 0,
            "y1": 1,
            "line": {"color": COLORS[8], "width": 1.5, "dash": "dot"},
        }
        for bound in size.bounds
    ]
    told = " The dotted line is the budget." if bounds else ""
    return scatter_chart(
        groups,
        f"{size.name} ({size.unit})",
        "score in the search (%)",
        f"Score against {size.name} of {plural(len(found), 'architecture')}.{told} Point at one to "
        "read it; click it for the command that trains it.",
        command=view.command("retrain") + " ",
        layout={"shapes": bounds} if bounds else None,
    )


def chosen_by(trial: TrialLine, placed: Placed) -> str:
    """Return the setting by which ``retrain`` takes the architecture of a trial."""
    return f"pick={placed[trial.digest][0]}" if trial.digest in placed else f"trial={trial.number}"


def hover(view: RunView, trial: TrialLine, placed: Placed) -> str:
    """Describe a trial beside its point."""
    lines = [
        f"trial {trial.number}, {trial.group}: {percent(trial.score)}",
        f"{millions(trial.cost.params)} parameters, {millions(trial.cost.macs)} multiply-adds",
    ]
    costs = [
        f"{in_unit(name, trial.final[name]):,.4g} {unit} {words}"
        for name, (words, unit, _) in UNITS.items()
        if name in trial.final
    ]
    if costs:
        lines.append(f"final network: {', '.join(costs)}")
    if trial.digest in placed:
        lines.append(f"pick {placed[trial.digest][0]} of the front")
    return "\n".join([*lines, view.words_of(trial.architecture)])


def table(view: RunView, found: Sequence[TrialLine]) -> Grid:
    """Return the best architectures as a table."""
    best = sorted(found, key=lambda trial: -trial.score)[:MAX_TABLE_ROWS]
    return Grid(
        ["trial", "scored in", "score", "parameters", "multiply-adds"],
        [
            [
                str(trial.number),
                trial.group,
                percent(trial.score),
                millions(trial.cost.params),
                millions(trial.cost.macs),
            ]
            for trial in best
        ],
        f"the best {len(best)} of {len(found):,} by their scores"
        + ("; sizes at the scale of the search" if view.scales_differ else ""),
        words=(1,),
    )
