"""A package with an option of one's own, from templates: class, settings, test, pyproject."""

from __future__ import annotations

import ast
import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from nasrun.config.groups import groups
from nasrun.errors import UserError
from nasrun.run.commands import command
from nasrun.run.files import write_folder

TEMPLATES = Path(__file__).parent / "templates"
MAX_NAME_CHARACTERS = 40
YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "none", "auto")
"""Words that YAML, Hydra or we read as a value."""

OWN_WORDS = ("tests", "conf", "test")
"""Names of folders that the package has beside its own."""


@dataclass(frozen=True)
class Kind:
    """A group that packages may add an option to.

    words: what the option is. suffix: of the class's name. imports, check: of its test.
    """

    words: str
    suffix: str
    imports: str
    check: str


KINDS: Mapping[str, Kind] = {
    "sampler": Kind(
        "A sampler",
        "Sampler",
        "check_sampler, small_space, small_splits",
        "check_sampler({}, small_space(), small_splits().problem)",
    ),
    "search_algo": Kind(
        "A search algorithm",
        "Algo",
        "check_algo, small_space, small_splits",
        "check_algo({}, small_space(), small_splits())",
    ),
    "search_space": Kind(
        "A search space",
        "Space",
        "check_space, small_splits",
        "check_space({}, small_splits().problem)",
    ),
    "evaluator": Kind(
        "An evaluator",
        "Evaluator",
        "check_evaluator, small_space, small_splits",
        "check_evaluator({}, small_space(), small_splits())",
    ),
    "dataset": Kind("A data set", "Dataset", "check_dataset", "check_dataset({})"),
}


def check_name(kind: str, name: str) -> None:
    """Raise UserError if a package of an option cannot be called so."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > MAX_NAME_CHARACTERS:
        raise UserError(
            f"{name!r} is no name for a package: take small letters, digits and _, a letter first, "
            f"at most {MAX_NAME_CHARACTERS}, e.g. mine"
        )
    if keyword.iskeyword(name) or name in (*YAML_WORDS, *OWN_WORDS):
        raise UserError(f"{name!r} means something else already, to Python or YAML: take another")
    if name in groups().get(kind, ()):
        raise UserError(f"{kind}={name} is an option of nasrun's own: take another name")
    taken = name in sys.stdlib_module_names
    try:
        found = None if taken else importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if taken or (found is not None and found.origin is not None):
        raise UserError(f"there is a Python package called {name} already: take another name")


def package_files(kind: str, name: str) -> dict[str, bytes]:
    """Return the contents of the files of a package, by path within it.

    Raises UserError if a class of it would be called like one that it imports.
    """
    what = KINDS[kind]
    camel = "".join(part.capitalize() for part in name.split("_"))
    class_name = camel if camel.endswith(what.suffix) else f"{camel}{what.suffix}"
    words = {
        "kind": kind,
        "Kind": what.words,
        "name": name,
        "Name": camel,
        "Class": class_name,
        "checks": what.imports,
        "check": what.check.format(f"{class_name}(**settings())"),
    }
    texts = {
        "README.md": "README.md",
        "pyproject.toml": "pyproject.toml",
        f"{name}/__init__.py": "init.py",
        f"{name}/{kind}.py": f"{kind}.py",
        f"conf/{kind}/{name}.yaml": f"{kind}.yaml",
        f"tests/test_{name}.py": "test.py",
    }
    files = {
        path: Template((TEMPLATES / f"{text}.txt").read_text(encoding="utf-8")).substitute(words)
        for path, text in texts.items()
    }
    tree = ast.parse(files[f"{name}/{kind}.py"])
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in imported:
            raise UserError(f"its class {node.name} would hide one of nasrun's: take another name")
    return {path: text.encode() for path, text in files.items()}


def make(kind: str, name: str, into: Path) -> list[str]:
    """Write the package into the folder ``into``; returns commands that test it and run it.

    Raises UserError if the name will not do or is taken, or if there is no such folder.
    """
    if not into.is_dir():
        raise UserError(f"into={into}: there is no such folder")
    folder = into / name
    check_name(kind, name)
    write_folder(folder, package_files(kind, name))
    words = ("search", "-cd", folder / "conf", f"{kind}={name}", "effort=smoke")
    place = command(folder).partition(" ")[2]
    return [f"pytest {place}", f"PYTHONPATH={place} NASRUN_TRUST={name} {command(*words)}"]
