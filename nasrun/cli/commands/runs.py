"""List runs and sweeps, the newest last; all that is known: --csv, --json."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nasrun.cli.arguments import CommandLine
from nasrun.config.groups import files_of, groups
from nasrun.config.yaml_files import read
from nasrun.errors import UserError, plural
from nasrun.run.files import at_home, printable

USAGE = "[SWEEP] [WORD|KEY=VALUE]"
SWITCHES = ("--csv", "--json")

MAX_SHOWN = 3
"""Names of a folder without a run that are told."""


def run(line: CommandLine) -> int:
    """List the runs below ``outputs``, or below a folder that is among the words."""
    from rich.console import Console

    from nasrun.cli.run_names import OUTPUTS
    from nasrun.report import run_table
    from nasrun.report.run_list import STOPPED, entries, is_sweep
    from nasrun.run.commands import command

    if others := [switch for switch in line.switches if switch not in SWITCHES]:
        raise UserError(f"runs takes no {others[0]}, but {' and '.join(SWITCHES)}")
    words = list(line.overrides)
    named = folder = next((place for word in words if (place := _named_folder(word))), None)
    words = [word for word in words if _named_folder(word) is None]
    outputs = next((word for word in words if word.startswith("outputs=")), f"outputs={OUTPUTS}")
    if folder is None:
        folder = at_home(outputs.partition("=")[2]).absolute()
        words = [word for word in words if not word.startswith("outputs=")]
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}, so no run is there; outputs=DIR names another"
        )
    wanted = run_table.Filter(words, _targets(words)) if words else None
    found = entries(folder, wanted, jobs=True)
    if "--json" in line.switches:
        sys.stdout.write(f"{run_table.as_json(found)}\n")
        return 0
    if "--csv" in line.switches:
        sys.stdout.write(run_table.as_csv(found))
        return 0
    if not found:
        fits = f"no run below {folder}{f' fits {chr(32).join(words)}' * bool(words)}"
        if plain := next((word for word in words if "=" not in word), None):
            place = _folder(plain)
            raise UserError(_content(place) if place else f"there is no folder {plain}, and {fits}")
        if named and not words:
            raise UserError(_content(named))
        sys.stdout.write(f"{fits}\n")
        return 0
    told = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False) if told else Console(width=160, highlight=False)
    jobs = is_sweep(folder)
    run_table.show(found, console, jobs=jobs)
    sweeps = sum(entry.jobs is not None for entry in found)
    counts = [
        plural(count, kind)
        for count, kind in ((len(found) - sweeps, "job" if jobs else "run"), (sweeps, "sweep"))
        if count
    ]
    console.print(f"{' and '.join(counts)} in {folder}", markup=False, soft_wrap=True)
    stopped = [entry for entry in found if entry.status == STOPPED]
    if stopped:
        near = folder == Path(OUTPUTS).absolute()
        last = stopped[-1].word if near else stopped[-1].path
        hint = f"go on with what was stopped: {command('resume', last)}"
        console.print(hint, markup=False, soft_wrap=True, style="dim")
    return 0


def _named_folder(word: str) -> Path | None:
    """Return the folder that a word names by a path, or by the folder of a run or a sweep."""
    from nasrun.report.run_list import is_sweep
    from nasrun.run.layout import RECORD

    if "=" in word:
        return None
    path = _folder(word)
    if path and ("/" in word or is_sweep(path) or (path / RECORD).exists()):
        return path
    if "/" in word:
        raise UserError(f"{word}: there is no such directory")
    return None


def _folder(word: str) -> Path | None:
    """Return the folder that a word is the path of; None: there is none."""
    path = at_home(word).absolute()
    try:
        return path if path.is_dir() else None
    except (OSError, ValueError):  # a name that no folder can have
        return None


def _content(folder: Path) -> str:
    """Say that a folder holds no run, and what it holds."""
    inside = sorted(path.name for path in folder.iterdir())
    more = f" and {len(inside) - MAX_SHOWN} more" if len(inside) > MAX_SHOWN else ""
    held = f"it holds {', '.join(map(printable, inside[:MAX_SHOWN]))}{more}"
    return f"there is no run in {folder}: {held if inside else 'it is empty'}"


def _targets(words: list[str]) -> dict[str, str]:
    """Return for each ``GROUP=OPTION`` the class that the option builds."""
    found = {}
    known = groups() if any("=" in word for word in words) else {}
    for word in words:
        key, _, option = word.partition("=")
        group = key.partition("@")[0]
        if option in known.get(group, ()):
            target = read(files_of(group)[option]).get("_target_")
            if isinstance(target, str):
                found[word] = target
    return found
