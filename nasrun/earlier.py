"""What ``from=RUN_DIR`` takes from an earlier run, which may be a stranger's: plain settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasrun.config import compose, flatten, parse
from nasrun.errors import UserError
from nasrun.options import groups
from nasrun.run.files import read_object

FORGOTTEN = ("task", "from", "architecture", "outputs")
"""Overrides of the earlier run that say what it did and where, not how."""


@dataclass(frozen=True)
class EarlierRun:
    """run.json of a run: its task, the overrides it was given, and what these meant then."""

    directory: Path
    task: str
    overrides: tuple[str, ...]
    config: dict[str, Any]

    @staticmethod
    def read(directory: Path, config_dir: str | None) -> EarlierRun:
        """Raises UserError where ``directory`` is no run, or asks for more than settings."""
        if not directory.is_dir():
            raise UserError(f"from={directory}: there is no such directory")
        record = read_object(directory / "run.json", "is this the directory of a run?")
        read_object(directory / "architecture.json", "has the run finished its search?")
        task, overrides, config = (record.get(key) for key in ("task", "overrides", "config"))
        if (
            not isinstance(task, str)
            or not isinstance(overrides, list)
            or not isinstance(config, dict)
        ):
            raise UserError(f"{directory / 'run.json'} lacks task, overrides or config")
        options = groups(config_dir)
        kept = [
            override
            for override in overrides
            if check_foreign(override, options, directory / "run.json") not in FORGOTTEN
        ]
        return EarlierRun(directory, task, tuple(kept), config)

    def merged(self, overrides: Iterable[str], config_dir: str | None) -> list[str]:
        """The run's overrides, without those that the user's replace, then the user's."""
        mine = list(overrides)
        own_keys = {parse(override).key_or_group for override in mine}
        options = groups(config_dir)
        replaced = {key.replace("/", ".") for key in own_keys if key in options}
        kept = [
            override
            for override in self.overrides
            if (key := parse(override).get_key_element()) not in own_keys
            # What the run said of an option that the user now chooses anew means nothing.
            and not any(key.startswith(f"{group}.") for group in replaced)
        ]
        return [*kept, *mine]

    def changed_defaults(
        self, overrides: Iterable[str], config_dir: str | None
    ) -> dict[str, tuple[Any, Any]]:
        """Settings whose default was another one when the run was made: key -> (then, now).

        Those that ``overrides`` set, or that the earlier run did not know, are not among them.
        """
        if self.task not in groups(config_dir)["task"]:
            return {}
        now = flatten(compose([*self.overrides, f"task={self.task}"], config_dir))
        then = flatten(self.config)
        given = [parse(override).key_or_group.replace("/", ".") for override in overrides]
        return {
            key: (then[key], value)
            for key, value in now.items()
            if key in then
            and then[key] != value
            and key.partition(".")[0] not in FORGOTTEN
            and not any(key == other or key.startswith(f"{other}.") for other in given)
        }


def check_foreign(override: object, options: dict[str, list[str]], where: Path) -> str:
    """The key of an override from a file; raises UserError unless it is a plain setting.

    No additions or deletions, no sweeps, no interpolations, nothing of Hydra's own configuration,
    and of a group only the options that exist here (an option is a path of a file).
    """
    refused = f"{where}: refused the override {override!r}"
    if not isinstance(override, str) or override.startswith("-") or "${" in override:
        raise UserError(f"{refused}: only plain KEY=VALUE is taken from a run")
    try:
        parsed = parse(override)
    except UserError as error:
        raise UserError(f"{refused}: {error}") from error
    if parsed.is_sweep_override() or parsed.get_key_element()[0] in "+~":
        raise UserError(f"{refused}: only plain KEY=VALUE is taken from a run")
    key, package = parsed.key_or_group, parsed.package or ""
    heads = {part for name in (key, package) for part in name.replace("/", ".").split(".")[:1]}
    if "hydra" in heads or "hydra" in package:
        raise UserError(f"{refused}: it touches Hydra's own configuration")
    value = parsed.value()
    if key in options and value is not None and value not in options[key]:
        raise UserError(f"{refused}: {key} has no such option; options: {', '.join(options[key])}")
    if package and key not in options:
        raise UserError(f"{refused}: there is no group {key}")
    return key
