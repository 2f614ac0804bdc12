"""List the tasks, groups and options in the folder of configurations, without Hydra."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from nasrun.building.allowed import find_class
from nasrun.config.yaml_files import read
from nasrun.errors import UserError


@cache
def conf_dir() -> Path:
    """Return the folder ``conf``: in the package (a wheel), or beside it (a checkout)."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"the configuration folder {package / 'conf'} is missing: install nasrun anew")


def groups(config_dir: str | None = None) -> dict[str, list[str]]:
    """Return the options of every group, sorted.

    A file whose name begins with an underscore is no option, but a base of options.

    config_dir: a further folder of options (Hydra's ``-cd``).
    """
    found: dict[str, set[str]] = {}
    for root in (conf_dir(), *([Path(config_dir)] if config_dir else [])):
        for path in root.rglob("*.yaml"):
            group = path.parent.relative_to(root).as_posix()
            if group != "." and not path.stem.startswith("_"):
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


def files_of(group: str, config_dir: str | None = None) -> dict[str, Path]:
    """Return the file of each option of ``group``, sorted by option."""
    roots = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    found = {path.stem: path for root in roots for path in (root / group).glob("*.yaml")}
    return {option: path for option, path in sorted(found.items()) if not option.startswith("_")}


def options_that(group: str, has: Callable[[type], bool], config_dir: str | None) -> list[str]:
    """Return the options of ``group``, also of the user, whose class ``has`` a capability.

    group: a place may follow the name, e.g. ``evaluator@rank.also``.
    """
    found = []
    for option, path in files_of(group.partition("@")[0], config_dir).items():
        with suppress(UserError):  # skips an option that is broken or not trusted
            if has(find_class(read(path).get("_target_"), group)):
                found.append(option)
    return found


@cache
def settings_of(group: str) -> frozenset[str]:
    """Return the first-level settings of all of our options of the group."""
    files = sorted((conf_dir() / group).glob("*.yaml"))
    return frozenset(str(key) for path in files for key in read(path))


def tasks() -> dict[str, str]:
    """Return the tasks, the default one first, each with its line of help.

    The line of help is the first comment of conf/task/NAME.yaml.
    """
    default = defaults().get("task")
    files = sorted(
        (conf_dir() / "task").glob("*.yaml"), key=lambda path: (path.stem != default, path.stem)
    )
    return {path.stem: first_comment(path) for path in files}


def task_of_recipe(recipe: str, config_dir: str | None = None) -> str:
    """Return the task that a recipe is for, by its defaults list: ``- override /task: rank``.

    If the list names no task, a recipe on which it builds decides, else it is the default task. A
    recipe may need groups that only its own task has.
    """
    return option_of_recipe(recipe, "task", config_dir) or defaults()["task"]


def option_of_recipe(recipe: str, group: str, config_dir: str | None = None) -> str | None:
    """Return the option that a recipe, or one on which it builds, gives to a group; None: none."""
    files = files_of("experiment", config_dir)
    names = [recipe]
    for name in names:  # the list grows by the recipes on which each recipe builds
        for entry in read(files[name]).get("defaults", []) if name in files else []:
            if isinstance(entry, dict) and f"override /{group}" in entry:
                return str(entry[f"override /{group}"])
            if isinstance(entry, str) and entry not in names:
                names.append(entry)
    return None


def first_comment(path: Path) -> str:
    """Return the first comment of a YAML file that is no header for Hydra (``# @package``)."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if line.startswith("#") and text and not text.startswith("@"):
            return text
    return ""


def defaults() -> dict[str, str]:
    """Return the option that config.yaml chooses for each group."""
    return {
        str(group): str(option)
        for entry in read(conf_dir() / "config.yaml")["defaults"]
        if isinstance(entry, dict)
        for group, option in entry.items()
        if option is not None
    }
