"""Read YAML files together with their comments, which say what each setting means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from nasrun.config.groups import YAMLError

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser of libyaml where PyYAML has it: ten times as fast."""

_TRAILING = re.compile(r"\s*#\s*(.*?)\s*$")
_BEHIND_KEY = re.compile(r"\s*:\s*(?:[&!]\S+\s*)*#\s*(.*?)\s*$")
_LIKEWISE = re.compile(r"^likewise\b")
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[\w)\]'\"])\.\s+(?=[A-Z])")


@dataclass(frozen=True)
class Entry:
    """A setting of a file. key: with dots; text: the value as it is written, "" of a mapping.

    comment: at the end of its line, else that of the mapping around it, else the lines above it;
    "likewise" is replaced by the comment before.
    inherited: whether it is that of the mapping.
    """

    key: str
    text: str
    comment: str
    inherited: bool = False


@dataclass(frozen=True)
class Chosen:
    """An entry of a defaults list. key: as written; option: None: null."""

    key: str
    option: str | None
    comment: str


@dataclass(frozen=True)
class Described:
    """A YAML file with its comments.

    header: the comment at its beginning, as one paragraph. package: of Hydra's ``@package``; None:
    it says none. defaults: its defaults list; None: it has none. entries: its settings in order,
    a mapping before what is inside it.
    """

    header: str
    package: str | None
    defaults: tuple[Chosen, ...] | None
    entries: tuple[Entry, ...]

    @property
    def summary(self) -> str:
        """The first sentence of the header."""
        return first_sentence(self.header)


def first_sentence(text: str) -> str:
    """Return the text up to the end of its first sentence, without the full stop."""
    return _SENTENCE_END.split(text, maxsplit=1)[0].strip().removesuffix(".")


@cache
def described(path: Path) -> Described:
    """Read a YAML file with its comments; an unreadable one counts as empty."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=LOADER)
    except (OSError, ValueError, YAMLError):
        return Described("", None, None, ())
    package = _PACKAGE.search(text)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    found = [_choices(value, text) for key, value in pairs if key.value == "defaults"]
    settings = yaml.MappingNode(
        "tag:yaml.org,2002:map", [pair for pair in pairs if pair[0].value != "defaults"]
    )
    return Described(
        _header(text),
        package[1] if package else None,
        tuple(found[0]) if found else None,
        tuple(_entries(settings, text.splitlines(), "", "")),
    )


def _header(text: str) -> str:
    """Return the comment at the beginning of a file, without lines for Hydra."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.lstrip("#").strip()
        if not words.startswith(("@", "groups:")):  # for Hydra, for the page of help
            lines.append(words)
    return " ".join(filter(None, lines))


def _choices(node: Any, text: str) -> Iterator[Chosen]:
    """Yield the entries of a defaults list."""
    lines = text.splitlines()
    for item in node.value if isinstance(node, yaml.SequenceNode) else []:
        if isinstance(item, yaml.ScalarNode):
            yield Chosen(item.value, item.value, _trailing(item, lines))
        for key, value in item.value if isinstance(item, yaml.MappingNode) else []:
            null = value.tag.endswith(":null") or not isinstance(value, yaml.ScalarNode)
            yield Chosen(key.value, None if null else value.value, _trailing(value, lines))


def _entries(node: Any, lines: list[str], where: str, around: str) -> Iterator[Entry]:
    before = ""
    for key, value in node.value:
        place = f"{where}.{key.value}" if where else str(key.value)
        own = _like(before, _comment(key, value, lines))
        before = own or before
        mapping = isinstance(value, yaml.MappingNode) and value.value
        comment = own or around or _above(key, lines)
        inherited = bool(around) and not own
        yield Entry(place, "" if mapping else _text(value, lines), comment, inherited)
        if mapping:
            yield from _entries(value, lines, place, comment)


def _like(before: str, comment: str) -> str:
    """Replace a leading "likewise" by the comment before."""
    return f"{before}{comment[len('likewise') :]}" if _LIKEWISE.match(comment) else comment


def _comment(key: Any, value: Any, lines: list[str]) -> str:
    """Return the comment at the end of a setting's line."""
    block = not isinstance(value, yaml.ScalarNode) and not value.flow_style
    if block or value.start_mark.line == value.end_mark.line > key.start_mark.line:
        behind = _BEHIND_KEY.match(lines[key.end_mark.line][key.end_mark.column :])
        if behind:
            return behind[1]
    return "" if block else _trailing(value, lines)


def _trailing(value: Any, lines: list[str]) -> str:
    mark = value.end_mark
    found = _TRAILING.match(lines[mark.line][mark.column :]) if mark.line < len(lines) else None
    return found[1] if found else ""


def _above(key: Any, lines: list[str]) -> str:
    """Return the comment lines right above a setting, unless they are the header of the file."""
    above: list[str] = []
    indent = " " * key.start_mark.column
    line = key.start_mark.line - 1
    while line >= 0 and re.match(rf"{indent}#", lines[line]):
        above.insert(0, lines[line].strip().lstrip("#").strip())
        line -= 1
    return " ".join(above) if line >= 0 else ""


def _text(value: Any, lines: list[str]) -> str:
    """Return a value as it is written, in one line; a block between brackets."""
    if isinstance(value, yaml.CollectionNode) and value.value and not value.flow_style:
        if isinstance(value, yaml.SequenceNode):
            return f"[{', '.join(_text(item, lines) for item in value.value)}]"
        pairs = [f"{key.value}: {_text(inner, lines)}" for key, inner in value.value]
        return f"{{{', '.join(pairs)}}}"
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        text = lines[start.line][start.column : end.column] if start.line < len(lines) else ""
    else:
        inside = lines[start.line : end.line + 1]
        inside[-1] = inside[-1][: end.column] if end.line < len(lines) else inside[-1]
        inside[0] = inside[0][start.column :]
        text = " ".join(re.sub(r"\s#\s.*$", "", line).strip() for line in inside)
    return re.sub(r"^[&!]\S+\s+", "", text.strip()) or "null"
