"""Write a small package with an option of your own, its settings and a test, ready to run.

nasrun new sampler mine             makes mine/: a sampler that is tested and used at once
nasrun new search_space deep into=~/work

The class is an example that works: put your own rule in its place.
"""

from __future__ import annotations

from pathlib import Path

from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError, nearest
from nasrun.run.files import at_home

USAGE = "sampler | search_algo | search_space | evaluator | dataset NAME [into=DIR]"
SWITCHES = ()


def run(line: CommandLine) -> int:
    """Write the package that the words name, and say how it is tested and used."""
    from rich.console import Console

    from nasrun.cli.new_package import KINDS, make

    words = [word for word in line.overrides if "=" not in word]
    options = [word for word in line.overrides if "=" in word]
    usage = f"nasrun new {USAGE}"
    if not words or words[0] not in KINDS:
        known = nearest(words[0], KINDS) if words else ""
        said = f"{words[0]!r} is no kind{known}" if words else "new takes a kind and a name"
        raise UserError(f"{said}: {usage}")
    if len(words) != 2:
        raise UserError(f"new takes one kind and one name: {usage}")
    into = Path()
    for option in options:
        key, _, value = option.partition("=")
        if key != "into" or not value:
            raise UserError(f"{option}: new takes into=DIR alone: {usage}")
        into = at_home(value)
    kind, name = words
    commands = make(kind, name, into)
    console = Console(highlight=False, soft_wrap=True)
    place = into / name
    console.print(f"made {place}", markup=False)
    for title, path in (
        ("class", f"{place / name / kind}.py"),
        ("settings", f"{place / 'conf' / kind / name}.yaml"),
    ):
        console.print(f"{title:>8}  {path}", markup=False)
    console.print("test it and use it:")
    for shown in commands:
        console.print(f"  {shown}", style="cyan", markup=False)
    return 0
