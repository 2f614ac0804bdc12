"""Register the settings of an effort: a YAML file per group, with a section per option.

An effort shortens what a command line asks for and replaces nothing of the user's own: where the
line, or a recipe of the user, names data or a table, the sections leave those alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from nasrun.architectures.published import find_published
from nasrun.config.groups import conf_dir, defaults, files_of, groups, option_of_recipe
from nasrun.config.yaml_files import YAMLError, read

Sections = dict[str, dict[str, Any]]

_OUR_TRUTHS, _OUR_SAMPLES = ("standalone",), ("all", "by_size", "similar_size", "uniform")
"""Options that an effort may replace although they are named, since they hold nothing of a user."""


class _Kept(NamedTuple):
    """A setting that the sections of a file leave alone if the user has named ``word``.

    word: a setting, or a group that is given another option than those in ``but``.
    """

    word: str
    file: str
    setting: str
    but: tuple[str, ...] = ()


_KEPT = (
    _Kept("rank.truth.path", "task", "rank.truth"),
    _Kept("evaluator@rank.truth", "task", "rank.truth", _OUR_TRUTHS),
    _Kept("rank.architectures.path", "task", "rank.architectures"),
    _Kept("architectures@rank.architectures", "task", "rank.architectures", _OUR_SAMPLES),
    _Kept("compare.truth.path", "task", "compare.truth"),
    _Kept("evaluator@compare.truth", "task", "compare.truth", _OUR_TRUTHS),
    *(_Kept("evaluator.path", file, "evaluator") for file in ("experiment", "evaluator")),
    *(_Kept("evaluator", file, "evaluator") for file in ("experiment", "evaluator")),
    _Kept("evaluator.path", "experiment", "compare.taus"),
    _Kept("retrain.truth.path", "experiment", "retrain.truth"),
    _Kept("evaluator@retrain.truth", "experiment", "retrain.truth", _OUR_TRUTHS),
    # Names of operations hold their sizes, so a table is one of networks at their full size.
    _Kept("budget.latency.table", "search_space", "final"),
    # A table of architectures, or of operations, is one of as many decisions.
    *(
        _Kept(table, "search_space", setting)
        for table in ("budget.latency.table", "rank.truth.path", "evaluator.path")
        for setting in ("blocks", "levels")
    ),
)

_STRUCTURE = _Kept("architecture", "search_space", "stages")
"""Kept for a published architecture, which has all layers; one in a file may be a smoke's."""

_registered: list[dict[str, dict[str, Sections]]] = [{}]
"""The sections that the store holds now, by effort and file."""


def register_efforts(overrides: Sequence[str] = (), config_dir: str | None = None) -> None:
    """Store section OPTION of ``effort/smoke/GROUP.yaml`` as ``effort/smoke/GROUP/OPTION``.

    Hydra chooses among files by their names, not among the sections of a file. A file of that
    name in a folder of the user wins over a section.

    overrides: of the command line. config_dir: the user's folder of options, if any.
    """
    words = named(overrides, config_dir)
    _register({effort: _sections(effort, words, config_dir) for effort in _efforts()})


@contextmanager
def efforts_of(overrides: Sequence[str], config_dir: str | None) -> Iterator[None]:
    """Register the sections of one composition; those of the command line come back after it."""
    before = _registered[0]
    register_efforts(overrides, config_dir)
    try:
        yield
    finally:
        if before:
            _register(before)


def _register(found: dict[str, dict[str, Sections]]) -> None:
    store, known = ConfigStore.instance(), _registered[0]
    for effort, files in found.items():
        for file, sections in files.items():
            if known.get(effort, {}).get(file) == sections:
                continue  # a store costs time
            for option, settings in sections.items():
                group = f"effort/{effort}/{file}"
                store.store(group=group, name=option, node=settings, provider="nasrun")
    _registered[0] = found


def named(overrides: Sequence[str], config_dir: str | None = None) -> dict[str, str]:
    """Return the settings and groups that the user has named, with their values as typed.

    They stand on the command line, or in a recipe of the user.
    """
    typed = dict(word.lstrip("+~").partition("=")[::2] for word in overrides)
    words: dict[str, str] = {}
    own = files_of("experiment", config_dir) if config_dir else {}
    for recipe in typed.get("experiment", "").split(","):
        path = own.get(recipe)
        if path is not None and not path.is_relative_to(conf_dir()):
            with suppress(YAMLError, OSError, ValueError):  # Hydra reports the mistake
                words |= _named_by(read(path))
    return words | typed


def made_up(overrides: Sequence[str], config_dir: str | None) -> str:
    """Say which data an effort makes up since they might have to be downloaded; "": none."""
    words = named(overrides, config_dir)
    effort, recipe = words.get("effort"), words.get("experiment", "")
    if effort not in _efforts():
        return ""
    chosen = words.get("dataset") or option_of_recipe(recipe, "dataset", config_dir)
    dataset = chosen or defaults()["dataset"]
    section = _sections(effort, words, config_dir).get("dataset", {}).get(dataset, {})
    if not any("/dataset/synthetic@" in str(entry) for entry in section.get("defaults", ())):
        return ""
    return (
        f"effort={effort} makes up images in place of {dataset}, which might have to be "
        "downloaded; those in a folder of yours: dataset.root=DIR"
    ) * (dataset != "synthetic")


def settings_of_effort(
    overrides: Sequence[str], group: str, option: str, config_dir: str | None
) -> set[str]:
    """Return the full keys of the settings that the chosen effort gives to an option."""
    words = named(overrides, config_dir)
    if words.get("effort") not in _efforts():
        return set()
    sections = _sections(words["effort"], words, config_dir)
    return {f"{group}.{key}" for key in sections.get(group, {}).get(option, {})}


def _efforts() -> list[str]:
    return sorted(path.name for path in (conf_dir() / "effort").iterdir() if path.is_dir())


def _sections(effort: str, words: Mapping[str, str], config_dir: str | None) -> dict[str, Sections]:
    """Return the sections of each file of an effort, as they fit what the user has named."""
    found = {file: dict(sections) for file, sections in _files(effort).items()}
    own = found.pop("_own", {})
    if "dataset.root" in words:
        found["dataset"] = found["dataset"] | own["dataset"]
    further = groups(config_dir).get("dataset", ()) if config_dir else ()
    for option in set(further) - found["dataset"].keys():
        if "first_images" in option_settings("dataset", option, config_dir):
            found["dataset"][option] = found["dataset"]["image_folder"]
    for kept in (*_KEPT, _STRUCTURE) if _names_published(words) else _KEPT:
        if kept.word in words and words[kept.word] not in ("", "null", *kept.but):
            sections = found.get(kept.file, {})
            found[kept.file] = {
                name: _without(each, kept.setting) for name, each in sections.items()
            }
    return found


def _names_published(words: Mapping[str, str]) -> bool:
    """Tell whether the user names a published architecture; of a sweep, one of them."""
    given = words.get(_STRUCTURE.word)
    return given is not None and any(find_published(word.strip("'\"")) for word in given.split(","))


@cache
def _files(effort: str) -> dict[str, Sections]:
    """Read the sections of each file of an effort; ``_own`` are those of the user's own data."""
    folder = conf_dir() / "effort" / effort
    paths = [*folder.glob("[!_]*.yaml"), *folder.glob("_own.yaml")]
    return {
        path.stem: cast(Sections, OmegaConf.to_container(OmegaConf.load(path)))
        for path in sorted(paths)
    }


def _without(section: dict[str, Any], setting: str) -> dict[str, Any]:
    """Return a section that says nothing of ``setting``, neither a value nor an option."""
    first, _, rest = setting.partition(".")
    kept = dict(section)
    if "defaults" in kept:
        kept["defaults"] = [
            entry
            for entry in kept["defaults"]
            if not f"{str(entry).partition('@')[2]}.".startswith(f"{setting}.")
        ]
    if not rest:
        kept.pop(first, None)
    elif isinstance(kept.get(first), dict):
        kept[first] = _without(kept[first], rest)
    return kept


def _named_by(recipe: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Return the settings of a recipe, and the groups to which it gives an option."""
    words: dict[str, str] = {}
    for key, value in recipe.items():
        place = f"{where}.{key}" if where else str(key)
        if key == "defaults" and not where and isinstance(value, list):
            chosen = [pair for entry in value if isinstance(entry, dict) for pair in entry.items()]
            words |= {str(k).removeprefix("override ").lstrip("/"): str(v) for k, v in chosen}
        elif isinstance(value, dict):
            words |= _named_by(value, place)
        else:
            words[place] = "null" if value is None else str(value)
    return words


def option_settings(group: str, option: str, config_dir: str | None) -> dict[str, Any]:
    """Return the settings of an option's file as they stand, with those on which it builds."""
    files = files_of(group, config_dir)
    found: dict[str, Any] = {}
    names = [option]
    for name in names:  # the list grows by the files on which each file builds
        content: dict[str, Any] = {}
        with suppress(YAMLError, OSError, ValueError):  # Hydra reports the mistake
            content = read(files[name]) if name in files else {}
        found = {key: value for key, value in content.items() if key != "defaults"} | found
        for entry in content.get("defaults", []):
            base = Path(entry).name if isinstance(entry, str) else "_self_"
            names += [base] if base != "_self_" and base not in names else []
    return found
