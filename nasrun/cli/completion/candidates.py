"""The words that may stand at a place of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from nasrun.architectures.published import names
from nasrun.cli import arguments, commands
from nasrun.cli.completion.places import KINDS_OF_PATHS, folders, paths, runs
from nasrun.config.comments import described
from nasrun.config.groups import files_of, groups, tasks
from nasrun.config.outline import Outline, Setting, outline

RECIPES = "experiment"
HIDDEN = ("task", "hydra")
DEVICES = ("auto", "cpu", "cuda", "mps")
VALUES = {
    "resume": ("never", "auto"),
    "precision": ("auto", "fp32", "tf32", "bf16"),
    "compile": ("none", "blocks", "auto"),
}
"""Settings of the top level whose comments do not list their values."""


@dataclass(frozen=True)
class Candidate:
    """A word. about: its meaning, or "". final: whether the word is complete."""

    word: str
    about: str = ""
    final: bool = True


def candidates(words: Sequence[str], current: str) -> list[Candidate]:
    """Return what may stand in the place of ``current``, each beginning with it.

    words: those before it, without the program's name.
    """
    found = {one.word: one for one in _candidates(words, current) if one.word.startswith(current)}
    return list(found.values())


def _candidates(words: Sequence[str], current: str) -> Iterable[Candidate]:
    before = words[-1] if words else ""
    config_dir = _config_dir(words)
    task = _task(words)
    if before in ("-c", "--cfg"):
        return map(Candidate, arguments.CFG_KINDS)
    if before in arguments.CONFIG_DIR:
        return [Candidate(word, final=False) for word in folders(current)]
    if before in ("-p", "--package"):
        return map(Candidate, _outline(task, words, config_dir).nodes)
    if before in arguments.INFO and not current.startswith("-") and "=" not in current:
        return map(Candidate, arguments.INFO_TOPICS)
    if current.startswith("-"):
        own = commands.switches(task)
        return map(Candidate, (*arguments.FLAGS, *arguments.WITH_VALUE, *arguments.INFO, *own))
    if task is None:
        lines = [(line.partition(" ")[0], about) for line, about in commands.help_lines()]
        return [Candidate(name, about) for name, about in (*tasks().items(), *lines)]
    if task in commands.names():
        return _of_command(task, words[words.index(task) + 1 :], current, config_dir)
    return _of_task(task, words, current, config_dir)


def _of_command(
    name: str, words: Sequence[str], current: str, config_dir: str | None
) -> Iterator[Candidate]:
    """Yield the words of a command, as its line of usage tells."""
    usage = commands.find(name).USAGE
    if name == "help":
        yield from _help_words(current, config_dir)
        return
    options = dict(re.findall(r"([a-z_.]+)=([A-Z_]+)", usage))
    key, equals, value = current.partition("=")
    if equals and key in options:
        folder = "DIR" in options[key]
        kinds = runs(value) if options[key].startswith("RUN") else ()
        places = folders(value) if folder else paths(value)
        for word in (*kinds, *places):
            yield Candidate(f"{key}={word}", final=not word.endswith("/"))
        return
    rest = re.sub(r"[a-z_.]+=[\w.]+", "", usage)
    fixed = re.findall(r"(?<![\w.-])[a-z][a-z_]+", rest)
    if not words:
        yield from map(Candidate, fixed)
    task = next((word for word in words if word in tasks()), None)
    if "TASK" in rest and task is None:
        yield from (Candidate(*item) for item in tasks().items())
    if re.search(r"\b(RUN|SWEEP)", rest):
        yield from (Candidate(word, final=not word.endswith("/")) for word in runs(current))
    files = paths(current) if re.search(r"\b(FILE|IMAGE|ARCH)", rest) else iter(())
    if re.search(r"(\b|_)(DIR|RUN|SWEEP)", rest):
        files = chain(files, folders(current))
    yield from (Candidate(word, final=not word.endswith("/")) for word in files)
    yield from (Candidate(f"{option}=", final=False) for option in options)
    if "KEY=VALUE" in usage or "GROUP=OPTION" in usage or task:
        yield from _of_task(task or next(iter(tasks())), words, current, config_dir)


def _help_words(current: str, config_dir: str | None) -> Iterator[Candidate]:
    """Yield what ``nasrun help`` explains."""
    group, equals, _ = current.partition("=")
    if equals:
        yield from _options(group, group, "", None, config_dir)
        return
    yield from (Candidate(*item) for item in tasks().items())
    yield from map(Candidate, commands.names())
    for group in groups(config_dir):
        if "/" not in group and group not in HIDDEN:
            yield Candidate(group)
            yield Candidate(f"{group}=", final=False)
    for one in _keys(outline(next(iter(tasks()))), current, ()):
        yield Candidate(one.word.removesuffix("="), one.about, one.word.endswith("="))


def _of_task(
    task: str, words: Sequence[str], current: str, config_dir: str | None
) -> Iterator[Candidate]:
    """Yield settings and options of a task, whose other words choose what there is."""
    lead = re.match(r"[+~]*", current)
    sign = lead[0] if lead else ""
    key, equals, value = current[len(sign) :].partition("=")
    found = _outline(task, words, config_dir)
    if not equals:
        for one in _keys(found, key, words):
            word = one.word.removesuffix("=") if "~" in sign else one.word
            yield Candidate(f"{sign}{word}", one.about, one.final)
        return
    head, value = _split_at_comma(value)
    before = f"{sign}{key}={head}"
    if key.partition("@")[0] in groups(config_dir):
        yield from _options(before.removesuffix("="), key, head, task, config_dir)
    elif key == "from":
        for word in (*runs(value, _value_of("outputs", words)), *folders(value)):
            yield Candidate(f"{before}{word}", final=not word.endswith("/"))
    elif key.rpartition(".")[2] in KINDS_OF_PATHS:
        for word in (*paths(value), *(names() if key == "architecture" else ())):
            yield Candidate(f"{before}{word}", final=not word.endswith("/"))
    else:
        for word in _values(key, found.settings.get(key)):
            yield Candidate(f"{before}{word}")


def _options(
    before: str, place: str, head: str, task: str | None, config_dir: str | None
) -> Iterator[Candidate]:
    """Yield the options of a group; recipes only if they are of the task."""
    start = before if before.endswith(("=", ",", "[")) else f"{before}="
    recipe_tasks = _recipe_tasks(config_dir) if place == RECIPES and task else {}
    for option, path in files_of(place.partition("@")[0], config_dir).items():
        if recipe_tasks.get(option, task) == task:
            yield Candidate(f"{start}{option}", described(path).summary)


def _keys(found: Outline, prefix: str, words: Sequence[str]) -> Iterator[Candidate]:
    """Yield names that begin with ``prefix``, up to the next dot; not what is set already."""
    said = {word.partition("=")[0].lstrip("+~") for word in words if "=" in word}
    for place, choice in found.choices.items():
        if place not in (*HIDDEN, *said):
            yield Candidate(f"{place}=", choice.comment, final=False)
    for key, setting in found.settings.items():
        if key.startswith(prefix) and key not in said and not key.endswith("_target_"):
            name, dot, _ = key[len(prefix) :].partition(".")
            word = f"{prefix}{name}"
            if word in HIDDEN:
                continue
            about = found.nodes.get(word, "") if dot else setting.meaning
            yield Candidate(f"{word}{dot or '='}", about, final=False)


def _values(key: str, setting: Setting | None) -> Sequence[str]:
    """Return the values of a setting, as far as its comment names them."""
    if key == "device" or key.endswith(".device"):
        return DEVICES
    if key in VALUES:
        return VALUES[key]
    if setting is None:
        return ()
    if setting.text in ("true", "false"):
        return ("true", "false")
    return alternatives(setting.comment, setting.text)


def alternatives(comment: str, default: str) -> list[str]:
    """Return the values that a comment lists, as in ``params | macs``; [] if it lists none.

    Each stands at the beginning of its part, or the default at any place in the first part.
    """
    first, *others = comment.split(" | ")
    if not others:
        return []
    names = r"[A-Za-z_][\w+-]*"
    words = re.findall(names, first)
    found = [default] if default in words else words[:1]
    for part in others:
        word = re.match(names, part.strip())
        found += [word[0]] if word else []
    return found if len(found) == len(others) + 1 and default in (*found, "null") else []


def _task(words: Sequence[str]) -> str | None:
    """Return the first word that is neither a switch, nor its value, nor a setting."""
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        value = before in arguments.WITH_VALUE or (
            before in arguments.INFO and word in arguments.INFO_TOPICS
        )
        if not value and not word.startswith(("-", "+", "~")) and "=" not in word:
            return word
    return None


def _config_dir(words: Sequence[str]) -> str | None:
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in arguments.CONFIG_DIR:
            return value if equals else next(iter(words[index + 1 :]), None)
    return None


def _outline(task: str | None, words: Sequence[str], config_dir: str | None) -> Outline:
    """Compose what the words choose so far."""
    chosen = dict(word.partition("=")[::2] for word in words if "=" in word and "," not in word)
    return outline(task if task in tasks() else next(iter(tasks())), chosen, config_dir)


def _value_of(key: str, words: Sequence[str]) -> str | None:
    values = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    return values[-1] if values else None


def _split_at_comma(value: str) -> tuple[str, str]:
    """Split the last value of a sweep or a list from those before it, and from a bracket."""
    cut = max(value.rfind(","), value.rfind("[")) + 1
    return value[:cut], value[cut:]


def _recipe_tasks(config_dir: str | None) -> dict[str, str]:
    """Return the task of each recipe, found in its text: to parse all of them takes too long."""
    default = next(iter(tasks()))
    texts = {
        option: path.read_text(encoding="utf-8", errors="replace")
        for option, path in files_of(RECIPES, config_dir).items()
    }

    def task_of(option: str, depth: int = 0) -> str:
        text = texts.get(option, "")
        if named := re.search(r"^\s*- override /task: *(\w+)", text, re.MULTILINE):
            return named[1]
        bases = re.findall(r"^\s*- (\w+)\s*(?:#.*)?$", text, re.MULTILINE)
        base = next((name for name in bases if name in texts), None)
        return task_of(base, depth + 1) if base and depth < 5 else default

    return {option: task_of(option) for option in texts}
