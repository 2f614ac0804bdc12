"""Compose a configuration from overrides, and read and write overrides in Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nasrun.config.efforts import efforts_of
from nasrun.config.groups import conf_dir, groups
from nasrun.config.guard import guard_files
from nasrun.config.yaml_files import read
from nasrun.errors import UserError, nearest, shortened

VERSION_BASE = "1.3"
"""Version of Hydra whose defaults are used."""

MAX_NAME_CHARACTERS = 200
"""Length of the name of a group or an option, which is the name of a file."""

MAX_RUN_NAME_CHARACTERS = 60
"""Length of a run's name, which stands in tables."""

MAX_NOTES_CHARACTERS = 500
"""Length of the notes about a run."""

_NAME = re.compile(rf"\w[\w.+-]{{0,{MAX_RUN_NAME_CHARACTERS - 1}}}")


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as dicts, lists and values; raises UserError."""
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(one_line(error)) from error
    return cast(dict[str, Any], container)


def compose(overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """Return the resolved configuration that ``overrides`` stand for, without running anything.

    config_dir: a further folder of configurations (Hydra's ``-cd``).
    Raises what Hydra raises, see ``explain``.
    """
    further = []
    if config_dir:
        further = [f"hydra.searchpath=[{quote(f'file://{Path(config_dir).absolute()}')}]"]
    guard_files()
    GlobalHydra.instance().clear()
    with (
        efforts_of(overrides, config_dir),
        hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE),
    ):
        return plain(hydra.compose("config", [*map(without_null, overrides), *further]))


def parse(override: str) -> Override:
    """Parse ``KEY=VALUE`` by Hydra's grammar; raises UserError if ``override`` is none."""
    shown = repr(shortened(override))
    if override.startswith("="):
        raise UserError(f"{shown} lacks a name: write KEY=VALUE")
    try:
        parsed = OverridesParser.create().parse_override(override)
    except (HydraException, ValueError, RecursionError) as error:
        if "=" not in override:
            raise UserError(f"{shown} is no setting: write KEY=VALUE") from error
        raise UserError(
            f"cannot read {shown}: {shortened(one_line(error))}; put a value with special "
            "characters in quotes of its own, e.g. \"KEY='a=b'\""
        ) from error
    if len(override) > MAX_NAME_CHARACTERS:
        names = re.split("[/@.]", parsed.get_key_element())
        if parsed.key_or_group in groups() and not parsed.is_sweep_override():
            value = parsed.value()
            names += map(str, value if isinstance(value, list) else [value])
        if any(len(name) > MAX_NAME_CHARACTERS for name in names):
            raise UserError(f"{shown}: there is nothing of so long a name")
    return parsed


def without_null(override: str) -> str:
    """Return ``GROUP=none`` for ``GROUP=null`` and ``~GROUP`` of a group with an option none.

    Hydra takes no null for a group.
    """
    group, equals, value = override.removeprefix("~").partition("=")
    removes = value == "null" if equals else override.startswith("~")
    return f"{group}=none" if removes and "none" in groups().get(group, ()) else override


def quote(value: str) -> str:
    """Return ``value`` in quotes, so that Hydra's grammar reads it back, whatever it holds."""
    # A backslash escapes only where quotes follow, so only there it is doubled.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(value) - len(value.rstrip("\\"))
    return "'" + escaped + "\\" * trailing + "'"


def flatten(node: Any, where: str = "") -> dict[str, Any]:
    """Return every full key of a plain configuration with its value: ``{"shortlist.count": 5}``."""
    if not isinstance(node, Mapping) or not node:
        return {where: node}
    return {
        key: value
        for name, inner in node.items()
        for key, value in flatten(inner, f"{where}.{name}" if where else str(name)).items()
    }


def check_top_level(config: Mapping[str, Any], task: str) -> None:
    """Refuse a top-level key that nothing reads, e.g. a slip in an experiment file.

    Deeper keys are checked when the objects are built. Raises UserError.
    """
    known = top_level_keys(task)
    for key in config:
        if key not in known:
            raise UserError(f"nothing reads the setting {key!r}{nearest(key, known)}")
    check_name(config.get("name"), config.get("notes"))
    outputs = config.get("outputs", "outputs")
    if not isinstance(outputs, str | int) or outputs == "":
        raise UserError(f"outputs = {outputs!r}: must be a directory")


def check_name(name: Any, notes: Any) -> None:
    """Raise UserError unless a run may have this name and these notes; None: it has none."""
    known = isinstance(name, str | int) and not isinstance(name, bool)
    if name is not None and not (known and _NAME.fullmatch(str(name)) and name != "latest"):
        raise UserError(
            f"name = {shortened(repr(name))}: a run's name has up to {MAX_RUN_NAME_CHARACTERS} "
            "letters, digits and .+_- and begins with a letter or digit; latest is taken"
        )
    plain_text = isinstance(notes, str | int | float) and str(notes).isprintable()
    if notes is not None and not (plain_text and len(str(notes)) <= MAX_NOTES_CHARACTERS):
        raise UserError(
            f"notes = {shortened(repr(notes))}: must be one line of at most "
            f"{MAX_NOTES_CHARACTERS} characters, in quotes: 'notes=\"first try\"'"
        )


@cache
def top_level_keys(task: str) -> frozenset[str]:
    """Return the keys that config.yaml, its groups and the task's own file bring."""
    keys: set[str] = set()
    for name in ("config.yaml", f"task/{task}.yaml"):
        content = read(conf_dir() / name)
        for entry in content.get("defaults", []):
            if isinstance(entry, dict):
                for group in entry:
                    keys.add(str(group).removeprefix("override ").partition("@")[0])
        keys |= content.keys()
    return frozenset(keys - {"defaults", "hydra", "experiment", "effort"})


def one_line(error: BaseException) -> str:
    """Return the first paragraph of an error, or of its cause if it has no text of its own."""
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
