"""The page that ``nasrun --help`` shows, made from the folder of configurations.

It imports neither Hydra nor torch, so that it appears at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nasrun.cli import commands
from nasrun.config.groups import defaults, groups, tasks

EXAMPLES = (
    ("nasrun search effort=smoke", "see the whole thing run, in seconds"),
    ("nasrun search -m sampler=uniform,proportional seed=0,1,2", "six runs and their summary"),
    ("nasrun compare experiment=shootout_nas_bench_201", "search algorithms over 100 seeds"),
    ("nasrun retrain from=outputs/search/RUN", "train what a search has found"),
    ("nasrun search experiment=small_cifar10 resume=auto", "the same line again goes on with it"),
)

SWITCHES = (
    ("-m, --multirun", "sweep: run every combination of comma-separated values"),
    ("--cfg job", "show the composed configuration, run nothing; -p GROUP for a part of it"),
    ("--info defaults-tree", "show which file each part of the configuration comes from"),
    ("-cd DIR", "a folder with options and experiments of your own"),
    ("--hydra-help", "the rest of Hydra's switches"),
    ("-h, --help; --version", "this page; the version"),
)

ENVIRONMENT = (
    ("NASRUN_DEBUG=1", "show the traceback of an error"),
    ("NASRUN_TRUST=PKG,...", "further packages whose classes a configuration may name"),
)

GROUP_PLACES = {"architectures": "architectures@rank.architectures"}
"""Groups of a single task -> how they are written on its command line."""

HIDDEN_GROUPS = ("task", "hydra")
"""Groups that are not chosen by GROUP=OPTION."""


def show(task: str | None, config_dir: str | None, console: Console) -> None:
    """Print the page of help; with a ``task`` its own line comes first."""
    if task is None:
        console.print("[bold]nasrun[/]: one-shot neural architecture search, experiments as runs")
        console.print("\nnasrun TASK [GROUP=OPTION ...] [KEY=VALUE ...] [SWITCHES]", markup=False)
        _section("Tasks", tasks().items(), console)
        _section("Commands", commands.help_lines(), console)
    else:
        console.print(f"[bold]nasrun {task}[/]: {tasks()[task]}")
        usage = f"\nnasrun {task} [GROUP=OPTION ...] [KEY=VALUE ...] [SWITCHES]"
        console.print(usage, markup=False)
    chosen = defaults()
    lines = []
    for group, options in groups(config_dir).items():
        if "/" in group or group in HIDDEN_GROUPS:
            continue
        first = chosen.get(group)
        rest = [option for option in options if option != first]
        lines.append(
            (GROUP_PLACES.get(group, group), ", ".join([f"{first} (default)"] * bool(first) + rest))
        )
    _section("Groups and their options", lines, console)
    others = [key for key in chosen if "@" in key and not key.startswith(("optional", "override"))]
    if others:
        console.print(f"  and with the options of trainer: {', '.join(others)}", highlight=False)
    console.print("\n[bold]Examples[/]")
    for command, text in EXAMPLES:
        console.print(Text(f"  {command}", style="cyan"))
        console.print(Text(f"      {text}"))
    _section("Switches", SWITCHES, console)
    _section("Environment", ENVIRONMENT, console)


def _section(title: str, lines: Iterable[tuple[str, str]], console: Console) -> None:
    console.print(f"\n[bold]{title}[/]")
    lines = list(lines)
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=2 + max((len(name) for name, _ in lines), default=0))
    table.add_column()
    for name, text in lines:
        table.add_row(Text(f"  {name}", style="cyan", no_wrap=True), Text(text))
    console.print(table)
