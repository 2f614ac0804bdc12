"""The winner: drawn and in words, and where it came from."""

from __future__ import annotations

import base64

from nasrun.errors import UserError
from nasrun.report.document import Block, Command, Grid, Lines, Picture, Section, Text
from nasrun.report.graph_svg import without_paper
from nasrun.report.run_lines import TrialLine
from nasrun.report.sections.view import STRANGE, RunView
from nasrun.report.words import percent
from nasrun.run.files import read_bytes
from nasrun.run.layout import ARCHITECTURE_PICTURE

MAX_PICTURE_BYTES = 2**20
"""Size of a picture of the run that is put into the page."""

MAX_ANCESTORS = 40
"""Rows of the lineage at most."""


def winner(view: RunView) -> Section:
    """Show the architecture that the run has ended with."""
    architecture = view.winner
    if architecture is None:
        return Section("winner", "The winner", [])
    title = "The winner" if view.run.task == "search" else "The architecture"
    blocks: list[Block] = [*pictures(view), Lines(view.lines_of(architecture))]
    if view.space is not None:
        try:
            written = view.space.write(view.space.check(architecture))
        except STRANGE:
            written = ""
        if 0 < len(written) <= 2000:
            blocks.append(Command(written, "as its space writes it"))
    if view.run.status == "done":
        again = view.command("retrain", "seed=1")
        blocks.append(Command(again, "train it again, from another seed"))
    return Section("winner", title, blocks)


def pictures(view: RunView) -> list[Block]:
    """Return the picture of the architecture that the run has left."""
    path = view.run.path / f"{ARCHITECTURE_PICTURE}.svg"
    try:
        data = read_bytes(path, MAX_PICTURE_BYTES)
    except (OSError, UserError):
        return []
    # Of a stranger, perhaps. Browsers run no scripts of a picture that is named as an image.
    source = f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
    svg = without_paper(data.decode(errors="replace")) or ""
    return [Picture(source, "the architecture as a graph", svg)]


def lineage(view: RunView) -> Section:
    """Show the ancestors of the winner, as far as they are recorded."""
    blocks: list[Block] = []
    found = ancestors(view)
    if len(found) > 1:
        rows = [
            [
                str(trial.number),
                trial.by or "–",
                percent(trial.score),
                changes(view, trial, found[place + 1] if place + 1 < len(found) else None),
            ]
            for place, trial in enumerate(found[:MAX_ANCESTORS])
        ]
        blocks.append(
            Grid(
                ["trial", "made by", "score", "what differs from the better parent, the next row"],
                rows,
                "from the winner back to its first ancestor",
                words=(1, 3),
            )
        )
        if len(found) > MAX_ANCESTORS:
            blocks.append(Text(f"{len(found) - MAX_ANCESTORS} earlier ones are left out.", "small"))
    return Section("lineage", "Lineage of the winner", blocks)


def ancestors(view: RunView) -> list[TrialLine]:
    """Return the winner's first trial, its better parent, that one's, and so on."""
    if view.winner is None:
        return []
    first: dict[str, TrialLine] = {}
    for trial in view.searched:
        first.setdefault(trial.digest, trial)
    found: list[TrialLine] = []
    current = first.get(view.winner.digest)
    while current is not None and current not in found:
        found.append(current)
        number = current.number
        parents = [first[name] for name in current.parents if name in first]
        earlier = [parent for parent in parents if parent.number < number]
        current = max(earlier, key=lambda trial: trial.score, default=None)
    return found


def changes(view: RunView, child: TrialLine, parent: TrialLine | None) -> str:
    """Say which decisions differ between a child and its parent."""
    if parent is None:
        return ""
    a, b = child.architecture.choices, parent.architecture.choices
    differing = [index for index in range(min(len(a), len(b))) if a[index] != b[index]]
    words = []
    for index in differing[:4]:
        name, new, old = f"decision {index}", str(a[index]), str(b[index])
        if view.space is not None and index < len(view.space.decisions):
            decision = view.space.decisions[index]
            options = decision.options
            if max(a[index], b[index]) < len(options) and min(a[index], b[index]) >= 0:
                name, new, old = decision.name, options[a[index]], options[b[index]]
        words.append(f"{name}: {old} → {new}")
    more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
    return ("; ".join(words) + more) or "nothing"
