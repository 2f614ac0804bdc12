"""Read the docstring of a class from its file, without importing it: nothing of it runs."""

from __future__ import annotations

import ast
import inspect
from importlib.machinery import PathFinder
from pathlib import Path

MAX_STEPS = 4
"""Files that an import of an import may lead through."""


def docstring(target: str) -> str:
    """Return the docstring of the class that a ``_target_`` names; "" if it is not found."""
    module, _, name = target.rpartition(".")
    return _of_class(module, name, MAX_STEPS)


def _of_class(module: str, name: str, steps: int) -> str:
    path = _file(module)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError, SyntaxError):
        return ""
    for node in tree.body if tree else []:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return inspect.cleandoc(ast.get_docstring(node) or "")
        if isinstance(node, ast.ImportFrom) and steps and path:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _of_class(_absolute(node, module, path), alias.name, steps - 1)
    return ""


def _absolute(node: ast.ImportFrom, module: str, path: Path) -> str:
    """Return the full name of the module that a ``from`` in ``module`` names.

    path: the file of ``module``.
    """
    parts = module.split(".")
    above = node.level - (path.name == "__init__.py")
    kept = parts[: len(parts) - above] if node.level else []
    return ".".join([*kept, *filter(None, [node.module])])


def first_line(module: str) -> str:
    """Return the first line of a module's docstring, without the full stop; "" if there is none."""
    path = _file(module)
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path else None
    except (OSError, ValueError, SyntaxError):
        return ""
    return (text or "").partition("\n")[0].removesuffix(".")


def _file(module: str) -> Path | None:
    """Return the file of a module. Only the finder of files is asked, so no package is imported."""
    top, *rest = module.split(".")
    try:
        spec = PathFinder.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for folder in spec.submodule_search_locations or []:
        place = Path(folder).joinpath(*rest)
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None
