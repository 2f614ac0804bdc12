"""Print the script for tab completion in bash, zsh or fish.

eval "$(nasrun completion bash)"      in ~/.bashrc
eval "$(nasrun completion zsh)"       in ~/.zshrc
nasrun completion fish > ~/.config/fish/completions/nasrun.fish

It completes tasks, commands, groups and their options, settings, recipes, runs and files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError, nearest

USAGE = "bash | zsh | fish"
SWITCHES = ()

SHELLS = ("bash", "zsh", "fish")
CANDIDATES = "candidates"
"""The word by which the scripts ask for candidates."""

SHELL, LINE, BREAKS = "NASRUN_SHELL", "NASRUN_LINE", "NASRUN_BREAKS"
"""Environment variables in which a script tells its shell, the line up to the cursor, and the
characters that end a word for bash."""

MAX_ABOUT_CHARACTERS = 70
"""Length of a meaning beside a candidate."""


def run(line: CommandLine) -> int:
    """Print the script of the shell that the first word names."""
    if line.overrides == (CANDIDATES,):
        return print_candidates()
    if len(line.overrides) != 1 or line.overrides[0] not in SHELLS:
        word = line.overrides[0] if line.overrides else ""
        raise UserError(
            f"completion takes a shell{nearest(word, SHELLS)}: nasrun completion {USAGE}; "
            'e.g. in ~/.bashrc: eval "$(nasrun completion bash)"'
        )
    folder = Path(__file__).parents[1] / "completion"
    sys.stdout.write((folder / f"nasrun.{line.overrides[0]}").read_text(encoding="utf-8"))
    return 0


def print_candidates() -> int:
    """Print what may stand at the cursor, for a script; on any error nothing at all."""
    try:
        text = "".join(f"{one}\n" for one in _lines())
    except Exception:  # an error would stand in the middle of the line that the user types
        return 1
    sys.stdout.write(text)
    return 0


def _lines() -> list[str]:
    from nasrun.cli.completion.candidates import candidates
    from nasrun.cli.completion.words import escaped, read_line

    shell = os.environ.get(SHELL, "")
    typed = read_line(os.environ.get(LINE, ""), os.environ.get(BREAKS, ""))
    lines = []
    for one in candidates(typed.words, typed.current):
        about = " ".join(one.about.split())
        if len(about) > MAX_ABOUT_CHARACTERS:
            about = f"{about[: MAX_ABOUT_CHARACTERS - 1]}…"
        if shell == "bash":
            end = f"{typed.quote} " if one.final else ""
            lines.append(escaped(one.word[typed.kept :], typed.quote) + end)
        elif shell == "zsh":
            kind = "complete" if one.final else "open"
            lines.append(f"{kind}\t{escaped(one.word, '')}\t{about}")
        else:
            lines.append(f"{one.word}\t{about}" if about else one.word)
    return [line for line in lines if "\n" not in line]
