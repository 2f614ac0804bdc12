"""Compose settings with their comments as Hydra would, but at once, for help and completion.

It knows what our files and those of plugins use of Hydra's language: defaults lists, packages,
overrides of recipes. ``tests/test_help.py`` holds it to Hydra's own result for every recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nasrun.config.comments import Chosen, Described, described, first_sentence
from nasrun.config.groups import conf_dir

OURSELVES = "_self_"


@dataclass(frozen=True)
class Setting:
    """A setting. text: its value, as YAML; comment: its meaning, by the file of its option.

    origin: what set the value, e.g. ``trainer=supernet`` or ``experiment=spos_cifar10``.
    said: the comment of the recipe that set the value; "": no recipe did, or it says nothing.
    """

    key: str
    text: str
    comment: str
    origin: str
    said: str = ""

    @property
    def meaning(self) -> str:
        """The comment of the option, else that of the recipe."""
        return self.comment or self.said


@dataclass(frozen=True)
class Choice:
    """A group at its place on the command line, e.g. ``trainer@shortlist.trainer``.

    option: the chosen one; None: none is. comment: of the defaults list that chooses it.
    """

    place: str
    option: str | None
    comment: str

    @property
    def group(self) -> str:
        """The group without its place."""
        return self.place.partition("@")[0]

    @property
    def package(self) -> str:
        """The node of the configuration that its options fill."""
        group, _, place = self.place.partition("@")
        return place or group.replace("/", ".")


@dataclass
class Outline:
    """A composed configuration: groups by place, leaves and comments of mappings by key."""

    choices: dict[str, Choice] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)

    def put(self, setting: Setting) -> None:
        """Merge a setting in; a recipe keeps the comment of what it sets."""
        key = setting.key
        inside = [other for other in self.settings if other.startswith(f"{key}.")]
        if inside and setting.text == "{}":
            return
        for other in inside:
            del self.settings[other]
        while "." in key:
            key = key.rpartition(".")[0]
            self.settings.pop(key, None)
        before = self.settings.get(setting.key)
        if before is not None:
            comment = setting.comment or before.comment
            setting = replace(setting, comment=comment)
        self.settings[setting.key] = setting


def outline(
    task: str, chosen: Mapping[str, str] | None = None, config_dir: str | None = None
) -> Outline:
    """Compose a task's configuration with the options that are ``chosen``, by place.

    config_dir: a further folder of options (Hydra's ``-cd``). Unknown options are passed over.
    """
    composer = _Composer({**(chosen or {}), "task": task}, config_dir)
    root = conf_dir() / "config.yaml"
    composer.collect(described(root), "")
    composer.load(described(root), "", "", "config.yaml")
    return composer.outline


def file_of(group: str, option: str, config_dir: str | None = None) -> Path | None:
    """Return the file of an option; ours wins over one of the same name in ``config_dir``."""
    for folder in (conf_dir(), *([Path(config_dir)] if config_dir else [])):
        if "\0" not in option and (path := folder / group / f"{option}.yaml").is_file():
            return path
    return None


class _Composer:
    """Loads files in the order of the defaults lists."""

    def __init__(self, chosen: Mapping[str, str], config_dir: str | None) -> None:
        self.chosen, self.config_dir = dict(chosen), config_dir
        self.outline = Outline()
        self.depth = 0

    def find(self, group: str, option: str) -> Described | None:
        path = file_of(group, option, self.config_dir)
        return described(path) if path else None

    def collect(self, file: Described, group: str) -> None:
        """Note what tasks and recipes override; what is said first, nearer to the user, wins."""
        for entry in file.defaults or ():
            if entry.key.startswith("override /") and entry.option is not None:
                self.chosen.setdefault(entry.key.removeprefix("override /"), entry.option)
        for entry in file.defaults or ():
            for name, option in _group_and_option(entry, group, self.chosen):
                found = self.find(name, option) if name in ("task", "experiment") else None
                if found is not None and found is not file:
                    self.collect(found, name)

    def load(self, file: Described, group: str, package: str, origin: str) -> None:
        """Merge a file: what its defaults list has before ``_self_``, its own, and the rest."""
        self.depth += 1
        defaults = file.defaults or ()
        if self.depth < 20:  # a recipe that builds on itself
            for entry in defaults:
                if entry.key == OURSELVES:
                    self._own(file, package, origin)
                else:
                    self._entry(entry, group, package, origin)
        if not any(entry.key == OURSELVES for entry in defaults):
            self._own(file, package, origin)
        self.depth -= 1

    def _entry(self, entry: Chosen, group: str, package: str, origin: str) -> None:
        if entry.key.startswith(("override ", "optional ")):
            return
        if entry.key == entry.option:  # a file of the same group, e.g. ``- _base``
            below = self.find(group, entry.option)
            if below is not None:
                base = origin if entry.option.startswith("_") else f"{group}={entry.option}"
                self.load(below, group, package, base)
            return
        name, at, inner = entry.key.removeprefix("/").partition("@")
        place = f"{name}@{_joined(package, inner)}" if at else name
        option = self.chosen.get(place, entry.option)
        if option == "null":
            option = None
        self.outline.choices[place] = Choice(place, option, entry.comment)
        found = self.find(name, option) if option is not None else None
        if found is not None:
            target = _joined(package, inner or name.replace("/", "."))
            if not at and found.package is not None:
                target = "" if found.package == "_global_" else found.package
            self.outline.nodes.setdefault(target, "")
            if target:
                self.outline.nodes[target] = f"{place}={option}: {first_sentence(found.header)}"
            self.load(found, name, target, f"{place}={option}")

    def _own(self, file: Described, package: str, origin: str) -> None:
        recipe = origin.startswith(("experiment=", "effort="))
        for entry in file.entries:
            key = _joined(package, entry.key)
            if key.partition(".")[0] == "hydra":
                continue
            if not entry.text:
                self.outline.nodes[key] = self.outline.nodes.get(key) or entry.comment
                continue
            comment, said = ("", entry.comment) if recipe else (entry.comment, "")
            self.outline.put(Setting(key, entry.text, comment, origin, said))


def _group_and_option(
    entry: Chosen, group: str, chosen: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the group and option that an entry loads, as far as words say so."""
    if entry.key == entry.option:
        if entry.option != OURSELVES:
            yield group, entry.option
    elif not entry.key.startswith(("override ", "optional ")):
        name = entry.key.removeprefix("/")
        option = chosen.get(name, entry.option)
        if option is not None:
            yield name, option


def _joined(package: str, inner: str) -> str:
    if inner in ("_global_", "_here_"):
        return "" if inner == "_global_" else package
    return ".".join(filter(None, (package, inner)))
