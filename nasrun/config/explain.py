"""Explain Hydra's errors: one line that names the nearest thing that exists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from nasrun.building.field_words import in_our_words
from nasrun.config.build import build_setup
from nasrun.config.compose import compose, flatten, one_line, parse
from nasrun.config.groups import defaults, groups, task_of_recipe
from nasrun.config.prune import leave_out
from nasrun.config.yaml_files import YAMLError
from nasrun.errors import Mistakes, SeveralMistakesError, UserError, nearest, shortened

MAX_TRIED = 50
"""Words of a command line that are tried one by one when it cannot be taken."""

PLUGINS = {
    "hydra/launcher": {
        "joblib": ("hydra-joblib-launcher", "sweeps"),
        "submitit_local": ("hydra-submitit-launcher", "sweeps"),
        "submitit_slurm": ("hydra-submitit-launcher", "sweeps"),
        "ray": ("hydra-ray-launcher", "ray"),
        "ray_aws": ("hydra-ray-launcher", "ray"),
    },
    "hydra/sweeper": {"optuna": ("hydra-optuna-sweeper", "sweeps")},
}
"""Options of Hydra's groups that packages add: the package, and our extra that brings it."""

OVERSIGHT_ERRORS = (AssertionError, AttributeError, LookupError, TypeError)
"""Python errors that Hydra raises for mistakes which it does not check for."""

CONFIGURATION_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    YAMLError,
    ValueError,
    RecursionError,
    *OVERSIGHT_ERRORS,
)
"""Errors that Hydra raises over a wrong configuration or a wrong override."""


def explain(error: Exception, overrides: Sequence[str], config_dir: str | None) -> UserError:
    """Return what the user did wrong, in one line.

    overrides: all of the command line, with ``task=TASK`` if a task was given.
    config_dir: the user's folder of options, if any.
    """
    if isinstance(error, OverrideParseException):
        try:
            parse(error.override)
        except UserError as found:
            return found
    return UserError(shortened(_explained(error, overrides, config_dir), 500))


def explain_all(
    error: Exception, overrides: Sequence[str], config_dir: str | None, *, several: bool
) -> UserError:
    """Return all that the user did wrong, a line for each mistake.

    error: the first mistake, at which Hydra has stopped. several: whether words may sweep.
    """
    first = explain(error, overrides, config_dir)
    found = SeveralMistakesError(complaints(overrides, config_dir, several=several)).errors
    return SeveralMistakesError(found) if len(found) > 1 else first


def complaints(
    overrides: Sequence[str], config_dir: str | None, *, several: bool
) -> list[UserError]:
    """Return the mistakes in a command line, as far as each can be found without the others.

    Words are tried one after another, options of groups first, since settings depend on them; one
    that cannot be taken is left out for the next. What can be taken is built.

    overrides: all of the command line, with ``task=TASK``. several: whether words may sweep.
    """
    known, found, taken = groups(config_dir), list[UserError](), list[str]()
    unsure: list[str] = []  # starts of settings that depend on a choice which cannot be taken

    def order(word: str) -> tuple[bool, bool, bool]:
        choice = _place_of_choice(word, known) is not None
        return not word.startswith("task="), not word.startswith("experiment="), not choice

    config: dict[str, Any] | None = None
    for word in sorted(overrides[:MAX_TRIED], key=order):
        parsed, place = _lenient(word), _place_of_choice(word, known)
        swept = several and (parsed is None or parsed.is_sweep_override())
        if swept or word.startswith(("hydra.", *unsure)):
            continue
        try:
            config = compose([*taken, word], config_dir)
            taken.append(word)
            continue
        except UserError as mistake:
            found.append(mistake)
        except CONFIGURATION_ERRORS as mistake:
            found.append(explain(mistake, [*taken, word], config_dir))
        if place in ("task", "experiment"):
            return found
        if place is not None:
            unsure.append(f"{place}.")
    if config is not None and any(not word.startswith("task=") for word in taken):
        with Mistakes() as mistakes:
            leave_out(config, taken)
            build_setup(config)
        found += mistakes.errors
    return found


def _place_of_choice(word: str, known: Container[str]) -> str | None:
    """Return where the option goes that a word chooses for a group; None: it chooses none."""
    key = word.partition("=")[0].lstrip("+~")
    group, _, place = key.partition("@")
    return (place or group) if "@" in key or group in known else None


def _explained(error: Exception, overrides: Sequence[str], config_dir: str | None) -> str:
    if isinstance(error, MissingConfigException):
        return _missing(error, config_dir)
    text = one_line(error)
    if isinstance(error, OVERSIGHT_ERRORS) and not isinstance(
        error, HydraException | OmegaConfBaseException
    ):
        said = shortened(" ".join(overrides)) or "the configuration"
        return f"Hydra cannot take {said} ({type(error).__name__}: {text})"
    if text.startswith("Config group override must be"):
        return _no_option(text, overrides, config_dir)
    if text.startswith("In 'experiment/") and "Could not override" in text:
        return _other_task(overrides, config_dir) or text
    if unknown := re.match(r"Could not override '([^']*)'", str(error)):
        return _unknown_key(unknown[1], overrides, config_dir)
    if "requires --multirun" in text or text.startswith("Ambiguous value for argument"):
        override = (re.search(r"'([^']+)'", text) or [text, text])[1]
        key, _, values = override.partition("=")
        return f"{override}: several values need a sweep, add -m; for a list write {key}=[{values}]"
    return text


def _missing(error: MissingConfigException, config_dir: str | None) -> str:
    """Explain an option that a group lacks, or a folder or file that is not there."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    known = groups(config_dir).get(group, [])
    if not group:
        return one_line(error)
    if group in PLUGINS:
        return _not_installed(group, option, known)
    found_in = re.match(r"In '([^']+)': ", str(error))
    place = "" if not found_in or found_in[1] == "config" else f" (in {found_in[1]})"
    return (
        f"{group}={option}: {group} has no such option{place}{nearest(option, known)}; "
        f"options: {', '.join(known) or 'none'}"
    )


def _not_installed(group: str, option: str, own: Sequence[str]) -> str:
    """Explain a launcher or sweeper that Hydra does not find. own: options of the user."""
    if found := PLUGINS[group].get(option):
        package, extra = found
        return (
            f"{group}={option} needs the package {package}, which is not installed: "
            f"pip install 'nasrun[{extra}]'"
        )
    known = ["basic", *PLUGINS[group], *own]
    hint = nearest(option, known)
    return f"{group}={option}: there is none of that name{hint}; known: {', '.join(known)}"


def _no_option(text: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """Explain a group that was given a number, or null."""
    known = groups(config_dir)
    for override in filter(None, map(_lenient, overrides)):
        options = known.get(override.key_or_group)
        if options and not override.is_sweep_override() and not isinstance(override.value(), str):
            return f"{override.input_line}: must be an option; options: {', '.join(options)}"
    return text


def _other_task(overrides: Sequence[str], config_dir: str | None) -> str | None:
    """Explain a recipe that was given to a task which lacks groups that the recipe needs."""
    given = dict(override.partition("=")[::2] for override in overrides)
    for recipe in given.get("experiment", "").split(","):
        task = task_of_recipe(recipe, config_dir)
        if given.get("task", task) != task:
            return f"experiment={recipe} is a recipe for `nasrun {task}`"
    return None


def _unknown_key(key: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """Explain a setting that does not exist: name a near one, or those beside it."""
    parsed = [o for o in map(_lenient, overrides) if o]
    others = [o for o in parsed if o.get_key_element().lstrip("+~") != key]
    kept = [o.input_line for o in others if o.input_line and not o.is_sweep_override()]
    try:
        config = compose(kept, config_dir)
    except Exception:  # there is more than one mistake, so names of the defaults are suggested
        config = compose([], config_dir)
    leaves = [leaf for leaf in flatten(config) if not leaf.endswith("_target_")]
    inner = {leaf.rpartition(".")[0] for leaf in leaves if "." in leaf}
    chosen = [name for name in defaults() if not name.startswith(("optional", "override"))]
    known = sorted({*leaves, *inner, *chosen, *groups(config_dir)})
    parent = key.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == parent]
    short = [name for name in known if name.rpartition(".")[2] == key]
    unknown = f"there is no setting {key!r}"
    if told := in_our_words(key):
        return f"{unknown}: {told}"
    if short:
        return f"{unknown} (did you mean {short[0]!r}?)"
    if parent in inner:
        names = [name.rpartition(".")[2] for name in beside]
        close = difflib.get_close_matches(key.rpartition(".")[2], names, n=1)
        hint = f" (did you mean '{parent}.{close[0]}'?)" if close else ""
        return f"{unknown}{hint}" if hint else f"{unknown}; {parent} has {', '.join(names)}"
    return f"{unknown}{nearest(key, known) or '; `--cfg job` shows all that there are'}"


def _lenient(override: str) -> Override | None:
    """Parse an override; None if Hydra cannot read it."""
    try:
        return parse(override)
    except UserError:
        return None
