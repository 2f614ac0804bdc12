"""The configuration: where its files lie, how it is composed, and what Hydra says of mistakes.

Hydra's errors become ``UserError``s of one line that name the nearest thing that exists.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nasrun.build import build, build_parts, nearest, shortened
from nasrun.errors import UserError
from nasrun.options import YAMLError, conf_dir, defaults, groups, read

__all__ = ["build", "build_parts", "compose", "explain", "flatten", "parse", "plain"]

VERSION_BASE = "1.3"
"""The Hydra version whose defaults hold."""

OVERSIGHTS = (AssertionError, AttributeError, LookupError, TypeError)
"""What Hydra raises where it has not thought of a mistake; the words are Python's."""

CONFIGURATION_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    YAMLError,
    ValueError,
    RecursionError,
    *OVERSIGHTS,
)
"""What Hydra raises over a configuration or an override that is wrong."""

LONGEST_NAME = 200
"""Characters; a group or an option is a name of a file."""


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration resolved, as dicts, lists and values; raises UserError."""
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(_one_line(error)) from error
    return cast(dict[str, Any], container)


def compose(overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """What ``overrides`` mean, resolved, without running anything.

    config_dir: a further folder of configurations (Hydra's ``-cd``).
    """
    further = []
    if config_dir:
        further = [f"hydra.searchpath=[{quote(f'file://{Path(config_dir).absolute()}')}]"]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        return plain(hydra.compose("config", [*overrides, *further]))


def parse(override: str) -> Override:
    """Raises UserError where ``override`` is not ``KEY=VALUE`` in Hydra's grammar."""
    shown = repr(shortened(override))
    if override.startswith("="):
        raise UserError(f"{shown} lacks a name: write KEY=VALUE")
    try:
        parsed = OverridesParser.create().parse_override(override)
    except (HydraException, ValueError, RecursionError) as error:
        if "=" not in override:
            raise UserError(f"{shown} is no setting: write KEY=VALUE") from error
        raise UserError(
            f"cannot read {shown}: {shortened(_one_line(error))}; put a value with special "
            "characters in quotes of its own, e.g. \"KEY='a=b'\""
        ) from error
    if len(override) > LONGEST_NAME:
        names = re.split("[/@.]", parsed.get_key_element())
        if parsed.key_or_group in groups() and not parsed.is_sweep_override():
            value = parsed.value()
            names += map(str, value if isinstance(value, list) else [value])
        if any(len(name) > LONGEST_NAME for name in names):
            raise UserError(f"{shown}: there is nothing of so long a name")
    return parsed


def quote(value: str) -> str:
    """``value`` as Hydra's grammar reads it back, whatever characters it has."""
    # A backslash escapes only where quotes follow, so only there it is doubled.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(value) - len(value.rstrip("\\"))
    return "'" + escaped + "\\" * trailing + "'"


def flatten(node: Any, where: str = "") -> dict[str, Any]:
    """Every key of a plain configuration in full, with its value: ``{"shortlist.count": 5}``."""
    if not isinstance(node, Mapping) or not node:
        return {where: node}
    return {
        key: value
        for name, inner in node.items()
        for key, value in flatten(inner, f"{where}.{name}" if where else str(name)).items()
    }


def check_top_level(config: Mapping[str, Any], task: str) -> None:
    """Raises UserError over a key that belongs to nothing, e.g. a slip in an experiment file.

    What lies deeper is checked when the parts are built.
    """
    known = top_level_keys(task)
    for key in config:
        if key not in known:
            raise UserError(f"nothing reads the setting {key!r}{nearest(key, known)}")
    outputs = config.get("outputs", "outputs")
    if not isinstance(outputs, str | int) or outputs == "":
        raise UserError(f"outputs = {outputs!r}: must be a directory")


@cache
def top_level_keys(task: str) -> frozenset[str]:
    """The keys that config.yaml, its groups and the task's own file bring."""
    keys: set[str] = set()
    for name in ("config.yaml", f"task/{task}.yaml"):
        content = read(conf_dir() / name)
        for entry in content.get("defaults", []):
            if isinstance(entry, dict):
                for group in entry:
                    keys.add(str(group).removeprefix("override ").partition("@")[0])
        keys |= content.keys()
    return frozenset(keys - {"defaults", "hydra", "experiment", "effort"})


def explain(error: Exception, overrides: Sequence[str], config_dir: str | None) -> UserError:
    """What the user did wrong, in one line; ``overrides`` are all of the command line's."""
    if isinstance(error, OverrideParseException):
        try:
            parse(error.override)
        except UserError as found:
            return found
    return UserError(shortened(_explained(error, overrides, config_dir), 500))


def _explained(error: Exception, overrides: Sequence[str], config_dir: str | None) -> str:
    if isinstance(error, MissingConfigException):
        return _missing(error, config_dir)
    text = _one_line(error)
    if isinstance(error, OVERSIGHTS) and not isinstance(
        error, HydraException | OmegaConfBaseException
    ):
        said = shortened(" ".join(overrides)) or "the configuration"
        return f"Hydra cannot take {said} ({type(error).__name__}: {text})"
    if text.startswith("Config group override must be"):
        return _no_option(text, overrides, config_dir)
    if unknown := re.match(r"Could not override '([^']*)'", str(error)):
        return _unknown_key(unknown[1], overrides, config_dir)
    if "requires --multirun" in text or text.startswith("Ambiguous value for argument"):
        override = (re.search(r"'([^']+)'", text) or [text, text])[1]
        key, _, values = override.partition("=")
        return f"{override}: several values need a sweep, add -m; for a list write {key}=[{values}]"
    return text


def _missing(error: MissingConfigException, config_dir: str | None) -> str:
    """A group has no such option (or a -cd folder, a configuration file, is not there)."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    known = groups(config_dir).get(group, [])
    if not group:
        return _one_line(error)
    found_in = re.match(r"In '([^']+)': ", str(error))
    place = "" if not found_in or found_in[1] == "config" else f" (in {found_in[1]})"
    return (
        f"{group}={option}: {group} has no such option{place}{nearest(option, known)}; "
        f"options: {', '.join(known) or 'none'}"
    )


def _no_option(text: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """A group was given a number, or null."""
    known = groups(config_dir)
    for override in filter(None, map(_lenient, overrides)):
        options = known.get(override.key_or_group)
        if options and not override.is_sweep_override() and not isinstance(override.value(), str):
            return f"{override.input_line}: must be an option; options: {', '.join(options)}"
    return text


def _unknown_key(key: str, overrides: Sequence[str], config_dir: str | None) -> str:
    parsed = [o for o in map(_lenient, overrides) if o]
    others = [o for o in parsed if o.get_key_element().lstrip("+~") != key]
    kept = [o.input_line for o in others if o.input_line and not o.is_sweep_override()]
    try:
        config = compose(kept, config_dir)
    except Exception:  # there is more than one mistake: the nearest of the defaults will do
        config = compose([], config_dir)
    leaves = [leaf for leaf in flatten(config) if not leaf.endswith("_target_")]
    inner = {leaf.rpartition(".")[0] for leaf in leaves if "." in leaf}
    chosen = [name for name in defaults() if not name.startswith(("optional", "override"))]
    known = sorted({*leaves, *inner, *chosen, *groups(config_dir)})
    parent = key.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == parent]
    short = [name for name in known if name.rpartition(".")[2] == key]
    unknown = f"there is no setting {key!r}"
    if short:
        return f"{unknown} (did you mean {short[0]!r}?)"
    if parent in inner:
        names = [name.rpartition(".")[2] for name in beside]
        close = difflib.get_close_matches(key.rpartition(".")[2], names, n=1)
        hint = f" (did you mean '{parent}.{close[0]}'?)" if close else ""
        return f"{unknown}{hint}" if hint else f"{unknown}; {parent} has {', '.join(names)}"
    return f"{unknown}{nearest(key, known) or '; `--cfg job` shows all that there are'}"


def _lenient(override: str) -> Override | None:
    try:
        return parse(override)
    except UserError:
        return None


def _one_line(error: BaseException) -> str:
    """The first paragraph of an error, or of its cause where it has no words of its own."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    text = str(error).strip()
    if not text and error.__cause__ is not None:
        text = str(error.__cause__).strip()
    if error.__cause__ is not None and text.startswith("Error merging"):
        text = f"{text}: {error.__cause__}"
    key = getattr(error, "full_key", None)
    if key and str(key) not in text.partition("\n")[0]:
        text = f"{key}: {text}"
    text = text.partition("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key", "object_type", "See http"))]
    return " ".join(kept[:3]) or type(error).__name__
