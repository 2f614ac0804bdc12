"""The page that ``nasrun --help`` shows, made from the folder of configurations.

It imports neither Hydra nor torch, so that it appears at once.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from nasrun.cli import commands
from nasrun.cli.columns import section
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
    ("-h, --help; --version", "this page, or that of the task; the version"),
)

ENVIRONMENT = (
    ("NASRUN_DATA=DIR", "where data sets and tables are looked for; else in data/"),
    ("NASRUN_DEBUG=1", "show the traceback of an error"),
    ("NASRUN_TRUST=PKG,...", "further packages whose classes a configuration may name"),
)

MORE = (
    ("nasrun TASK --help", "settings and groups of a task"),
    ("nasrun help sampler", "a group: its options, and what they mean"),
    ("nasrun help sampler=sandwich", "an option: its settings, units and sources"),
    ("nasrun help experiment=NAME", "a recipe: what it sets, and why"),
    ("nasrun help budget.macs.max", "a setting, or all that are called so: nasrun help lr"),
)

GROUP_PLACES = {"architectures": "architectures@rank.architectures"}
"""Groups of a single task -> how they are written on its command line."""

HIDDEN_GROUPS = ("task", "hydra")
"""Groups that are not chosen by GROUP=OPTION."""


def show(config_dir: str | None, console: Console) -> None:
    """Print the page of help."""
    console.print("[bold]nasrun[/]: one-shot neural architecture search, experiments as runs")
    console.print("\nnasrun TASK [GROUP=OPTION ...] [KEY=VALUE ...] [SWITCHES]", markup=False)
    section("Tasks", tasks().items(), console)
    section("Commands", commands.help_lines(), console)
    section("Groups and their options", group_lines(config_dir), console)
    section("More help", MORE, console)
    examples(None, console)
    switches(console)


def group_lines(config_dir: str | None) -> list[tuple[str, str]]:
    """Return the groups that a command line chooses from, each with its options, default first."""
    chosen = defaults()
    lines = []
    for group, options in groups(config_dir).items():
        if "/" in group or group in HIDDEN_GROUPS:
            continue
        if group == "experiment":
            ours = groups()[group]
            own = [option for option in options if option not in ours]
            named = ", ".join([*own, f"{len(ours)} recipes: nasrun help experiment"])
        else:
            first = chosen.get(group)
            rest = [option for option in options if option != first]
            mark = " (default)" if rest else ""
            named = ", ".join([f"{first}{mark}"] * bool(first) + rest)
        lines.append((GROUP_PLACES.get(group, group), named))
    places = [key for key in chosen if "@" in key and not key.startswith(("optional", "override"))]
    lines += [(place, f"the options of {place.partition('@')[0]}") for place in places]
    return sorted(lines, key=lambda line: line[0] == "experiment")  # the longest one comes last


def examples(task: str | None, console: Console) -> None:
    """Print example commands, of a ``task`` if it is given."""
    fitting = [e for e in EXAMPLES if task is None or e[0].startswith(f"nasrun {task} ")]
    if fitting:
        console.print("\n[bold]Examples[/]")
    for command, text in fitting:
        console.print(Text(f"  {command}", style="cyan"))
        console.print(Text(f"      {text}"))


def switches(console: Console) -> None:
    """Print what all tasks take besides settings."""
    section("Switches", SWITCHES, console)
    section("Environment", ENVIRONMENT, console)
