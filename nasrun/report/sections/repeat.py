"""All that it takes to repeat a run: the command, versions, seeds, device and code."""

from __future__ import annotations

from collections.abc import Mapping

from nasrun.errors import plural
from nasrun.report.document import Block, Command, Facts, Points, Section
from nasrun.report.sections.view import RunView
from nasrun.run.commands import command
from nasrun.run.layout import METRICS, TRIALS


def repeat(view: RunView) -> Section:
    """Show the command, and all that the numbers may depend on."""
    record = view.run.record
    given = [str(word) for word in record.get("overrides") or [] if isinstance(word, str)]
    blocks: list[Block] = []
    if view.run.task:
        words = command(view.run.task, *given)
        blocks.append(Command(words, "the command, as it was typed"))
    facts = [
        ("nasrun", str(record.get("nasrun", ""))),
        ("code", code(record.get("git"))),
        ("seed", seeds(view)),
        ("device", device(view)),
        ("versions", versions(record.get("versions"))),
        ("begun", str(record.get("started", ""))),
        ("directory", str(view.place)),
    ]
    resumed = record.get("resumed")
    if isinstance(resumed, list) and resumed:
        facts.append(("gone on with", resumptions(resumed)))
    blocks.append(Facts([(name, value) for name, value in facts if value]))
    damage = [
        words
        for name, (_, found) in ((TRIALS, view.run.trials), (METRICS, view.run.curves))
        if (words := found.words(name))
    ]
    if damage:
        blocks.append(Points(damage))
    return Section("repeat", "To repeat it", blocks)


def code(git: object) -> str:
    """Say which commit has run."""
    if not isinstance(git, Mapping):
        return "unknown: no checkout"
    state = "" if git.get("clean") is True else ", with changes that are in no commit"
    return f"commit {str(git.get('commit', 'unknown'))[:40]}{state}"


def seeds(view: RunView) -> str:
    """Say the seeds of the run and of the split of its images."""
    seed, split = view.run.seed, view.setting("split_seed")
    words = "" if seed is None else str(seed)
    return (
        f"{words}; of the split into training and validation images: {split}"
        if split != seed
        else words
    )


def device(view: RunView) -> str:
    """Say the device, and whether the same line gives the same bits on it."""
    threads = view.run.record.get("threads")
    words = view.run.device
    if type(threads) is int and "thread" not in words:
        words += f", {plural(threads, 'thread')}"
    if not words.startswith("CPU") and view.setting("deterministic") is False:
        words += "; deterministic=false: a repetition gives numbers that differ a little"
    return words


def versions(found: object) -> str:
    """List packages and their versions."""
    if not isinstance(found, Mapping):
        return ""
    return ", ".join(f"{name} {version}" for name, version in list(found.items())[:20])


def resumptions(entries: list[object]) -> str:
    """Say when and with which settings a run was continued."""
    words = []
    for entry in entries[:20]:
        if isinstance(entry, Mapping):
            changed = entry.get("overrides")
            given = [str(word) for word in changed] if isinstance(changed, list) else []
            words.append(f"{entry.get('at', '')} {' '.join(given)}".strip())
    return "; ".join(words)
