"""Check what files say under ``hydra:``; most of it belongs to the command line alone.

A recipe, or a folder given by ``-cd``, may come from a stranger. Hydra itself would take from it
environment variables, callbacks, logging and further folders, each of which can run code. So every
file that is not ours is checked where Hydra loads it, after its package has been applied.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from nasrun.config.fast_hydra import make_hydra_fast
from nasrun.config.groups import conf_dir
from nasrun.errors import UserError, shortened

SETTINGS = (
    *("run.dir", "sweep.dir", "sweep.subdir", "mode"),
    *("sweeper.max_batch_size", "sweeper.n_trials", "sweeper.n_jobs", "sweeper.direction"),
)
"""Settings under ``hydra:`` that a file may give, besides ``sweeper.params.KEY``."""

PARAMS = "sweeper.params."

CHOICES = ("hydra/launcher", "hydra/sweeper")
"""Groups of Hydra from which a file may choose an option, by its name."""

ALLOWED = (
    "a file may set only run.dir, sweep.dir, sweep.subdir, mode and sweeper.params there, and "
    "choose a launcher and a sweeper by name; say the rest on the command line"
)

LOADED: list[tuple[ResultDefault, ConfigResult]] = []
"""Files of the last composition, in the order in which they were merged."""

_NAME = re.compile(r"\w+", re.ASCII)


def guard_files() -> None:
    """Have Hydra load all files through the check; to be called before it composes."""
    make_hydra_fast()
    hydra._internal.hydra.ConfigLoaderImpl = GuardedLoader  # type: ignore[attr-defined]


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader of configurations, which refuses files that overstep their rights."""

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: Any
    ) -> None:
        # Hydra adds these folders before it composes anything.
        loaded = repo.load_config(config_path=config_name) if config_name else None
        if loaded is not None and not _is_ours(str(config_name), loaded):
            _check(loaded, str(config_name))
        LOADED.clear()
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def _load_single_config(self, default: ResultDefault, repo: Any) -> ConfigResult:
        result = super()._load_single_config(default, repo)
        path = str(default.config_path)
        above = default.parent
        chosen_by = repo.load_config(config_path=above) if above else None
        if not _is_ours(path, result):
            _check(result, path)
        elif chosen_by is not None and not _is_ours(str(above), chosen_by):
            _check(result, str(above))
        LOADED.append((default, result))
        return result


def _is_ours(config_path: str, result: ConfigResult) -> bool:
    """Tell whether a configuration is part of nasrun, of Hydra or of an installed package."""
    if config_path.startswith("/") or ".." in config_path.split("/"):
        return False  # leads out of every folder of configurations
    scheme, _, root = result.path.partition("://")
    if scheme != "file":
        return True
    return (Path(root) / config_path).resolve().is_relative_to(conf_dir())


def _check(result: ConfigResult, where: str) -> None:
    """Raise UserError if a file says anything under ``hydra:`` that it may not.

    result: its content, with its package applied. where: its path, for messages.
    """
    for entry in result.defaults_list or []:
        if not (isinstance(entry, GroupDefault) and entry.override):
            continue
        group = str(entry.group).lstrip("/")
        named = isinstance(entry.value, str) and _NAME.fullmatch(entry.value)
        if group.partition("/")[0] == "hydra" and not (group in CHOICES and named):
            raise UserError(f"{where}.yaml: override {group}: {entry.value}: {ALLOWED}")
    content = cast(Any, OmegaConf.to_container(result.config, resolve=False))
    if not isinstance(content, dict) or "hydra" not in content:
        return
    for key, value in _flat(content["hydra"]):
        name = key.removeprefix(PARAMS)
        sweeps = key.startswith(PARAMS) and isinstance(value, str | int | float | bool)
        if sweeps and _is_setting_of_runs(name):
            continue
        plain = isinstance(value, str | int) or (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        )
        if not (key in SETTINGS and plain):
            shown = shortened(f"hydra.{key}" if key else "hydra")
            raise UserError(f"{where}.yaml: {shown}: {ALLOWED}")


def _flat(node: Any, where: str = "") -> list[tuple[str, Any]]:
    """List full keys and values; an empty mapping has none."""
    if not isinstance(node, dict):
        return [(where, node)]
    return [
        pair
        for name, inner in node.items()
        for pair in _flat(inner, f"{where}.{name}" if where else str(name))
    ]


def _is_setting_of_runs(key: str) -> bool:
    """Tell whether a key that a sweep varies is no setting of Hydra's own."""
    try:
        override = OverridesParser.create().parse_override(f"{key}=1")
    except (HydraException, ValueError, RecursionError):
        return False
    names = (str(override.key_or_group), override.package or "")
    return not any("hydra" in re.split("[./]", name) for name in names)
