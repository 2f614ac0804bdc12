"""Policies of the code base, as tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nasrun"

LAYERS = [
    {"__main__"},
    {"cli"},
    {"resume"},
    {"launch"},
    {"sweep", "earlier", "help"},
    {"sweep_curves", "sweep_methods"},
    {"sweep_rankings"},
    {"recipe"},
    {"config"},
    {"switches"},
    {"build", "options"},
    {"task"},
    {"search_algo", "sampler", "architectures"},
    {"budget"},
    {"evaluator"},
    {"trainer"},
    {"search_space"},
    {"dataset"},
    {"figures_architecture"},
    {"run", "figures"},
    {"metrics", "streams"},
    {"values"},
    {"errors", "limits", ""},
]
"""Who stands above whom: imports go downwards only, or stay within one part."""

HYDRA = {"cli", "config", "sweep"}
"""The only ones that know Hydra (the last is a callback of its)."""


def layer_of(part: str) -> int:
    return next(index for index, parts in enumerate(LAYERS) if part in parts)


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    part = relative.parts[0].removesuffix(".py")
    return "" if part == "__init__" else part


def imports(path: Path) -> list[str]:
    """Modules that the file imports, also inside functions and for type checkers."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    own = part_of(path)
    for name in imports(path):
        words = name.split(".")
        if words[0] == "hydra":
            assert own in HYDRA
        if words[0] == "omegaconf":
            assert own in HYDRA | {"earlier"}
        if words[0] == "nasrun":
            other = words[1] if len(words) > 1 and words[1] != "__version__" else ""
            if other != own:
                assert layer_of(other) > layer_of(own), f"{own} imports {other}"


def test_values_know_no_torch():
    for path in FILES:
        if part_of(path) in ("values", "errors", "metrics", "figures"):
            assert not any(word.split(".")[0] == "torch" for word in imports(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled(path):
    """Tensors are read with weights_only=True, everything else is JSON or YAML's safe subset."""
    text = path.read_text(encoding="utf-8")
    assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & {
        name.split(".")[0] for name in imports(path)
    }
    for call in re.findall(r"torch\.load\([^)]*\)", text):
        assert "weights_only=True" in call
    assert not re.search(
        r"allow_pickle\s*=\s*True|yaml\.(unsafe_)?load\(|\beval\(|\bexec\(",
        text.replace(".eval(", ""),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "every module says what it is for"


def test_every_value_of_a_group_has_a_comment():
    """Each tunable in conf/ names its unit or source, except in the deltas of recipes."""
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        if path.parent.name in ("experiment", "effort", "task"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            value = re.match(r"\s*(\w+):\s*[^\s#]", line)
            if value and value.group(1) != "_target_":
                assert "#" in line, f"{path.relative_to(ROOT)}:{number}: {line}"
