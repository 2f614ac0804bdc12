"""Pages of help on one thing: a task, a command, a group, an option, a recipe, a setting.

All that they say stands in the comments of YAML files and in docstrings; Hydra and torch are not
imported.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nasrun.building.field_words import in_our_words
from nasrun.cli import commands
from nasrun.cli import help as front
from nasrun.cli.columns import docstring_text, heading, paragraph, section
from nasrun.config.comments import described
from nasrun.config.docstrings import docstring, first_line
from nasrun.config.groups import conf_dir, files_of, groups, task_of_recipe, tasks
from nasrun.config.outline import Outline, Setting, file_of, outline
from nasrun.errors import UserError, nearest
from nasrun.run.commands import command as shown

FOR_ALL_TASKS = ("experiment", "effort", "logger")
"""Groups that every task has use for."""

RECIPES = "experiment"
WHOLE = ("task", RECIPES, "effort")
"""Groups whose options set values anywhere."""

MAX_FOUND = 40
"""Settings that a page lists, at most."""

_GROUPS = re.compile(r"^# groups: *(.*)$", re.MULTILINE)


def show_word(word: str, config_dir: str | None, console: Console) -> None:
    """Print the page of a word of ``nasrun help``; raises UserError, with a near word, if none."""
    name, equals, option = word.partition("=")
    known = {g: o for g, o in groups(config_dir).items() if "/" not in g and g != "hydra"}
    group, at, _ = name.partition("@")
    places = {place for one in _outlines(config_dir) for place in one.choices}
    owners = [g for g, options in known.items() if word in options]
    task = option if name == "task" else word
    if task in tasks():
        show_task(task, (), config_dir, console)
    elif word in commands.names():
        show_command(word, console)
    elif group in known and (not at or name in places) and group != "task":
        if equals:
            show_option(name, option, config_dir, console)
        else:
            show_group(name, config_dir, console)
    elif show_settings(name, config_dir, console):
        return
    elif told := in_our_words(word):
        raise UserError(f"nothing here is called {word!r}: {told}")
    elif len(owners) == 1:
        show_option(owners[0], word, config_dir, console)
    else:
        words = [*tasks(), *commands.names(), *known, *places, *_keys(config_dir)]
        words += [f"{g}={o}" for g, options in known.items() for o in options]
        words += sorted({word.rpartition(".")[2].rpartition("=")[2] for word in words})
        if owners:
            raise UserError(f"{word} is an option of {', '.join(owners)}: nasrun help GROUP={word}")
        near = nearest(word, sorted(places) if at else words)
        raise UserError(
            f"nothing here is called {word!r}{near}; `nasrun help` lists tasks, "
            "commands, groups and options"
        )


def show_task(
    task: str, overrides: Sequence[str], config_dir: str | None, console: Console
) -> None:
    """Print the page of a task, with the options that the command line chooses."""
    chosen = dict(word.partition("=")[::2] for word in overrides)
    path = conf_dir() / "task" / f"{task}.yaml"
    heading(f"nasrun {task}", tasks()[task], console)
    usage = f"\nnasrun {task} [GROUP=OPTION ...] [KEY=VALUE ...] [SWITCHES]"
    console.print(usage, markup=False, highlight=False)
    found = outline(task, chosen, config_dir)
    own = [s for s in found.settings.values() if s.origin == f"task={task}" and s.key != "task"]
    section(f"Settings of {task}", _rows(own), console)
    listed = _GROUPS.search(path.read_text(encoding="utf-8"))
    wanted = [*listed[1].split(), *FOR_ALL_TASKS] if listed else None
    rows = []
    for place, choice in found.choices.items():
        if place == "task" or (wanted is not None and place not in wanted):
            continue
        file = file_of(choice.group, choice.option, config_dir) if choice.option else None
        meaning = described(file).summary if file else choice.comment
        rows.append((f"{place}={choice.option or 'null'}", meaning))
    section("Groups and what is chosen; nasrun help GROUP: the others", rows, console)
    general = [s for s in found.settings.values() if s.key in _general()]
    section("Settings of every run", _rows(general), console)
    front.examples(task, console)
    front.switches(console)


def show_command(name: str, console: Console) -> None:
    """Print the page of a command: its usage, and the docstring of its module."""
    found = commands.find(name)
    first, _, rest = inspect.cleandoc(found.__doc__ or "").partition("\n\n")
    heading(f"nasrun {name}", first, console)
    console.print(f"\nnasrun {name} {found.USAGE}".rstrip(), markup=False, highlight=False)
    if found.SWITCHES:
        section("Switches", [(switch, "") for switch in found.SWITCHES], console)
    if rest:
        console.print()
        docstring_text(rest, console, indent=0)


def show_group(place: str, config_dir: str | None, console: Console) -> None:
    """Print the options of a group, each with its meaning."""
    group = place.partition("@")[0]
    files = files_of(group, config_dir)
    choice = next((o.choices[place] for o in _outlines(config_dir) if place in o.choices), None)
    about = first_line(f"nasrun.{group}") or (choice.comment if choice else "")
    heading(f"{place}=OPTION", about, console)
    default = choice.option if choice else None
    of_recipes = group == RECIPES
    task_of = {o: task_of_recipe(o, config_dir) if of_recipes else "" for o in files}
    for task in tasks() if of_recipes else ("",):
        rows = [
            (option, f"{described(path).summary}{' (default)' if option == default else ''}")
            for option, path in files.items()
            if task_of[option] == task
        ]
        section(f"Recipes of nasrun {task}" if task else "Options", rows, console)
    console.print()
    example = next((option for option in files if option != default), "OPTION")
    paragraph(f"{shown('help', f'{place}={example}')} shows the settings of one.", console)


def show_option(place: str, option: str, config_dir: str | None, console: Console) -> None:
    """Print the settings of an option, or what a recipe sets."""
    group = place.partition("@")[0]
    path = file_of(group, option, config_dir)
    if path is None:
        known = groups(config_dir)[group]
        raise UserError(
            f"{place}={option}: {group} has no such option{nearest(option, known)}; "
            f"options: {', '.join(known)}"
        )
    if group == RECIPES:
        _show_recipe(option, config_dir, console)
        return
    heading(f"{place}={option}", described(path).header, console)
    homes = zip(tasks(), _outlines(config_dir), strict=True)
    task = next((name for name, one in homes if place in one.choices), next(iter(tasks())))
    task = option if group == "task" else task
    found = outline(task, {place: option}, config_dir)
    target = found.choices[place].package if place in found.choices else group
    inside = [s for s in found.settings.values() if f"{s.key}.".startswith(f"{target}.")]
    section("Settings", _rows(inside), console)
    classes = [s.text for s in inside if s.key == f"{target}._target_"]
    for name in classes:
        console.print(f"\n[bold]Class[/] {name}", highlight=False)
        docstring_text(docstring(name), console)
    _where(path, console)


def _show_recipe(name: str, config_dir: str | None, console: Console) -> None:
    """Print what a recipe chooses and sets, with its comments."""
    path = file_of(RECIPES, name, config_dir)
    task = task_of_recipe(name, config_dir)
    file = described(path) if path else None
    heading(f"{RECIPES}={name}", f"a recipe of nasrun {task}", console)
    if file is None or path is None:
        return
    console.print()
    paragraph(file.header, console)
    found = outline(task, {RECIPES: name}, config_dir)
    plain = outline(task, {}, config_dir)
    chosen = []
    for place, choice in found.choices.items():
        if place != RECIPES and choice.option != getattr(plain.choices.get(place), "option", None):
            said = [e.comment for e in file.defaults or () if e.key == f"override /{place}"]
            option = file_of(choice.group, choice.option, config_dir) if choice.option else None
            meaning = (said or [""])[0] or (described(option).summary if option else "")
            chosen.append((f"{place}={choice.option or 'null'}", meaning))
    section("It chooses", chosen, console)
    rows = []
    for setting in found.settings.values():
        if setting.origin.startswith(f"{RECIPES}="):
            meaning = setting.comment.partition("; ")[0]
            words = f"{meaning}; {setting.said}" if meaning and setting.said else ""
            rows.append((f"{setting.key}={setting.text}", words or meaning or setting.said))
    section("It sets", rows, console)
    sweeps = [e for e in file.entries if e.key.startswith("hydra.sweeper.params.")]
    section("It sweeps, with -m", [(_sweep(e.key, e.text), e.comment) for e in sweeps], console)
    console.print()
    several = ["-m"] if sweeps else []
    paragraph(shown(task, *several, f"{RECIPES}={name}"), console, style="cyan")
    _where(path, console)


def _sweep(key: str, text: str) -> str:
    return f"{key.removeprefix('hydra.sweeper.params.')}={text}"


def show_settings(key: str, config_dir: str | None, console: Console) -> bool:
    """Print a setting, those inside of a node, or all of that last name; False: there are none."""
    everything = _everything(key, config_dir)
    found: dict[str, dict[str, Setting]] = {}
    for one in everything:
        for name, setting in one.settings.items():
            if f"{name}.".startswith(f"{key}.") or f".{name}".endswith(f".{key}"):
                found.setdefault(name, {})[setting.origin] = setting
    found = {name: ways for name, ways in found.items() if not name.endswith("_target_")}
    if not found:
        return False
    nodes = [one.nodes.get(key, "") for one in everything]
    heading(key, next(filter(None, nodes), "") if key not in found else "", console)
    rows = []
    for name, ways in list(found.items())[:MAX_FOUND]:
        for setting in ways.values():
            several = len(ways) > 1 or name != key
            origin = "" if setting.origin == "config.yaml" else f" ({setting.origin})"
            rows.append((_assigned(setting), f"{setting.meaning}{origin if several else ''}"))
    section("Settings, with their defaults", rows, console)
    if len(found) > MAX_FOUND:
        console.print(f"\n  and {len(found) - MAX_FOUND} more: name a longer part of the key")
    elif len(found) == 1:
        (setting, *_) = next(iter(found.values())).values()
        if setting.origin != "config.yaml":
            console.print()
            paragraph(f"of {setting.origin}: {shown('help', setting.origin)}", console)
    return True


def _rows(settings: Sequence[Setting]) -> list[tuple[str, str]]:
    return [(_assigned(s), s.meaning) for s in settings if not s.key.endswith("_target_")]


def _assigned(setting: Setting) -> str:
    return f"{setting.key}={setting.text}"


def _general() -> set[str]:
    return {entry.key for entry in described(conf_dir() / "config.yaml").entries}


def _outlines(config_dir: str | None) -> list[Outline]:
    """Return the default configuration of each task, in the order of the tasks."""
    return [outline(task, {}, config_dir) for task in tasks()]


def _everything(key: str, config_dir: str | None) -> list[Outline]:
    """Return configurations that together have ``key`` with every option that has it.

    At further places of a group (``trainer@retrain.trainer``) only if the key names the place.
    """
    found = _outlines(config_dir)
    choices = {
        place: (task, choice)
        for task, one in zip(tasks(), found, strict=True)
        for place, choice in one.choices.items()
    }
    for place, (task, choice) in choices.items():
        named = f"{key}.".startswith(f"{choice.package}.")
        if choice.group not in WHOLE and (named or "@" not in place):
            options = files_of(choice.group, config_dir)
            found += [outline(task, {place: option}, config_dir) for option in options]
    return found


def _keys(config_dir: str | None) -> list[str]:
    keys = {key for one in _outlines(config_dir) for key in (*one.settings, *one.nodes)}
    return sorted(key for key in keys if key and not key.endswith("_target_"))


def _where(path: Path, console: Console) -> None:
    console.print()
    console.print(f"from {path}", style="dim", markup=False, highlight=False, soft_wrap=True)
