"""What nasrun imports is declared in pyproject.toml, and what is declared is imported."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from test_layers import FILES, imports

ROOT = Path(__file__).parents[1]

DISTRIBUTIONS = {
    "hydra": "hydra-core",
    "mlflow": "mlflow-skinny",
    "PIL": "pillow",
    "yaml": "pyyaml",
}
"""Packages by the names by which they are imported, where these differ."""

PARTS = {"pydantic_core": "pydantic"}
"""Packages that are always installed with another one, which is declared."""

PLUGINS = "hydra-"
"""The beginning of packages that Hydra itself finds."""

BY_OTHERS = {"onnx"}
"""Packages that others import for us: torch.onnx writes by it."""


def imported() -> set[str]:
    """The distributions whose packages nasrun imports, anywhere."""
    names = {name.partition(".")[0] for path in FILES for name in imports(path)}
    foreign = names - set(sys.stdlib_module_names) - {"nasrun"}
    return {DISTRIBUTIONS.get(n, PARTS.get(n, n)).replace("_", "-").lower() for n in foreign}


def declared(lines: list[str]) -> set[str]:
    return {match[0].lower() for line in lines if (match := re.match(r"[\w-]+", line))}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = declared(project["dependencies"])
    extras = {
        name
        for extra, lines in project["optional-dependencies"].items()
        if extra != "dev"
        for name in declared(lines)
    }
    found = imported()
    assert found - needed - extras == set(), "imported, but not in pyproject.toml"
    unused = (needed | extras) - found - BY_OTHERS
    unused = {name for name in unused if not name.startswith(PLUGINS)}
    assert unused == set(), "in pyproject.toml, but imported nowhere"


def test_every_dependency_has_a_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    assert [line for line in lines if ">=" not in line] == []
